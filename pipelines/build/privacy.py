"""Privacy of a configuration: how people are hidden, what detectors must find, and which outputs are rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.assets import face_model
from engine.data import DEFAULT_MODEL
from engine.detection.detector import ModelDetector
from engine.detection.load import class_ids, known_class_ids, load_detector
from engine.detection.tiles import untiled
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.imaging.faces import FACE, Faces
from engine.imaging.privacy import Privacy, PrivacyRules
from engine.protocols import Detector
from pipelines.build.sources import can_change, named_sources
from pipelines.config.models import Config
from pipelines.config.privacy import PrivacyConfig
from pipelines.config.source import SourceConfig

FACE_FLOOR = 0.05
"""Faces of lower scores are not hidden, whatever `score_floor` says."""


def build_privacy(config: Config) -> Privacy | None:
    """Return the object that hides people on the frames of a run; None if nothing is hidden and no source can be added.

    Raises:
        ConfigError: an output cannot comply, or a value is invalid.
    """
    check_outputs(config)
    rules = _rules(config.privacy, "privacy")
    sources = _of_sources(config)
    is_used = any(each.mode != "none" for each in (rules, *sources.values()))
    return Privacy(rules, sources, build_faces(config)) if is_used or can_change(config) else None


def build_faces(config: Config) -> Faces:
    """Return the face finder on the embedded model, loaded now if a source needs it, otherwise when one does."""
    from engine.tracking.registry import tracker_by_name

    def make() -> Detector:
        return load_detector(
            face_model(),
            score_threshold=FACE_FLOOR,
            performance="latency",
            size="auto",
            threads=config.detector.threads,
            cache_dir=config.detector.cache_dir,
        )

    faces = Faces(make, tracker_by_name("steady"))
    if any(own.mode == "blur" and any(map(_is_face, own.classes)) for own in _every(config)):
        faces.prepare()
    return faces


def _every(config: Config) -> list[PrivacyConfig]:
    return [config.privacy, *(source.privacy for source in config.sources if source.privacy is not None)]


def privacy_of(config: Config, source: SourceConfig) -> PrivacyConfig:
    """Return the privacy of a source: its own, or that of the run."""
    return config.privacy if source.privacy is None else source.privacy


def hides(config: Config, source: SourceConfig) -> bool:
    """Return whether outputs that copy a source's stream without decoding it must be rejected."""
    own = privacy_of(config, source)
    return own.mode != "none" and own.raw == "refuse"


def check_outputs(config: Config) -> None:
    """Raise `ConfigError` for outputs that would show what privacy hides, because they never decode the images."""
    for index, source in enumerate(config.sources):
        if source.record is not None and hides(config, source):
            raise ConfigError(
                f"sources.{index}.record: it stores the camera's own video, in which privacy.mode "
                f"{privacy_of(config, source).mode} hides nothing: remove record, or set privacy.raw: allow"
            )
    modes = {privacy_of(config, source).mode for source in config.sources} or {config.privacy.mode}
    if config.publish.pictures is not None and modes == {"no_images"}:
        raise ConfigError("publish.pictures: with privacy.mode no_images there are no images to send: remove it")


def check_classes(config: Config, class_names: Mapping[str, Sequence[str]]) -> None:
    """Raise `ConfigError` unless the sources' models, if their class names are known, find what must be hidden."""
    for index, source in enumerate(config.sources):
        own = privacy_of(config, source)
        names = class_names.get(source.model or DEFAULT_MODEL)
        if names is not None:
            check_hidden_classes(own, names, "privacy" if source.privacy is None else f"sources.{index}.privacy")


def check_hidden_classes(config: PrivacyConfig, class_names: Sequence[str], key: str = "privacy") -> None:
    """Raise `ConfigError` unless a model has every class that must be blurred."""
    try:
        if config.mode == "blur":
            class_ids([name for name in config.classes if not _is_face(name)], class_names)
    except ConfigError as error:
        raise ConfigError(f"{key}.classes: {error}") from error


def _is_face(name: str | int) -> bool:
    """Return whether a class is `face`, which every source can hide."""
    return isinstance(name, str) and name.strip().lower() == FACE


def watch_for_privacy(detector: Detector, config: Config, model: str) -> None:
    """Make a detector also find what privacy must hide, even though it is not reported.

    Detectors of other packages return only what they report, so only that is hidden.
    """
    inner = untiled(detector)
    if not isinstance(inner, ModelDetector):
        return
    ids: set[int] = set()
    floor = 1.0
    for rules in _of_model(config, model):
        if rules.mode in ("blur", "silhouette"):
            every = range(len(inner.class_names))
            ids |= set(known_class_ids(rules.classes, inner.class_names) if rules.mode == "blur" else every)
            floor = min(floor, rules.score_floor)
    inner.also_find(sorted(ids), floor)


def change_privacy(pipeline: Pipeline, config: Config) -> None:
    """Apply the privacy of the sources of a new configuration to a running pipeline, before sources are added."""
    if isinstance(pipeline.privacy, Privacy):
        pipeline.privacy.change(_of_sources(config))
    for model, lane in pipeline.models.items():
        watch_for_privacy(lane.detector, config, model)


def _of_model(config: Config, model: str) -> Iterator[PrivacyConfig]:
    """Yield the privacy settings of every source that uses a model, and of those that may be added."""
    yield config.privacy
    for source in config.sources:
        if (source.model or DEFAULT_MODEL) == model and source.privacy is not None:
            yield source.privacy


def _of_sources(config: Config) -> dict[str, PrivacyRules]:
    return {
        source_id: _rules(source.privacy, f"source {source_id}: privacy")
        for source_id, source in named_sources(config)
        if source.privacy is not None
    }


def _rules(config: PrivacyConfig, key: str) -> PrivacyRules:
    regions = tuple(tuple(map(tuple, polygon)) for polygon in config.regions)
    given = config.model_dump(exclude={"raw", "classes", "regions"})
    try:
        return PrivacyRules(**given, classes=tuple(config.classes), regions=regions)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
