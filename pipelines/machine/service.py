"""Installs, shows and removes the systemd service of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, SinkError
from pipelines.machine.unit import UNIT_FOLDER, ServiceOptions, is_systemd_running, unit_text

if TYPE_CHECKING:
    from pipelines.config.models import Config

SYSTEMCTL_S = 120.0
MARK = "# Written by framewire service install."
_SHOWN = ("ActiveState", "SubState", "StatusText", "Result", "NRestarts", "MainPID", "MemoryCurrent", "UnitFileState")


def options_of(
    config_path: str, config: Config, *, name: str, user: str | None, devices: Sequence[str]
) -> ServiceOptions:
    """Return the service of a configuration.

    Raises:
        ConfigError: the configuration is a preset, not a file.
    """
    path = Path(config_path)
    if not path.is_file():
        raise ConfigError(f"{config_path} is not a file: a service needs one, such as /etc/framewire/cameras.yaml")
    writes = [Path(os.path.abspath(folder)) for folder in _folders_written(config)]
    reads = [Path(sys.executable).resolve(), *(Path(os.path.abspath(file)) for file in _files_read(config))]
    return ServiceOptions(name, path.resolve(), command_path(), user, devices, list(dict.fromkeys(writes)), reads)


def command_path() -> Path:
    """Return the absolute path of the command `framewire` of this installation. Raises `ConfigError`."""
    beside = Path(sys.executable).parent / "framewire"
    found = str(beside) if beside.exists() else shutil.which("framewire")
    if found is None:
        raise ConfigError("the command framewire is not installed: pip install framewire")
    return Path(os.path.abspath(found))


def install(options: ServiceOptions, folder: Path = UNIT_FOLDER, *, start: bool = True) -> list[str]:
    """Write the unit and, if systemd runs here, enable and start it; return what was done and what remains.

    Raises:
        ConfigError: a unit with this name comes from elsewhere, or the options are invalid.
        SinkError: the unit cannot be written, or systemd refuses it.
    """
    text, path = unit_text(options), unit_path(options.name, folder)
    if path.exists() and not _is_ours(path):
        raise ConfigError(f"{path} was not written by framewire: give another --name")
    try:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}: run this as root (sudo)") from error
    told = [f"wrote {path}"]
    if folder != UNIT_FOLDER or not is_systemd_running():
        return [*told, "systemd does not run here: copy the unit, then systemctl enable --now " + options.name]
    _systemctl("daemon-reload")
    _systemctl("enable", "--now" if start else "--no-reload", options.name)
    return [*told, f"{'started' if start else 'enabled'} {options.name}: journalctl -fu {options.name} shows its log"]


def status(name: str, folder: Path = UNIT_FOLDER) -> dict[str, Any]:
    """Return the unit's path, whether it is ours, and what systemd says about it."""
    path = unit_path(name, folder)
    facts: dict[str, Any] = {"unit": str(path), "installed": path.exists() and _is_ours(path)}
    if not is_systemd_running():
        return {**facts, "systemd": "not running here"}
    answer = _systemctl("show", name, f"--property={','.join(_SHOWN)}")
    return {**facts, **dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)}


def uninstall(name: str, folder: Path = UNIT_FOLDER) -> list[str]:
    """Stop the service and remove its unit; its state, cache and recordings stay.

    Raises:
        ConfigError: the unit does not exist, or comes from elsewhere.
    """
    path = unit_path(name, folder)
    if not path.exists() or not _is_ours(path):
        raise ConfigError(f"{path} is not a framewire service; framewire service status shows what is installed")
    runs = folder == UNIT_FOLDER and is_systemd_running()
    if runs:
        _systemctl("disable", "--now", name)
    path.unlink()
    if runs:
        _systemctl("daemon-reload")
    return [f"removed {path}", f"its data stays in /var/lib/{name} and /var/cache/{name}"]


def unit_path(name: str, folder: Path) -> Path:
    """Return where the unit is. Raises `ConfigError` for a name that cannot be used."""
    if "/" in name or name.startswith("."):
        raise ConfigError(f"service name {name!r}: expected a-z, 0-9, - and _")
    return folder / f"{name}.service"


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return False


def _systemctl(*words: str) -> str:
    try:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SinkError(f"systemctl {words[0]} failed: {error}") from error
    if done.returncode != 0:
        raise SinkError(f"systemctl {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _folders_written(config: Config) -> Iterator[str]:
    """Yield the folders that a run writes to."""
    for source in config.sources:
        if source.record is not None:
            yield str(source.record.folder)
    for file in (config.output.save, config.output.jsonl, config.analytics.state):
        if file is not None and file != "-":
            yield str(Path(file).parent)
    for folder in (config.detector.cache_dir, getattr(getattr(config, "events", None), "folder", None)):
        if folder is not None:
            yield str(folder)


def _files_read(config: Config) -> Iterator[str]:
    for detector in (config.detector, *config.models.values()):
        if "/" in detector.model:
            yield detector.model
    for source in config.sources:
        if "://" not in source.uri and "/" in source.uri:
            yield source.uri
