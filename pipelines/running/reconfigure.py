"""Changes a running pipeline to a new configuration: sources, thresholds, classes and models.

Every change, from `framewire ctl` or an edit of the file, is a new `Config`. It is checked as a whole before
anything changes; keys that cannot change while running are rejected by name. A later failure (a camera that
hangs) does not stop the other changes: `Reconfigurer.config` holds the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.data import DEFAULT_MODEL
from engine.errors import ConfigError, EngineError
from engine.flow.changes import LAST_FRAMES_S
from engine.flow.pipeline import Pipeline
from engine.latch import Latch
from pipelines.build.actions import check_actions
from pipelines.build.detector import build_detector
from pipelines.build.events import change_actions, change_keep
from pipelines.build.models import MakeDetector, model_of
from pipelines.build.names import check_names
from pipelines.build.parts import references
from pipelines.build.privacy import change_privacy, check_classes, check_outputs
from pipelines.build.sources import build_recordings, build_rules, build_source, named_sources, without_places
from pipelines.config.file import assign, load_config, refuse_variables, validated
from pipelines.config.models import Config
from pipelines.config.source import SourceConfig
from pipelines.running.detect_and_publish import recordings_among
from pipelines.running.model_changes import ModelChanges

logger = logging.getLogger(__name__)
FIXED = (
    "second_stage",
    "tracker",
    "analysers",
    "site",
    "analytics",
    "events",
    "pipeline",
    "publish",
    "control",
    "web",
    "output",
    "metrics",
    "tracing",
    "privacy",
    "actions",
)


class PartlyChangedError(ConfigError):
    """A change was applied only in part; the message lists what succeeded and what failed."""


class Reconfigurer:
    """Holds the current configuration and changes the pipeline to another; used by one thread only.

    Args:
        pipeline: the run.
        config: the configuration that it was built from.
        make_detector: makes another detector.
        is_over: set when the run is ending; changes then stop waiting.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        config: Config,
        make_detector: MakeDetector = build_detector,
        is_over: Latch | None = None,
    ) -> None:
        self._config = _with_names(config)
        self._pipeline = pipeline
        self._models = ModelChanges(pipeline, config, make_detector)
        self._is_over = is_over or Latch()

    @property
    def config(self) -> Config:
        """The current configuration; it includes a model that is still loading, until that fails."""
        self._config = self._models.settle(self._config)
        return self._config

    @property
    def source_ids(self) -> list[str]:
        """Names of the configured sources."""
        return [name for name, _ in named_sources(self.config)]

    def add(self, source: dict[str, Any]) -> list[str]:
        """Add a source given as plain values."""
        return self._with_sources(source, lambda sources: [*sources, source])

    def put(self, source: dict[str, Any]) -> list[str]:
        """Add a source given as plain values, replacing one with the same name."""
        name = source.get("source_id")
        return self._with_sources(
            source, lambda sources: [*(each for each in sources if each["source_id"] != name), source]
        )

    def _with_sources(self, source: dict[str, Any], sources: Callable[[list[Any]], list[Any]]) -> list[str]:
        refuse_variables(source)
        tree = self._tree()
        tree["sources"] = sources(tree["sources"])
        return self._change_to_asked(tree, "add")

    def remove(self, *source_ids: str) -> list[str]:
        """Remove sources by name. Raises `ConfigError` for an unknown one."""
        names = self.source_ids
        for source_id in source_ids:
            if source_id not in names:
                raise ConfigError(f"there is no source {source_id}; expected one of: {', '.join(names) or 'none'}")
        tree = self._tree()
        tree["sources"] = [each for each in tree["sources"] if each["source_id"] not in source_ids]
        return self.change_to(validated(tree, "remove", environment=False))

    def with_assigned(self, new: Config) -> Config:
        """Return a configuration with the sources that a fleet has assigned, which no file lists."""
        held = set(self._pipeline.leases.held())
        return new.model_copy(
            update={"sources": [*new.sources, *(s for s in self.config.sources if s.source_id in held)]}
        )

    @property
    def loading(self) -> list[str]:
        """Names of the models that are being loaded or exchanged."""
        return self._models.loading

    def set(self, key: str, value: Any, source_id: str | None = None) -> list[str]:
        """Set one dotted key, of a source if its name is given; null for `models.NAME` frees that model.

        Raises:
            ConfigError: an unknown key or source, or a value that is refused, such as null for a model in use.
        """
        refuse_variables(value)
        tree = self._tree()
        if source_id is None:
            assign(tree, key, value)
        elif source_id in self.source_ids:
            assign(tree["sources"][self.source_ids.index(source_id)], key, value)
        else:
            raise ConfigError(f"there is no source {source_id}")
        if isinstance(tree.get("models"), dict):
            tree["models"] = {name: options for name, options in tree["models"].items() if options is not None}
        return self._change_to_asked(tree, "set")

    def set_places(self, source_id: str, zones: dict[str, Any], lines: dict[str, Any]) -> list[str]:
        """Replace the zones and lines of a source with ones in fractions of its frame. Raises `ConfigError`."""
        refuse_variables([zones, lines])
        tree = self._tree()
        source = next((each for each in tree["sources"] if each["source_id"] == source_id), None)
        if source is None:
            raise ConfigError(f"there is no source {source_id}")
        if isinstance(tree.get("models"), dict):
            tree["models"] = {name: options for name, options in tree["models"].items() if options is not None}
        source |= {"zones": zones, "lines": lines, "picture": None}
        return self.change_to(validated(tree, "places", environment=False))

    def set_rules(self, rules: list[dict[str, Any]]) -> list[str]:
        """Replace all rules; a custom rule must already exist with the same arguments. Raises `ConfigError`."""
        from engine.analytics.rules import KINDS

        refuse_variables(rules)
        known = [_own_code(rule) for rule in self._tree()["rules"]]
        for rule in rules:
            if rule.get("kind") not in KINDS and _own_code(rule) not in known:
                raise ConfigError(
                    f"rules: {rule.get('name')!r} of kind {rule.get('kind')!r}: custom rules and their parameters can "
                    "be changed only in the configuration file"
                )
        tree = self._tree()
        tree["rules"] = rules
        return self.change_to(validated(tree, "rules", environment=False))

    def change_to(self, new: Config) -> list[str]:
        """Change the run to `new` and return one line per change made.

        Raises:
            ConfigError: part of it cannot change while running, or is invalid; nothing was changed.
            EngineError: a source or model cannot be used; nothing was changed.
            PartlyChangedError: a source hangs or cannot be added, or the run is ending; the rest was changed.
        """
        from pipelines.build.scene import change_scene, scenes_differ, scenes_of
        from pipelines.build.video import offer_video

        self._check_fixed(new)
        new = _with_names(new)
        before, after = dict(named_sources(self.config)), dict(named_sources(new))
        if len(after) < len(new.sources):
            raise ConfigError("two sources have the same name: give each its own source_id")
        streams = {name: without_places(source) for name, source in before.items()}
        moved = {name: model_of(after[name]) for name in after if _only_moves(streams.get(name), after[name])}
        same = moved.keys() | {name for name in after if streams.get(name) == without_places(after[name])}
        gone = [name for name in before if name not in same]
        fresh = {name: build_source(after[name], name) for name in after if name not in same}
        class_names = self._class_names(new)
        check_names(new, class_names)
        check_classes(new, class_names)
        check_outputs(new)
        check_actions(new)
        plans, rules, scenes = build_recordings(new), build_rules(new), scenes_of(new)
        had_scenes = scenes_of(self.config)
        kept = [source.info for source in self._pipeline.sources if source.info.source_id in same]
        add_models, change_models = self._models.plan(new, [*kept, *(source.info for source in fresh.values())])
        done, failed = [f"removed {name}" for name in gone], self._remove(gone)
        done += [f"changed zones, lines and rules of {name}" for name in scenes_differ(had_scenes, scenes)]
        done += self._change_keep(new)  # compared with the current configuration
        present = set(same)
        self._take_sources(new, present)
        self._pipeline.set_rules(rules)
        change_privacy(self._pipeline, new)
        change_actions(self._pipeline, new)
        if scenes_differ(had_scenes, scenes):
            change_scene(self._pipeline, scenes, had_scenes)
        for recordings in recordings_among(self._pipeline.sinks):
            recordings.set_plans(plans)
        for add in add_models:
            done += add()
        self._move(moved, done, failed)
        deadline = time.monotonic() + LAST_FRAMES_S  # for all together
        offer_video(new, [*self._pipeline.sources, *fresh.values()], self._pipeline.sinks)
        for name, source in fresh.items():
            try:
                wait_s = max(deadline - time.monotonic(), 0.0)
                self._pipeline.add_source(source, wait_s, self._is_over, model=model_of(after[name]))
            except ConfigError as error:
                failed.append(str(error))
                continue
            present.add(name)
            self._take_sources(new, present)
            done.append(f"added {name}")
        for change in change_models:  # after the cameras: while it loads, no camera can reuse an earlier name
            done += change()
        self._config = self._config.model_copy(update={"detector": new.detector, "models": new.models})
        done += self._models.drop_unlisted(new)
        if failed:
            raise PartlyChangedError(f"changed in part ({', '.join(done) or 'nothing'}): {'; '.join(failed)}")
        return done

    def _change_keep(self, new: Config) -> list[str]:
        if new.events == self.config.events:
            return []
        change_keep(self._pipeline, new)
        return ["changed what events.keep keeps"]

    def _move(self, moved: Mapping[str, str], done: list[str], failed: list[str]) -> None:
        """Move sources to other models; one that has ended keeps its entry in the configuration."""
        running = self._pipeline.running_sources
        for source_id, model in moved.items():
            try:
                if source_id in running:
                    self._pipeline.move_source(source_id, model)
            except ConfigError as error:  # the model has failed to load since: `config` reflects that
                failed.append(str(error))
                continue
            done.append(f"moved {source_id} to {model}")

    def _class_names(self, new: Config) -> dict[str, Sequence[str]]:
        """Return the classes of each model in use that does not change."""
        now = self.config
        return {
            name: lane.detector.class_names
            for name, lane in self._pipeline.models.items()
            if _file_of(now, name) == _file_of(new, name)
        }

    def _remove(self, names: Sequence[str]) -> list[str]:
        """End these sources and return the errors of those that do not end; they are abandoned."""
        failed: list[str] = []
        for name in names:
            if self._is_over.is_set():
                return [*failed, "the run ends"]
            if name not in self._pipeline.running_sources:
                continue
            try:
                self._pipeline.remove_source(name)
            except ConfigError as error:
                failed.append(str(error))
        return failed

    def _take_sources(self, new: Config, names: Collection[str]) -> None:
        """Adopt everything but the models from `new`, with only the sources of these names."""
        sources = [source for source in new.sources if source.source_id in names]
        models = {"detector": self._config.detector, "models": self._config.models}
        self._config = new.model_copy(update={"sources": sources, **models})

    def _tree(self) -> dict[str, Any]:
        """Return the configuration as plain values; every source is named, so that list positions may change."""
        config = _with_names(self.config)
        rules = [rule.model_dump(exclude_unset=True) for rule in config.rules]  # a key that is given must apply
        return {**config.model_dump(), "rules": rules}

    def _refuse_new_code(self, tree: dict[str, Any]) -> None:
        """Raise `ConfigError` for code that a request names: changing a run must not permit running code in it."""
        new = set(references(tree)) - set(references(self._tree()))
        if new:
            raise ConfigError(f"{min(new)} is code, which only the configuration file may name: edit the file")

    def _change_to_asked(self, tree: dict[str, Any], request: str) -> list[str]:
        """Change to plain values that a request asks for, unless only the configuration file may ask for them."""
        self._refuse_new_code(tree)
        new = validated(tree, request, environment=False)
        self._refuse_other_privacy(new)
        return self.change_to(new)

    def _refuse_other_privacy(self, new: Config) -> None:
        """Raise `ConfigError` for a request that changes what is hidden: only the configuration file may."""
        now = {source.source_id: source.privacy for source in _with_names(self.config).sources}
        for source in _with_names(new).sources:
            has = now.get(source.source_id)
            if (source.privacy and source.privacy.model_dump()) != (has and has.model_dump()):
                raise ConfigError("privacy can be changed only in the configuration file: edit the file")

    def _check_fixed(self, new: Config) -> None:
        for section in FIXED:
            if _fixed(new, section) != _fixed(self.config, section):
                raise ConfigError(f"{section} cannot change while running: end the run and start it again")


