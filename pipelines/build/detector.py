"""The detector of a configuration, and its second stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from engine.backends.choose_device import backend_of_device
from engine.backends.files.base import find_model
from engine.backends.select import REMOTE, select_backend
from engine.data import DEFAULT_MODEL, SourceInfo
from engine.detection.load import class_ids, load_detector
from engine.detection.model import DEFAULT_SCORE
from engine.errors import ConfigError
from engine.protocols import Detector, TrackClassifier
from engine.sources.images import is_of_images
from pipelines.build.parts import own_detector
from pipelines.build.privacy import watch_for_privacy
from pipelines.build.sources import can_change
from pipelines.config.models import Config, DetectorConfig

DEMO = "demo"
CLASSIC = ("motion", "hog")
GPU_BATCH = 8
OF_CLASSIFIERS = ("backend", "names", "size", "color", "mean", "std", "precision", "threads", "cache_dir")
NOT_OF_MODELS = ("model", "task", "tile", "rebuild", "parameters")
NOT_OF_CLASSIFIERS = ("head", "letterbox", "tile")


def options_of(config: Config, model: str) -> DetectorConfig:
    """Return the configuration of a model by its name: `detector` or one of `models`."""
    return config.detector if model == DEFAULT_MODEL else config.models[model]


def build_detector(
    config: Config, sources: Sequence[SourceInfo], model: str = DEFAULT_MODEL, *, at_once: int | None = None
) -> Detector:
    """Return a configured detector; its file is checked, its model not yet loaded.

    Args:
        config: the configuration.
        sources: the sources that use the model.
        model: its name, `detector` or one of `models`.
        at_once: images that may arrive at the same time; None: one per source.

    Raises:
        ConfigError: values conflict, or a custom detector is not installed.
        ModelError: the model file cannot be used.
    """
    options = options_of(config, model)
    own = own_detector(options)
    if own is not None:
        return own
    if options.parameters:
        raise ConfigError(
            f"parameters belong to a custom detector, and no installed package offers {options.model!r}: "
            "install it, or name the detector by module:attribute"
        )
    if options.task == "classify":
        return _frame_classifier(options)
    if options.model in CLASSIC:
        return _classic(options)
    detector = load_detector(
        model_path(options.model),
        performance=_performance(config, options, sources),
        max_batch=_max_batch(options, len(sources) if at_once is None else at_once),
        size=_size(options, sources, can_change=can_change(config)),
        expected_wh=[(info.width, info.height) for info in sources if info.width and info.height],
        waits=waits_for_size(sources),
        **options.model_dump(exclude={*NOT_OF_MODELS, "performance", "max_batch", "size"}),
        build_plans=options.rebuild != "never",
        try_first=True,
        deadline_ms=config.pipeline.max_age_ms if any(info.is_live for info in sources) else None,
    )
    watch_for_privacy(detector, config, model)
    return detector


def _performance(
    config: Config, options: DetectorConfig, sources: Sequence[SourceInfo]
) -> Literal["latency", "throughput"]:
    """Return the configured aim; `auto` is latency for the only camera of a run.

    A model that one of several cameras tries must not get less of the processor than the model of the others.
    """
    if options.performance != "auto":
        return options.performance
    is_alone = len(sources) == 1 and len(config.sources) <= 1
    return "latency" if is_alone and sources[0].is_live else "throughput"


def waits_for_size(sources: Sequence[SourceInfo]) -> Callable[[str], bool]:
    """Return which sources wait until a rectangle is loaded: files, so that their results are the same on every run.

    Cameras never wait for that, nor do sources added while cameras are running.
    """
    files = frozenset(info.source_id for info in sources if not info.is_live)
    has_cameras = len(files) < len(sources)
    return lambda source_id: not has_cameras or source_id in files


def _size(
    options: DetectorConfig, sources: Sequence[SourceInfo], *, can_change: bool
) -> int | tuple[int, int] | Literal["auto"] | None:
    """Return the configured input size; by default a rectangle that fits the frames of a video.

    Images use the model's own size: their aspects vary, and the detections on one must not depend on the others.
    """
    if options.size is not None:
        return options.size
    is_of_videos = any(not is_of_images(info.uri) for info in sources)
    return "auto" if is_of_videos or (not sources and can_change) else None


def _max_batch(options: DetectorConfig, source_count: int) -> int:
    """Return the frames per inference: one per source or tile; on the CPU of this machine larger batches are slower."""
    limit = options.max_batch
    if limit is None:
        wanted, without = backend_of_device(options.device, options.backend)
        backend, _ = select_backend(find_model(model_path(options.model)), wanted, without=without)
        limit = GPU_BATCH if backend in ("tensorrt", REMOTE) else 1
    return limit if options.tile else min(limit, max(source_count, 1))


def _frame_classifier(options: DetectorConfig) -> Detector:
    from engine.detection.classify import load_image_classifier
    from engine.detection.frame_classifier import FrameClassifier

    for key in NOT_OF_CLASSIFIERS:
        if getattr(options, key) is not None:
            raise ConfigError(f"detector.{key}: a classifier takes whole frames, cropped at the centre: leave it out")
    if options.device is not None:
        raise ConfigError("detector.device: a classifier of whole frames runs on the default device: leave it out")
    if options.size == "auto":
        raise ConfigError("detector.size: a classifier has one size: give rows and columns, or leave it out")
    classifier = load_image_classifier(
        options.model,
        max_batch=options.max_batch or 1,
        try_first=True,
        **options.model_dump(include=set(OF_CLASSIFIERS)),
    )
    return FrameClassifier(
        classifier,
        Path(options.model).name,
        score_threshold=_usual(options),
        classes=None if options.classes is None else class_ids(options.classes, classifier.class_names),
    )


def _classic(options: DetectorConfig) -> Detector:
    from engine.detection.classic import HogPeopleDetector, MotionDetector

    return MotionDetector() if options.model == "motion" else HogPeopleDetector(score_threshold=_usual(options))


def least_score(options: DetectorConfig, detector: Detector) -> float:
    """Return the lowest score that a configured detector reports."""
    return getattr(detector, "score_threshold", DEFAULT_SCORE) if options.score_threshold is None else _usual(options)


def _usual(options: DetectorConfig) -> float:
    return DEFAULT_SCORE if options.score_threshold is None else options.score_threshold


def tiled(config: Config, detector: Detector, model: str = DEFAULT_MODEL) -> Detector:
    """Return the detector, wrapped in tiling if the configuration of its model enables it."""
    tile = options_of(config, model).tile
    if tile is None:
        return detector
    from engine.detection.tiles import TiledDetector

    return TiledDetector(detector, **tile.model_dump())


def model_path(model: str) -> str | Path:
    """Return the path of a configured model; `demo` means the embedded one."""
    from engine.assets import demo_model

    return demo_model() if model == DEMO else model


def build_second_stage(config: Config) -> TrackClassifier | None:
    """Return the configured second stage; its file is checked, its model not yet loaded."""
    options = config.second_stage
    if options is None:
        return None
    from engine.detection.classify import load_image_classifier
    from engine.detection.second_stage import SecondStage

    return SecondStage(
        load_image_classifier(options.model, try_first=True),
        classes=options.classes,
        top=options.top,
        refresh_s=options.refresh_s,
        margin=options.margin,
    )
