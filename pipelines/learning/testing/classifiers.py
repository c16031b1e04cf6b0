"""Tests a classifier on images in one folder per class: scores, corruptions, attacks, a second model and a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.detection.classify import ImageClassifier, load_image_classifier
from engine.errors import ConfigError
from engine.sources.preparation import Preparation
from pipelines.learning.classic.crops import pictures_of
from pipelines.learning.testing.certify import certify
from pipelines.learning.testing.compare import compare_answers
from pipelines.learning.testing.corruptions import CORRUPTIONS, corrupt
from pipelines.learning.testing.pictures import bars, confusion_matrix, curves
from pipelines.learning.testing.report import Report, check_place
from pipelines.scoring.detect import Progress
from pipelines.scoring.pictures import read_picture

BATCH = 64
TOP = 5
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassifierTest:
    """What to test.

    Attributes:
        model: file.
        images: folder with one subfolder of images per class of the model, or with such a folder called `test`.
        whole_frames: crop at the centre instead of stretching.
        strengths: of the corruptions to apply; empty: none.
        compare: a second model, on the same images.
        adversarial: largest change of a pixel, as a share of its range; None: no attack.
        sigma: standard deviation of the noise for certification; None: no certification.
        report: HTML file to write.
        preparation: applied to each image first.
        seed: of corruptions and noise.
    """

    model: Path
    images: Path
    whole_frames: bool = False
    strengths: Sequence[int] = ()
    compare: Path | None = None
    adversarial: float | None = None
    sigma: float | None = None
    report: Path | None = None
    preparation: Preparation | None = None
    seed: int = 0


def run_classifier_test(wanted: ClassifierTest, progress: Progress | None = None) -> dict[str, Any]:
    """Run the tests and return plain values.

    Raises:
        ModelError: a model cannot be loaded, or attacked.
        ConfigError: the images cannot be read or have classes that the model lacks, or the report has no folder.
        MissingDependencyError: torch is missing, for an attack.
        SinkError: the report cannot be written.
    """
    check_place(wanted.report)
    classifier = load_image_classifier(wanted.model)
    try:
        paths, truth = _pictures(wanted.images, classifier.class_names)
        images = [_read(path, wanted.preparation) for path in paths]
        probability = classify_all(classifier, images, wanted, progress)
        result = scores_of(probability, truth, classifier.class_names)
        result = {"model": wanted.model.name, "backend": classifier.describe().backend, **result}
        if wanted.strengths:
            names = [path.name for path in paths]
            result["corruptions"] = _corrupted(classifier, images, names, truth, wanted, progress)
        if wanted.sigma is not None:
            ask = _asker(classifier, wanted)
            result["certified"] = certify(ask, images, truth, len(classifier.class_names), wanted.sigma, wanted.seed)
    finally:
        classifier.close()
    if wanted.adversarial is not None:
        from pipelines.learning.testing.attack import attack

        result["adversarial"] = attack(wanted.model, images, truth, wanted.adversarial, whole=wanted.whole_frames)
    if wanted.compare is not None:
        right = probability.argmax(axis=1) == truth
        result["comparison"] = _compared(wanted, images, truth, classifier.class_names, right)
    if wanted.report is not None:
        result["report"] = _report(wanted.report, result, probability, truth)
    return result


def classify_all(
    classifier: ImageClassifier, images: Sequence[Image], wanted: ClassifierTest, progress: Progress | None = None
) -> Floats:
    """Return (N, classes) probabilities."""
    parts = []
    for start in range(0, len(images), BATCH):
        parts.append(classifier.probabilities(images[start : start + BATCH], crop=wanted.whole_frames))
        if progress is not None:
            progress(min(start + BATCH, len(images)), len(images))
    return np.concatenate(parts)


def _asker(classifier: ImageClassifier, wanted: ClassifierTest) -> Callable[[Sequence[Image]], Floats]:
    return lambda images: classify_all(classifier, images, wanted)


def scores_of(probability: Floats, truth: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, balanced accuracy, top-5, per-class figures and confusion (true, found)."""
    found, count = probability.argmax(axis=1), len(names)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (truth, found), 1)
    present = confusion.sum(axis=1) > 0
    recall = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
    precision = confusion.diagonal() / np.maximum(confusion.sum(axis=0), 1)
    top = np.argsort(-probability, axis=1)[:, :TOP]
    return {
        "images": len(truth),
        "accuracy": round(float((found == truth).mean()), 4),
        "balanced": round(float(recall[present].mean()), 4),
        "top5": round(float((top == truth[:, None]).any(axis=1).mean()), 4),
        "per_class": {
            name: {
                "recall": round(float(recall[number]), 4),
                "precision": round(float(precision[number]), 4),
                "images": int(confusion[number].sum()),
            }
            for number, name in enumerate(names)
            if present[number]
        },
        "class_names": list(names),
        "confusion": confusion.tolist(),
    }


