"""Scores of a detector on labelled images: COCO average precision, computed by supervision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.optional import require
from engine.protocols import Detector
from pipelines.scoring.labels import Truth, read_truth
from pipelines.scoring.pictures import read_picture

EVAL_SCORE = 0.01
"""Low, because average precision is an area under a curve that includes boxes of low score."""
EVAL_IOU = 0.5

Progress = Callable[[int, int], None]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Average precision of one class that occurs in the labels."""

    ap50: float
    ap50_95: float
    objects: int


@dataclass(frozen=True, slots=True)
class DetectScores:
    """Scores of a detector; fractions of 1 except for counts.

    Attributes:
        model: its name.
        backend: the backend that ran it.
        images: number of images scored.
        objects: number of objects in the labels, without crowd regions.
        map50_95: mean over classes and IoU .50 to .95, 101-point COCO average precision.
        map50: at IoU .5.
        map75: at IoU .75.
        map_small: of objects below 32 x 32 pixels; None if there are none. The same applies to the next two.
        map_medium: of objects between small and large.
        map_large: of objects above 96 x 96 pixels.
        ms_per_image: median of letterbox, inference and decoding, one image at a time.
        per_class: by class name.
    """

    model: str
    backend: str
    images: int
    objects: int
    map50_95: float
    map50: float
    map75: float
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    ms_per_image: float
    per_class: dict[str, ClassScore]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, rounded to four digits, ready for JSON."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded


def evaluate_detect(
    model: str | Path,
    images: str | Path,
    labels: str | Path | None = None,
    *,
    progress: Progress | None = None,
    score_threshold: float = EVAL_SCORE,
    iou_threshold: float | None = EVAL_IOU,
    **options: Any,
) -> DetectScores:
    """Run a model over labelled images and return its scores.

    Args:
        model: file or folder.
        images: folder of images, or a folder that contains `images` and `labels`.
        labels: folder of YOLO text files or a COCO JSON file; None: look next to the images.
        progress: called with the number of images done and the total.
        score_threshold: lowest score that counts.
        iou_threshold: of NMS.
        options: further arguments of `load_detector`.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: images or labels cannot be read.
    """
    detector = load_detector(
        model, score_threshold=score_threshold, iou_threshold=iou_threshold, try_first=True, **options
    )
    truth = read_truth(Path(images), Path(labels) if labels is not None else None, detector.class_names)
    with detector:
        return score_detector(detector, truth, progress)


def score_detector(detector: ModelDetector, truth: Sequence[Truth], progress: Progress | None = None) -> DetectScores:
    """Return the scores of an open detector. Raises `ConfigError` for a file that is not an image."""
    found, sizes, ms_per_image = detect_all(detector, truth, progress)
    return score(found, truth, sizes, detector.class_names, detector.name, detector.backend, ms_per_image)


def detect_all(
    detector: Detector,
    truth: Sequence[Truth],
    progress: Progress | None = None,
    change: Callable[[Image, str], Image] | None = None,
) -> tuple[list[Detections], list[tuple[int, int]], float]:
    """Return the detections and the size of each image, and the median time in milliseconds.

    Args:
        detector: open.
        truth: the images.
        progress: called with the number of images done and the total.
        change: applied to each image first, with the name of its file.

    Raises:
        ConfigError: a file is not an image.
    """
    found, sizes, spent_ms = [], [], []
    for index, one in enumerate(truth):
        image = read_picture(one.image)
        frame = Frame(image if change is None else change(image, one.image.name), one.image.stem, index, 0, 0)
        started = time.perf_counter()
        [seen] = detector.detect([frame])
        spent_ms.append((time.perf_counter() - started) * 1e3)
        found.append(Detections(seen.xyxy, seen.score, seen.class_id))  # masks of all images would not fit into memory
        sizes.append((frame.width, frame.height))
        if progress is not None:
            progress(index + 1, len(truth))
    return found, sizes, float(np.median(spent_ms))


def score(
    found: Sequence[Detections],
    truth: Sequence[Truth],
    sizes: Sequence[tuple[int, int]],
    class_names: Sequence[str],
    model: str = "",
    backend: str = "",
    ms_per_image: float = 0.0,
) -> DetectScores:
    """Return the COCO scores of detections against ground truth, image by image."""
    supervision = require("supervision")
    metrics = require("supervision.metrics")
    predictions = [_prediction(supervision, one) for one in found]
    targets = [_target(supervision, one, *size) for one, size in zip(truth, sizes, strict=True)]
    result = metrics.MeanAveragePrecision().update(predictions, targets).compute()
    objects = np.concatenate([one.class_id[~one.crowd] for one in truth])
    return DetectScores(
        model=model,
        backend=backend,
        images=len(truth),
        objects=len(objects),
        map50_95=float(result.map50_95),
        map50=float(result.map50),
        map75=float(result.map75),
        map_small=_valid(result.small_objects),
        map_medium=_valid(result.medium_objects),
        map_large=_valid(result.large_objects),
        ms_per_image=ms_per_image,
        per_class=_per_class(result, objects.tolist(), class_names),
    )


def _prediction(supervision: Any, found: Detections) -> Any:
    return supervision.Detections(xyxy=found.xyxy, confidence=found.score, class_id=found.class_id.astype(int))


def _target(supervision: Any, truth: Truth, width: int, height: int) -> Any:
    data = {"iscrowd": truth.crowd.astype(int)}
    return supervision.Detections(
        xyxy=truth.pixels(width, height), class_id=truth.class_id.astype(int), data=data if len(truth.crowd) else {}
    )


def _per_class(result: Any, objects: Sequence[int], names: Sequence[str]) -> dict[str, ClassScore]:
    scores = {}
    for class_id, row in zip(result.matched_classes.tolist(), result.ap_per_class, strict=True):
        count = objects.count(class_id)
        if count and 0 <= class_id < len(names):
            scores[names[class_id]] = ClassScore(float(row[0]), float(row.mean()), count)
    return scores


def _valid(result: Any) -> float | None:
    """Return the score of one range of sizes; supervision returns -1 if the range has no objects."""
    value = -1.0 if result is None else float(result.map50_95)
    return value if value >= 0 else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return value
