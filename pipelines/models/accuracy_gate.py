"""Checks that an INT8 model still finds what its FP32 original finds, on images that were not used for calibration.

With labels, it compares COCO average precision. Without labels, it measures agreement, which works on the user's own
images: the share of boxes that both find, 2 x matched / (found by one + found by the other), where a match has the same
class and an IoU of at least 0.5.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends.pixels import Normaliser
from engine.backends.tensorrt.build_plan import Prepared
from engine.backends.tensorrt.precision import with_precision
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.letterbox import draw, fit
from engine.detection.load import load_detector
from engine.detection.model import ModelFacts
from engine.errors import ConfigError, ModelError
from engine.protocols import Detector
from engine.video.read_image import read_image
from pipelines.scoring.detect import EVAL_IOU, EVAL_SCORE, score_detector
from pipelines.scoring.labels import Truth, find_images, read_truth

NOTHING: Mapping[str, Any] = MappingProxyType({})
MATCH_IOU = 0.5
SCORE = 0.25
MIN_IMAGES = 20
MAX_CALIBRATION = 200
"""More images do not change the ranges any further, and each takes about a second."""

MAX_BOX_LOSS, MAX_MAP_LOSS = 0.1, 0.05
"""Shares that INT8 may lose by default; a healthy YOLOv8n loses 0.08 and 0.03 (docs/tensorrt.md)."""


class Measure(Protocol):
    """The result of the gate."""

    @property
    def loss(self) -> float:
        """Share that INT8 loses, 0 to 1."""

    def figures(self) -> dict[str, float]:
        """Return the numbers for the plan's header."""


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Average precision (IoU .50 to .95) of both models on labelled images.

    Attributes:
        reference: of the FP32 model.
        candidate: of the INT8 model.
        images: number of images compared.
    """

    reference: float
    candidate: float
    images: int

    @property
    def loss(self) -> float:
        """Share of the precision that is lost."""
        return max(0.0, 1 - self.candidate / self.reference) if self.reference > 0 else 0.0

    def figures(self) -> dict[str, float]:
        """Return the numbers for the plan's header."""
        return {"map50_95": self.candidate, "map50_95_fp32": self.reference, "images": float(self.images)}

    def __str__(self) -> str:
        return f"INT8 has an mAP of {self.candidate:.3f}, FP32 of {self.reference:.3f} ({self.images} images)"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the boxes of two detectors agree.

    Attributes:
        value: share of boxes that both find, 0 to 1; 1 if neither finds any.
        images: number of images compared.
        reference: boxes of the first detector.
        candidate: boxes of the second detector.
        matched: pairs.
    """

    value: float
    images: int
    reference: int
    candidate: int
    matched: int

    @property
    def loss(self) -> float:
        """Share of the boxes that only one detector finds."""
        return 1 - self.value

    def figures(self) -> dict[str, float]:
        """Return the numbers for the plan's header."""
        return {"agreement": self.value, "images": float(self.images)}

    def __str__(self) -> str:
        return (
            f"INT8 agrees with FP32 on {self.value:.1%} of the boxes ({self.matched} of {self.reference} found, "
            f"{self.candidate} reported, {self.images} images)"
        )


def agreement(reference: Detector, candidate: Detector, images: Sequence[Path]) -> Agreement:
    """Return how well two open detectors agree on images. Raises `ConfigError` for a file that is not an image."""
    counts = np.zeros(3, np.int64)
    for image in images:
        frame = _frame(image)
        first, second = reference.detect([frame])[0], candidate.detect([frame])[0]
        counts += len(first), len(second), matches(first, second)
    total = int(counts[0] + counts[1])
    value = 2 * int(counts[2]) / total if total else 1.0
    return Agreement(value, len(images), int(counts[0]), int(counts[1]), int(counts[2]))


def matches(first: Detections, second: Detections) -> int:
    """Return how many boxes of `first` match a box of `second`, one to one: same class, best overlap first."""
    overlap = iou_matrix(first.xyxy, second.xyxy)
    overlap[first.class_id[:, None] != second.class_id[None, :]] = 0
    found = 0
    while overlap.size and overlap.max() >= MATCH_IOU:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        overlap[row], overlap[:, column] = 0, 0
        found += 1
    return found