def _pictures(folder: Path, names: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    folder = folder / "test" if (folder / "test").is_dir() else folder
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder: expected one folder of images per class in it")
    numbers = {name.lower(): number for number, name in enumerate(names)}
    paths: list[Path] = []
    truth: list[int] = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        found = pictures_of(place)
        if found and place.name.lower() not in numbers:
            known = ", ".join(list(names)[:8])
            raise ConfigError(f"{place}: the model has no class {place.name!r}: it has {known}")
        paths += found
        truth += [numbers.get(place.name.lower(), -1)] * len(found)
    if not paths:
        raise ConfigError(f"{folder}: no images: expected one folder of images per class")
    return paths, np.array(truth, np.int64)


def _read(path: Path, preparation: Preparation | None) -> Image:
    image = read_picture(path)
    return image if preparation is None else preparation.apply(image)


def _corrupted(
    classifier: ImageClassifier,
    images: Sequence[Image],
    names: Sequence[str],
    truth: NDArray[np.int64],
    wanted: ClassifierTest,
    progress: Progress | None,
) -> dict[str, Any]:
    """Return accuracy by kind and strength, and the mean."""
    table: dict[str, dict[str, float]] = {}
    steps = len(CORRUPTIONS) * len(wanted.strengths)
    for kind in CORRUPTIONS:
        table[kind] = {}
        for strength in wanted.strengths:
            changed = [
                corrupt(image, kind, strength, name=name, seed=wanted.seed)
                for image, name in zip(images, names, strict=True)
            ]
            found = classify_all(classifier, changed, wanted).argmax(axis=1)
            table[kind][str(strength)] = round(float((found == truth).mean()), 4)
            if progress is not None:
                progress(sum(map(len, table.values())), steps)
    means = {kind: round(float(np.mean(list(row.values()))), 4) for kind, row in table.items()}
    return {"accuracy": table, "mean_by_kind": means, "mean": round(float(np.mean(list(means.values()))), 4)}


def _compared(
    wanted: ClassifierTest,
    images: Sequence[Image],
    truth: NDArray[np.int64],
    names: Sequence[str],
    right: NDArray[np.bool_],
) -> dict[str, Any]:
    other = load_image_classifier(wanted.compare or "")
    try:
        numbers = {name.lower(): number for number, name in enumerate(other.class_names)}
        missing = sorted({names[number] for number in truth.tolist() if names[number].lower() not in numbers})
        if missing:
            raise ConfigError(f"{wanted.compare}: the model has no class {missing[0]!r}: it cannot be compared")
        theirs = np.array([numbers[names[number].lower()] for number in truth.tolist()])
        found = classify_all(other, images, wanted).argmax(axis=1)
    finally:
        other.close()
    return {"compared_with": Path(wanted.compare or "").name, **compare_answers(right, found == theirs).as_dict()}


def _report(path: Path, result: dict[str, Any], probability: Floats, truth: NDArray[np.int64]) -> list[str]:
    report, names = Report(f"Test of {result['model']}"), result["class_names"]
    report.figures("Scores", {k: result[k] for k in ("model", "backend", "images", "accuracy", "balanced", "top5")})
    for key, heading in (
        ("comparison", "Comparison, with a 95 % interval over the images"),
        ("adversarial", "Attack on the pixels (projected gradient descent)"),
        ("certified", "Certified answers (randomised smoothing)"),
    ):
        if key in result:
            report.figures(heading, result[key])
    report.table("Classes", [{"class": name, **values} for name, values in result["per_class"].items()])
    series = {
        name: _curve(probability[:, names.index(name)], truth == names.index(name)) for name in result["per_class"]
    }
    report.picture("pr", "Precision by recall", curves(series, "recall", "precision"), "One class against the others.")
    table = np.array(result["confusion"])
    report.picture("confusion", "Confusion matrix", confusion_matrix(table, names), "Counts the most likely class.")
    if "corruptions" in result:
        found = result["corruptions"]
        chart = bars(found["mean_by_kind"], result["accuracy"], "accuracy")
        report.picture("corruptions", "Corruptions", chart, "Accuracy, mean over the strengths.")
        report.table("By kind and strength", [{"kind": kind, **row} for kind, row in found["accuracy"].items()])
    return report.write(path)


def _curve(score: Floats, is_class: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Return recall, and the highest precision at that recall or above."""
    order = np.argsort(-score, kind="stable")
    right = np.cumsum(is_class[order])
    precision = right / np.arange(1, len(order) + 1)
    return (right / max(right[-1], 1)).tolist(), np.maximum.accumulate(precision[::-1])[::-1].tolist()
