"""Zones, lines and rules edited on the page: stored in a file next to the configuration, and applied to it.

Each entry states what the configuration itself said when the entry was made. If the configuration has been edited by
hand since then, it takes precedence over the entry, so that no later edit is silently lost.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError
from pipelines.build.sources import named_sources
from pipelines.config.models import Config
from pipelines.config.scene import LineConfig, RuleConfig, ZoneConfig
from pipelines.config.section import Section
from pipelines.config.source import SourceConfig

SUFFIX = ".edits.json"
MAX_BYTES = 8 * 1024 * 1024
FILE_MODE = 0o600
VERSION_CHARS = 16
RULES = "rules"
Kind = TypeVar("Kind", bound=Section)


class Edit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an edit was based on, who made it, and when."""

    base: str
    by: str
    at_utc_ns: int


class PlacesEdited(Edit):
    """Zones and lines of a source, in fractions of its frame."""

    zones: dict[str, dict[str, Any]]
    lines: dict[str, dict[str, Any]]


class RulesEdited(Edit):
    """All rules."""

    rules: list[dict[str, Any]]


class Edits(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the file."""

    version: int = 1
    places: dict[str, PlacesEdited] = {}
    rules: RulesEdited | None = None


class EditsFile:
    """Stores edits, and applies them to a configuration. Used by one thread; several processes may share the file.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bases: dict[str, str] = {}

    def read(self) -> Edits:
        """Return the edits; none if there is no file. Raises `ConfigError` if it is damaged."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return Edits()
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read ({error.strerror}): check its owner and mode") from error
        try:
            edits = msgspec.json.decode(data, type=Edits)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ConfigError(
                f"{self.path}, with the edits made on the page, is damaged ({error}): restore it, or move it away to "
                "run without them"
            ) from error
        if edits.version != 1:
            raise ConfigError(f"{self.path} is of version {edits.version}: expected 1, update framewire")
        return edits

    def applied_to(self, config: Config) -> tuple[Config, list[str]]:
        """Return a configuration with the edits applied, and a line about each.

        Raises:
            ConfigError: the file is damaged, or an edit in it is invalid.
        """
        self._bases = _bases(config)
        edits, notes = self.read(), list[str]()
        sources = []
        for name, source in named_sources(config):
            edit = edits.places.get(name)
            if edit is not None and self._counts(name, edit, f"zones and lines of {name}", notes):
                source = self._with_places(name, source, edit)
            sources.append(source)
        config = config.model_copy(update={"sources": sources})
        if edits.rules is not None and self._counts(RULES, edits.rules, RULES, notes):
            config = self._with_rules(config, edits.rules, notes)
        return config, notes

    def keep_places(self, source_id: str, zones: Mapping[str, Any], lines: Mapping[str, Any], by: str) -> str:
        """Store the zones and lines of a source; return why that is impossible, or an empty text."""
        if f"places {source_id}" not in self._bases:
            return f"{source_id} is not in the configuration: it was added while running"
        base = self._bases[f"places {source_id}"]
        edit = PlacesEdited(base=base, by=by, at_utc_ns=SYSTEM_CLOCK.utc_ns(), zones=dict(zones), lines=dict(lines))
        return self._change(lambda edits: edits.places.__setitem__(source_id, edit))

    def keep_rules(self, rules: list[dict[str, Any]], by: str) -> str:
        """Store all rules; return why that is impossible, or an empty text."""
        edit = RulesEdited(base=self._bases[RULES], by=by, at_utc_ns=SYSTEM_CLOCK.utc_ns(), rules=rules)
        return self._change(lambda edits: setattr(edits, RULES, edit))

    def _counts(self, name: str, edit: Edit, what: str, notes: list[str]) -> bool:
        """Return whether an edit still matches the configuration that it was based on, and add a line about it."""
        key = RULES if edit.__class__ is RulesEdited else f"places {name}"
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(edit.at_utc_ns // NS_PER_S))
        if edit.base == self._bases[key]:
            notes.append(f"{what} as edited on the page by {edit.by}, {when} ({self.path.name})")
            return True
        notes.append(
            f"{what}: the configuration was changed after {edit.by} edited them on the page ({when}): the "
            f"configuration counts, and the edit stays in {self.path.name} until the next one"
        )
        return False

    def _with_places(self, name: str, source: SourceConfig, edit: PlacesEdited) -> SourceConfig:
        zones = {key: self._section(ZoneConfig, zone, f"{name}.zones.{key}") for key, zone in edit.zones.items()}
        lines = {key: self._section(LineConfig, line, f"{name}.lines.{key}") for key, line in edit.lines.items()}
        return source.model_copy(update={"zones": zones, "lines": lines, "picture": None})

    def _with_rules(self, config: Config, edit: RulesEdited, notes: list[str]) -> Config:
        """Return the configuration with edited rules, or with its own if a place that the edited ones need is gone."""
        rules = [self._section(RuleConfig, rule, f"rules.{index}") for index, rule in enumerate(edit.rules)]
        from pipelines.build.scene import scenes_of

        new = config.model_copy(update={"rules": rules})
        try:
            scenes_of(new)
        except ConfigError as error:
            notes[-1] = f"rules: those in {self.path.name} no longer work, so the configuration's apply: {error}"
            return config
        return new

    def _section(self, kind: type[Kind], values: dict[str, Any], where: str) -> Kind:
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise ConfigError(
                f"{self.path}: {where}.{key}: {problem['msg']}: edit it, or move the file away"
            ) from error

    def _change(self, change: Any) -> str:
        try:
            with self._locked():
                edits = self.read()
                change(edits)
                data = msgspec.json.format(msgspec.json.encode(edits), indent=1)
                if len(data) > MAX_BYTES:
                    return f"{self.path.name} would be larger than {MAX_BYTES} bytes"
                _replace(self.path, data)
        except OSError as error:
            return f"{self.path} cannot be written ({error.strerror}): name another file as control.edits"
        except ConfigError as error:
            return str(error)
        return ""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time read and write the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def edits_file(config_path: str | None, config: Config) -> EditsFile | None:
    """Return the file for edits of the page: `control.edits`, else beside the configuration, else in `events.folder`.

    None: there is no such place; edits end with the run.
    """
    if config.control.edits is not None:
        return EditsFile(Path(config.control.edits))
    if config_path is not None and Path(config_path).is_file():
        return EditsFile(Path(config_path).with_suffix(SUFFIX))
    if config.events.folder is not None:
        return EditsFile(Path(config.events.folder) / f"page{SUFFIX}")
    return None


def with_edits(config: Config, config_path: str | None) -> Config:
    """Return a configuration with the edits from the page, as a run would use it. Raises `ConfigError`."""
    kept = edits_file(config_path, config)
    return config if kept is None else kept.applied_to(config)[0]


def digest(value: Any) -> str:
    """Return a short text that differs for different plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:VERSION_CHARS]


def _bases(config: Config) -> dict[str, str]:
    """Return digests of the configuration: of the places of each source, and of the rules."""
    found = {f"places {name}": digest(_places(source)) for name, source in named_sources(config)}
    return {**found, RULES: digest([rule.model_dump(exclude_defaults=True) for rule in config.rules])}


def _places(source: SourceConfig) -> dict[str, Any]:
    return source.model_dump(mode="json", include={"picture", "zones", "lines"}, exclude_defaults=True)


def _replace(path: Path, data: bytes) -> None:
    """Replace a file as a whole, so that a crash leaves the old one or the new one. Raises `OSError`."""
    part = path.with_name(f".{path.name}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
