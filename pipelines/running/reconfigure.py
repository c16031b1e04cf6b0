"""Changing a running pipeline to a new configuration: sources, thresholds, classes and the model.

Every change, by `framewire ctl` or by an edit of the file, is a new `Config`. It is checked as a whole before
anything is touched; what cannot change while running is refused by name. What goes wrong after that (a camera that
hangs) keeps nothing else from being changed: `Reconfigurer.config` is what came of it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.data import SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.load import class_ids
from engine.errors import ConfigError, EngineError
from engine.flow.changes import LAST_FRAMES_S
from engine.flow.pipeline import Pipeline
from engine.protocols import Detector
from engine.sinks.camera_video.recordings import Recordings
from engine.stats import never
from pipelines.build.detector import build_detector, tiled
from pipelines.build.pipeline import MakeDetector
from pipelines.build.sources import build_recordings, build_rules, build_source, named_sources
from pipelines.config.file import assign, load_config, refuse_variables, validated
from pipelines.config.models import Config, DetectorConfig

logger = logging.getLogger(__name__)
FIXED = ("second_stage", "tracker", "pipeline", "publish", "control", "output")
AT_ONCE = ("score_threshold", "iou_threshold", "classes")


class PartlyChangedError(ConfigError):
    """A part of a change could not be done, the rest is; the message tells both."""


@dataclass(eq=False)
class _Coming:
    """A model that was asked for and is not in use yet, with its part of the configuration."""

    detector: Detector
    options: DetectorConfig


class Reconfigurer:
    """Holds the configuration in force and changes the pipeline to another; belongs to one thread.

    Args:
        pipeline: the run.
        config: what it was built from.
        make_detector: makes another detector.
        is_over: whether the run is to end: then no change waits for anything.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        config: Config,
        make_detector: MakeDetector = build_detector,
        is_over: Callable[[], bool] = never,
    ) -> None:
        self._config = _with_names(config)
        self._pipeline = pipeline
        self._make_detector = make_detector
        self._is_over = is_over
        self._in_use = config.detector
        self._coming: list[_Coming] = []
        self._news: deque[tuple[_Coming, bool]] = deque()

    @property
    def config(self) -> Config:
        """The configuration in force; a model that is being loaded counts until it proves unusable."""
        while self._news:
            self._settle(*self._news.popleft())
        return self._config

    def _settle(self, coming: _Coming, is_in_use: bool) -> None:
        """Note that a model is in use or cannot be; those asked for before it are done with as well."""
        del self._coming[: self._coming.index(coming) + 1]
        if is_in_use:
            self._in_use = coming.options
        elif not self._coming:
            self._config = self._config.model_copy(update={"detector": self._in_use})

    def add(self, source: dict[str, Any]) -> list[str]:
        """Add a source given as its plain values."""
        refuse_variables(source)
        tree = self._tree()
        tree["sources"].append(source)
        return self.change_to(validated(tree, "add", environment=False))

    def remove(self, source_id: str) -> list[str]:
        """Remove a source by name."""
        names = [name for name, _ in named_sources(self.config)]
        if source_id not in names:
            raise ConfigError(f"there is no source {source_id}: configured are {', '.join(names) or 'none'}")
        tree = self._tree()
        del tree["sources"][names.index(source_id)]
        return self.change_to(validated(tree, "remove", environment=False))

    def set(self, key: str, value: Any) -> list[str]:
        """Set one dotted key."""
        refuse_variables(value)
        tree = self._tree()
        assign(tree, key, value)
        return self.change_to(validated(tree, "set", environment=False))

    def change_to(self, new: Config) -> list[str]:
        """Change the run to `new` and return what was done, a line each.

        Raises:
            ConfigError: something in it cannot change while running, or cannot work; then nothing was changed.
            EngineError: a source or model that cannot be used; then nothing was changed.
            PartlyChangedError: a source hangs, or cannot be added, or the run is to end; the rest was changed.
        """
        self._check_fixed(new)
        new = _with_names(new)
        before, after = dict(named_sources(self.config)), dict(named_sources(new))
        if len(after) < len(new.sources):
            raise ConfigError("two sources have one name: give each its own source_id")
        gone = [name for name in before if before[name] != after.get(name)]
        fresh = {name: build_source(after[name], name) for name in after if before.get(name) != after[name]}
        plans, rules = build_recordings(new), build_rules(new)
        present = after.keys() - fresh.keys()
        kept = [source.info for source in self._pipeline.sources if source.info.source_id in present]
        change_model = self._model_change(new, [*kept, *(source.info for source in fresh.values())])
        done, failed = [f"removed {name}" for name in gone], self._remove(gone)
        self._take_sources(new, present)
        self._pipeline.set_rules(rules)
        for sink in self._pipeline.sinks:
            if isinstance(sink, Recordings):
                sink.set_plans(plans)
        deadline = time.monotonic() + LAST_FRAMES_S  # for all together
        for name, source in fresh.items():
            try:
                self._pipeline.add_source(source, max(deadline - time.monotonic(), 0.0), self._is_over)
            except ConfigError as error:
                failed.append(str(error))
                continue
            present.add(name)
            self._take_sources(new, present)
            done.append(f"added {name}")
        done += change_model()  # after the cameras: while it loads, no camera of a former one's name can be added
        if failed:
            raise PartlyChangedError(f"changed in part ({', '.join(done) or 'nothing'}): {'; '.join(failed)}")
        return done

    def _remove(self, names: Sequence[str]) -> list[str]:
        """End these sources and return what is wrong with those that do not end: they are given up."""
        failed: list[str] = []
        for name in names:
            if self._is_over():
                return [*failed, "the run ends"]
            if name not in self._pipeline.running_sources:
                continue
            try:
                self._pipeline.remove_source(name)
            except ConfigError as error:
                failed.append(str(error))
        return failed

    def _take_sources(self, new: Config, names: Collection[str]) -> None:
        """Take over all but the detector from `new`, of its sources those with these names."""
        sources = [source for source in new.sources if source.source_id in names]
        self._config = new.model_copy(update={"sources": sources, "detector": self._config.detector})

    def _tree(self) -> dict[str, Any]:
        """Return the configuration as plain values, every source with its name, so that places may shift."""
        return _with_names(self.config).model_dump()

    def _check_fixed(self, new: Config) -> None:
        for section in FIXED:
            if getattr(new, section) != getattr(self.config, section):
                raise ConfigError(f"{section} cannot change while running: end the run and start it anew")

    def _model_change(self, new: Config, sources: Sequence[SourceInfo]) -> Callable[[], list[str]]:
        """Return what changes the model or its thresholds and tells so; all is checked, nothing touched yet."""
        now, then = self.config.detector.model_dump(), new.detector.model_dump()
        changed = [key for key in then if now[key] != then[key]]
        if not changed:
            return list
        newest = self._coming[-1].detector if self._coming else self._pipeline.detector
        if set(changed) <= set(AT_ONCE) and isinstance(newest, ModelDetector):
            class_ids(new.detector.classes or [], newest.class_names)
            act = partial(self._set_at_once, newest, new.detector)
        else:
            act = partial(self._exchange, tiled(new, self._make_detector(new, sources)), new.detector)

        def change() -> list[str]:
            act()
            self._config = self._config.model_copy(update={"detector": new.detector})
            return [f"{key} is {then[key]!r}" for key in changed]

        return change

    def _set_at_once(self, newest: ModelDetector, options: DetectorConfig) -> None:
        set_at_once(newest, options)
        if self._coming:
            self._coming[-1].options = options
        else:
            self._in_use = options

    def _exchange(self, detector: Detector, options: DetectorConfig) -> None:
        coming = _Coming(detector, options)
        self._pipeline.exchange_detector(
            detector, lambda error: self._news.append((coming, False)), lambda: self._news.append((coming, True))
        )
        self._coming.append(coming)


