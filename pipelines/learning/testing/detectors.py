"""Tests a detector on labelled images: scores and, on request, corruptions, a second model, context and a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.sources.preparation import Preparation
from pipelines.learning.testing.compare import compare_detectors
from pipelines.learning.testing.context import try_context
from pipelines.learning.testing.corruptions import CORRUPTIONS, corrupt
from pipelines.learning.testing.matching import Matches, Objects, confusion, match, precision_curve
from pipelines.learning.testing.pictures import bars, confusion_matrix, curves
from pipelines.learning.testing.report import Report, check_place
from pipelines.scoring.detect import EVAL_IOU, EVAL_SCORE, Progress, detect_all, score
from pipelines.scoring.labels import Truth, read_truth

MAX_CURVES = 12
Image = NDArray[np.uint8]
Found = tuple[list[Detections], list[tuple[int, int]], float]


@dataclass(frozen=True, slots=True)
class DetectorTest:
    """What to test.

    Attributes:
        model: file or folder.
        images: folder of images.
        labels: folder of YOLO text files, or a COCO file; None: next to the images.
        strengths: of the corruptions to apply; empty: none.
        compare: a second model, on the same images.
        context: try to rescore by context.
        report: HTML file to write.
        preparation: applied to each image first.
        seed: of corruptions and splits.
    """

    model: str | Path
    images: Path
    labels: Path | None = None
    strengths: Sequence[int] = ()
    compare: str | Path | None = None
    context: bool = False
    report: Path | None = None
    preparation: Preparation | None = None
    seed: int = 0


def run_detector_test(wanted: DetectorTest, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    """Run the tests and return plain values; `options` are arguments of `load_detector`.

    Raises:
        ModelError: a model cannot be loaded.
        ConfigError: images or labels cannot be read, the models have different classes, or the report has no folder.
        MissingDependencyError: scikit-learn is missing, for context.
        SinkError: the report cannot be written.
    """
    check_place(wanted.report)
    options = {"score_threshold": EVAL_SCORE, "iou_threshold": EVAL_IOU, **options}
    detector = load_detector(wanted.model, try_first=True, **options)
    truth = read_truth(wanted.images, wanted.labels, detector.class_names)
    with detector:
        first = _detect(detector, truth, wanted, progress)
        scores = score(first[0], truth, first[1], detector.class_names, detector.name, detector.backend, first[2])
        result = scores.as_dict()
        if wanted.strengths:
            result["corruptions"] = _corrupted(detector, truth, wanted, progress)
    objects = [_objects(one, *size) for one, size in zip(truth, first[1], strict=True)]
    matches = match(first[0], objects, len(detector.class_names))
    if wanted.compare is not None:
        result["comparison"] = _compared(wanted, matches, objects, detector.class_names, options, progress)
    if wanted.context:
        found = try_context(first[0], objects, first[1], len(detector.class_names), seed=wanted.seed)
        result["context"] = None if found is None else found.as_dict()
    if wanted.report is not None:
        table = confusion(first[0], objects, len(detector.class_names))
        result["report"] = _report(wanted.report, result, matches, table, detector.class_names)
    return result


def _detect(
    detector: ModelDetector,
    truth: Sequence[Truth],
    wanted: DetectorTest,
    progress: Progress | None,
    change: Callable[[Image, str], Image] | None = None,
) -> Found:
    def prepared(image: Image, name: str) -> Image:
        image = image if wanted.preparation is None else wanted.preparation.apply(image)
        return image if change is None else change(image, name)

    return detect_all(detector, truth, progress, prepared)


def _corrupted(
    detector: ModelDetector, truth: Sequence[Truth], wanted: DetectorTest, progress: Progress | None
) -> dict[str, Any]:
    """Return mAP50-95 by kind and strength, and the mean."""
    table: dict[str, dict[str, float]] = {}
    steps, step = len(CORRUPTIONS) * len(wanted.strengths), 0
    for kind in CORRUPTIONS:
        table[kind] = {}
        for strength in wanted.strengths:

            def change(image: Image, name: str, kind: str = kind, strength: int = strength) -> Image:
                return corrupt(image, kind, strength, name=name, seed=wanted.seed)

            found, sizes, _ = _detect(detector, truth, wanted, None, change)
            table[kind][str(strength)] = round(score(found, truth, sizes, detector.class_names).map50_95, 4)
            step += 1
            if progress is not None:
                progress(step, steps)
    means = {kind: round(float(np.mean(list(row.values()))), 4) for kind, row in table.items()}
    return {"map50_95": table, "mean_by_kind": means, "mean": round(float(np.mean(list(means.values()))), 4)}


def _compared(
    wanted: DetectorTest,
    matches: Matches,
    objects: Sequence[Objects],
    class_names: Sequence[str],
    options: dict[str, Any],
    progress: Progress | None,
) -> dict[str, Any]:
    """Return the difference to a second model; its classes are matched by name."""
    other = load_detector(wanted.compare or "", try_first=True, **options)
    truth = read_truth(wanted.images, wanted.labels, other.class_names)
    ours = {name.lower(): number for number, name in enumerate(class_names)}
    number = np.array([ours.get(name.lower(), len(ours)) for name in other.class_names], np.int32)
    with other:
        found, _, _ = _detect(other, truth, wanted, progress)
    renamed = [Detections(one.xyxy, one.score, number[one.class_id]) for one in found]
    theirs = match(renamed, objects, len(class_names) + 1)
    widened = Matches(matches.image, matches.class_id, matches.score, matches.hit, matches.ignored, theirs.objects)
    return {"compared_with": other.name, **compare_detectors(widened, theirs).as_dict()}


def _objects(truth: Truth, width: int, height: int) -> Objects:
    return Objects(truth.pixels(width, height), truth.class_id, truth.crowd)


def _report(
    path: Path, result: dict[str, Any], matches: Matches, table: NDArray[np.int64], names: Sequence[str]
) -> list[str]:
    """Write the report and return its files."""
    report = Report(f"Test of {result['model']}")
    plain = ("model", "backend", "images", "objects", "map50_95", "map50", "map75", "map_small", "map_medium")
    report.figures("Scores", {key: result[key] for key in (*plain, "map_large", "ms_per_image")})
    if "comparison" in result:
        report.figures("Comparison, with a 95 % interval over the images", result["comparison"])
    classes = sorted(result["per_class"].items(), key=lambda item: -item[1]["objects"])
    report.table("Average precision per class", [{"class": name, **values} for name, values in classes])
    ids = [names.index(name) for name, _ in classes[:MAX_CURVES]]
    recall = np.linspace(0, 1, 101).tolist()
    series = {names[number]: (recall, precision_curve(matches, number)[0].tolist()) for number in ids}
    more = f"The {MAX_CURVES} most frequent of {len(classes)} classes, at IoU .5." if len(classes) > MAX_CURVES else ""
    report.picture("pr", "Precision by recall", curves(series, "recall", "precision"), more or "At IoU .5.")
    caption = "Detections of score .25 and more, matched at IoU .5; background: missed objects and false detections."
    report.picture("confusion", "Confusion matrix", confusion_matrix(table, [*names, "background"]), caption)
    if "corruptions" in result:
        found = result["corruptions"]
        report.picture("corruptions", "Corruptions", bars(found["mean_by_kind"], result["map50_95"], "mAP"), "mAP50-95")
        rows = [{"kind": kind, **values} for kind, values in found["map50_95"].items()]
        report.table("mAP50-95 by kind and strength", rows)
    if result.get("context"):
        report.figures("Rescoring by context", result["context"])
    return report.write(path)
