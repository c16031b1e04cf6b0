"""Changes the models of a running pipeline: thresholds immediately, other models once they are loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from engine.data import DEFAULT_MODEL, SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.load import class_ids
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.protocols import Detector
from pipelines.build.detector import options_of, tiled
from pipelines.build.models import MakeDetector, infos_of, model_of, models_in_use
from pipelines.config.models import Config, DetectorConfig

AT_ONCE = ("score_threshold", "iou_threshold", "classes")
Step = Callable[[], list[str]]


@dataclass(eq=False)
class _Coming:
    """A requested detector that is not yet in use, with its part of the configuration."""

    model: str
    detector: Detector
    options: DetectorConfig
    is_new: bool = False


class ModelChanges:
    """Adds, exchanges and removes the models of a run; used by one thread only.

    Args:
        pipeline: the run.
        config: the configuration that it was built from.
        make: makes another detector.
    """

    def __init__(self, pipeline: Pipeline, config: Config, make: MakeDetector) -> None:
        self._pipeline = pipeline
        self._make = make
        self._in_use = {name: options_of(config, name) for name in models_in_use(config)}
        self._coming: list[_Coming] = []
        self._news: deque[tuple[_Coming, bool]] = deque()
        self._unwanted: set[str] = set()

    @property
    def loading(self) -> list[str]:
        """Names of the models that are being loaded or exchanged, as of the last `settle`."""
        return list(dict.fromkeys(coming.model for coming in self._coming))

    def settle(self, config: Config) -> Config:
        """Return the configuration updated by events since the last call, and free unwanted models."""
        while self._news:
            coming, is_in_use = self._news.popleft()
            config = self._settled(config, coming, is_in_use=is_in_use)
        for name in list(self._unwanted):
            with suppress(ConfigError):  # a source is still moving to another model
                self._pipeline.remove_model(name)
                self._unwanted.discard(name)
                self._in_use.pop(name, None)
        return config

    def plan(self, new: Config, sources: Sequence[SourceInfo]) -> tuple[list[Step], list[Step]]:
        """Return the steps that add models and those that change them, validated but not yet applied.

        Args:
            new: the new configuration.
            sources: all sources of `new`.

        Raises:
            EngineError: a model cannot be used.
        """
        loaded = {*self._in_use, *(coming.model for coming in self._coming)}
        wanted = models_in_use(new) if new.sources else []
        additions = [self._addition(name, new, sources) for name in wanted if name not in loaded]
        kept = [name for name in loaded if name == DEFAULT_MODEL or name in new.models]
        return additions, [self._change(name, new, sources) for name in sorted(kept)]

    def drop_unlisted(self, new: Config) -> list[str]:
        """Free the models that the configuration no longer has, once no source uses them."""
        gone = [name for name in self._in_use if name != DEFAULT_MODEL and name not in new.models]
        fresh = [name for name in gone if name not in self._unwanted]
        self._unwanted = set(gone)
        return [f"removed model {name}" for name in fresh]

    def _addition(self, name: str, new: Config, sources: Sequence[SourceInfo]) -> Step:
        options = options_of(new, name)
        detector = tiled(new, self._make(new, infos_of(name, new, sources), name), name)

        def add() -> list[str]:
            coming = _Coming(name, detector, options, is_new=True)
            self._coming.append(coming)
            self._pipeline.add_model(name, detector, *self._told(coming))
            return [f"loading model {name}"]

        return add

    def _change(self, name: str, new: Config, sources: Sequence[SourceInfo]) -> Step:
        options = options_of(new, name)
        mine = [coming.options for coming in self._coming if coming.model == name]
        before, then = (mine[-1] if mine else self._in_use[name]).model_dump(), options.model_dump()
        changed = [key for key in then if before[key] != then[key]]
        if not changed:
            return list
        newest = self._newest(name)
        if set(changed) <= set(AT_ONCE) and isinstance(newest, ModelDetector):
            class_ids(options.classes or [], newest.class_names)
            act = partial(self._set_at_once, name, newest, options)
        else:
            made = tiled(new, self._make(new, infos_of(name, new, sources), name), name)
            act = partial(self._exchange, name, made, options)
        prefix = "" if name == DEFAULT_MODEL else f"{name}."

        def change() -> list[str]:
            act()
            return [f"{prefix}{key} is {then[key]!r}" for key in changed]

        return change

    def _newest(self, name: str) -> Detector:
        """Return the most recently requested detector."""
        coming = [each.detector for each in self._coming if each.model == name]
        return coming[-1] if coming else self._pipeline.models[name].detector

    def _set_at_once(self, name: str, newest: ModelDetector, options: DetectorConfig) -> None:
        set_at_once(newest, options)
        coming = [each for each in self._coming if each.model == name]
        if coming:
            coming[-1].options = options
        else:
            self._in_use[name] = options

    def _exchange(self, name: str, detector: Detector, options: DetectorConfig) -> None:
        coming = _Coming(name, detector, options)
        self._pipeline.exchange_detector(detector, *self._told(coming), model=name)
        self._coming.append(coming)

    def _told(self, coming: _Coming) -> tuple[Callable[[object], None], Callable[[], None]]:
        """Return callbacks that record a failure and a success, called on the model's thread."""
        return lambda error: self._news.append((coming, False)), lambda: self._news.append((coming, True))

    def _settled(self, config: Config, coming: _Coming, *, is_in_use: bool) -> Config:
        """Return the configuration after a model has loaded or failed to load; earlier requests are discarded."""
        name = coming.model
        if coming.is_new and not is_in_use:
            self._coming = [each for each in self._coming if each.model != name]
            return self._without(config, name)
        mine = [each for each in self._coming if each.model == name]
        past = mine[: mine.index(coming) + 1]
        self._coming = [each for each in self._coming if each not in past]
        if is_in_use:
            self._in_use[name] = coming.options
        elif len(past) == len(mine):
            return with_options(config, name, self._in_use[name])
        return config

    def _without(self, config: Config, name: str) -> Config:
        """Return the configuration without the sources of a model that cannot be loaded.

        Sources that still use another model keep it.
        """
        sources = []
        for source in config.sources:
            actual = self._pipeline.model_of(str(source.source_id))
            if model_of(source) != name:
                sources.append(source)
            elif actual != name:
                sources.append(source.model_copy(update={"model": None if actual == DEFAULT_MODEL else actual}))
        return config.model_copy(update={"sources": sources})


def with_options(config: Config, name: str, options: DetectorConfig) -> Config:
    """Return the configuration with one model's section replaced."""
    if name == DEFAULT_MODEL:
        return config.model_copy(update={"detector": options})
    return config.model_copy(update={"models": {**config.models, name: options}})


def set_at_once(detector: ModelDetector, options: DetectorConfig) -> None:
    """Apply the thresholds and classes of a configuration to a detector; callable from any thread."""
    detector.choose_classes(None if options.classes is None else class_ids(options.classes, detector.class_names))
    usual = detector.facts.usual_score
    detector.score_threshold = usual if options.score_threshold is None else options.score_threshold
    family = detector.facts.family.iou_threshold
    detector.iou_threshold = family if options.iou_threshold is None else options.iou_threshold