def set_at_once(detector: ModelDetector, options: DetectorConfig) -> None:
    """Give a detector the thresholds and classes of a configuration; from any thread."""
    detector.choose_classes(None if options.classes is None else class_ids(options.classes, detector.class_names))
    detector.score_threshold = options.score_threshold
    family = detector.facts.family.iou_threshold
    detector.iou_threshold = family if options.iou_threshold is None else options.iou_threshold


class ConfigWatch:
    """Notices edits of the configuration file and applies them; a bad edit is logged and changes nothing.

    An edit counts once the file is the same in two calls of `poll`, so that one that is being written is not read.
    """

    def __init__(self, path: str, overrides: dict[str, Any], settings: list[str], changes: Reconfigurer) -> None:
        self._path, self._overrides, self._settings, self._changes = path, overrides, settings, changes
        self._stamp = self._seen = self._read_stamp()

    def poll(self) -> None:
        """Apply the file if it has changed since it was applied, and not since the last call."""
        stamp, before = self._read_stamp(), self._seen
        self._seen = stamp
        if stamp in (self._stamp, None) or stamp != before:
            return
        self._stamp = stamp
        try:
            new = load_config(self._path, self._overrides, self._settings, may_be_empty=False)
            done = self._changes.change_to(new)
        except PartlyChangedError as error:
            logger.error("the edit of %s is not applied as a whole, save it again for the rest: %s", self._path, error)
            return
        except EngineError as error:
            logger.error("the edit of %s changes nothing: %s", self._path, error)
            return
        except Exception:  # a mistake of ours: one edit must not end the run
            logger.exception("the edit of %s failed", self._path)
            return
        logger.warning("%s was edited: %s", self._path, "; ".join(done) or "nothing that matters")

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            facts = Path(self._path).stat()
        except OSError:
            return None  # an editor replaces the file: look again at the next call
        return facts.st_mtime_ns, facts.st_size


def _with_names(config: Config) -> Config:
    sources = [source.model_copy(update={"source_id": name}) for name, source in named_sources(config)]
    return config.model_copy(update={"sources": sources})