def _fixed(config: Config, section: str) -> Any:
    """Return the part of a section that cannot change while running."""
    found = getattr(config, section)
    return found.model_dump(exclude={"keep"}) if section == "events" else found


class ConfigWatch:
    """Notices edits of the configuration file and applies them; a bad edit is logged and changes nothing.

    An edit is applied once two calls of `poll` see the same file, so that a partly written file is not read.
    """

    def __init__(
        self,
        path: str,
        overrides: dict[str, Any],
        settings: list[str],
        changes: Reconfigurer,
        completed: Callable[[Config], Config] = lambda config: config,
    ) -> None:
        self._path, self._overrides, self._settings, self._changes = path, overrides, settings, changes
        self._completed = completed
        self._stamp = self._seen = self._read_stamp()

    def poll(self) -> None:
        """Apply the file if it has changed since it was last applied, but not since the last call."""
        stamp, before = self._read_stamp(), self._seen
        self._seen = stamp
        if stamp in (self._stamp, None) or stamp != before:
            return
        self._stamp = stamp
        try:
            new = self._completed(load_config(self._path, self._overrides, self._settings, may_be_empty=False))
            done = self._changes.change_to(self._changes.with_assigned(new))
        except PartlyChangedError as error:
            logger.error("the edit of %s was only partly applied, save it again for the rest: %s", self._path, error)
            return
        except EngineError as error:
            logger.error("the edit of %s changes nothing: %s", self._path, error)
            return
        except Exception:  # a bug: one edit must not end the run
            logger.exception("the edit of %s failed", self._path)
            return
        logger.warning("%s was edited: %s", self._path, "; ".join(done) or "no relevant change")

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            facts = Path(self._path).stat()
        except OSError:
            return None  # an editor replaces the file: look again at the next call
        return facts.st_mtime_ns, facts.st_size


def _file_of(config: Config, model: str) -> str | None:
    options = config.detector if model == DEFAULT_MODEL else config.models.get(model)
    return None if options is None else options.model


def _own_code(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    return rule.get("name"), rule.get("kind"), rule.get("parameters", {})


def _with_names(config: Config) -> Config:
    sources = [source.model_copy(update={"source_id": name}) for name, source in named_sources(config)]
    return config.model_copy(update={"sources": sources})


def _only_moves(before: SourceConfig | None, after: SourceConfig) -> bool:
    """Return whether only the model of a source changes."""
    if before is None or model_of(before) == model_of(after):
        return False
    return before.model_copy(update={"model": after.model}) == without_places(after)