def prepare_int8(
    facts: ModelFacts,
    images: Path,
    max_loss: float | None = None,
    labels: Path | None = None,
    given: Mapping[str, Any] = NOTHING,
) -> Prepared:
    """Return the INT8 form of a model, calibrated on half of the images and accepted on the other half.

    Args:
        facts: the FP32 ONNX model.
        images: folder of images like those that the model will see.
        max_loss: share of the boxes (with labels: of the average precision) that may be lost; None: the default.
        labels: of the images, a folder of YOLO text files or a COCO JSON file; None: compare boxes with FP32's.
        given: the arguments of `inspect_model` other than the file.

    Raises:
        ModelError: INT8 loses more; the message has the numbers.
        ConfigError: too few images, or labels that cannot be read.
    """
    files = find_images(images)
    if len(files) < MIN_IMAGES:
        raise ConfigError(f"{images} contains {len(files)} images: INT8 needs at least {MIN_IMAGES}, better 200")
    held_out = files[1::2][:MAX_CALIBRATION]
    truth = None if labels is None else _truth_of(held_out, images, labels, facts)
    batches = calibration_batches(facts, map(_frame, files[::2][:MAX_CALIBRATION]))
    content, _counts = with_precision(facts.path, "int8", batches)
    found = _gate(facts, content, held_out, truth, given)
    accuracy = {name: round(value, 4) for name, value in found.figures().items()} | {"loss": round(found.loss, 4)}
    allowed = allowed_loss(max_loss, labels is not None)
    check_loss(facts.name, found.loss, allowed, str(found))
    return Prepared(content, accuracy | {"max_loss": allowed})


def allowed_loss(asked: float | None, has_labels: bool) -> float:
    """Return the allowed loss: the requested one, or the default of the measure."""
    if asked is not None:
        return asked
    return MAX_MAP_LOSS if has_labels else MAX_BOX_LOSS


def check_loss(name: str, loss: float, max_loss: float, numbers: str) -> None:
    """Raise `ModelError` if the loss is larger than allowed."""
    if loss > max_loss:
        raise ModelError(
            f"{name}: {numbers}: {loss:.1%} lost, at most {max_loss:.0%} allowed: use --precision fp16, give more "
            f"images like the real ones, or allow more with --max-loss"
        )


def _truth_of(held_out: Sequence[Path], images: Path, labels: Path, facts: ModelFacts) -> list[Truth]:
    """Return the labels of the images that are not used for calibration."""
    chosen = set(held_out)
    truth = [one for one in read_truth(images, labels, facts.class_names) if one.image in chosen]
    if not sum(map(len, (one.class_id for one in truth))):
        raise ConfigError(f"{labels}: no objects on the half of {images} that is not used for calibration")
    return truth


def images_id(images: Path) -> str:
    """Return an identity of a folder's images, from their names and sizes, for the key of the plan cache."""
    lines = [f"{file.name} {file.stat().st_size}" for file in find_images(images)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def calibration_batches(facts: ModelFacts, frames: Iterable[Frame]) -> Iterator[NDArray[np.float32]]:
    """Yield each frame as the model receives it, (b, 3, H, W) or (b, H, W, 3) float32; b is 1 if it is dynamic."""
    rows, columns = facts.size_hw
    normaliser = Normaliser(facts.image)
    canvas = np.empty((1, rows, columns, 3), np.uint8)
    shape = (1, 3, rows, columns) if facts.image.layout == "nchw" else (1, rows, columns, 3)
    for frame in frames:
        draw(frame.image, fit((frame.width, frame.height), (columns, rows), facts.family.anchor), canvas[0])
        batch = np.empty(shape, np.float32)
        normaliser.write(canvas, batch)
        yield np.repeat(batch, facts.batch or 1, axis=0)


def _gate(
    facts: ModelFacts,
    content: bytes,
    images: Sequence[Path],
    truth: Sequence[Truth] | None,
    given: Mapping[str, Any],
) -> Measure:
    """Measure the quantised model against the original, with ONNX Runtime for both."""
    score, iou = (SCORE, None) if truth is None else (EVAL_SCORE, EVAL_IOU)
    with tempfile.TemporaryDirectory(prefix="framewire-int8-") as folder:
        candidate = Path(folder) / facts.path.name
        candidate.write_bytes(content)
        with ExitStack() as open_detectors:
            reference, quantised = (
                open_detectors.enter_context(
                    load_detector(
                        path,
                        backend="onnxruntime",
                        score_threshold=score,
                        iou_threshold=iou,
                        **{**given, "size": facts.size_hw},
                    )
                )
                for path in (facts.path, candidate)
            )
            if truth is None:
                return agreement(reference, quantised, images)
            before, after = (score_detector(detector, truth).map50_95 for detector in (reference, quantised))
            return AveragePrecision(before, after, len(truth))


def _frame(path: Path) -> Frame:
    try:
        image = read_image(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable image: {error}") from error
    return Frame(np.asarray(image, np.uint8), path.name, 0, 0, 0)
