"""Whether an INT8 model still finds what its FP32 original finds: measured on images that it was not calibrated on.

Agreement is the share of boxes that both find: 2 x matched / (found by one + found by the other), where a match has the
same class and an IoU of at least 0.5. It needs no labels, so it works on a user's own pictures.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.pixels import Normaliser
from engine.backends.plan_build import Prepared
from engine.backends.plan_precision import with_precision
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.letterbox import draw, fit
from engine.detection.load import load_detector
from engine.detection.model import ModelFacts
from engine.errors import ConfigError, ModelError
from engine.protocols import Detector
from pipelines.labels import find_images

MATCH_IOU = 0.5
SCORE = 0.25
MIN_IMAGES = 20
MAX_CALIBRATION = 200
"""More images change the ranges no more, and each takes a second or so."""

DEFAULT_MAX_LOSS = 0.1


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two detectors find the same.

    Attributes:
        value: share of boxes that both find, 0 to 1; 1 where neither finds any.
        images: looked at.
        reference: boxes of the first.
        candidate: boxes of the second.
        matched: pairs.
    """

    value: float
    images: int
    reference: int
    candidate: int
    matched: int


def agreement(reference: Detector, candidate: Detector, images: Sequence[Path]) -> Agreement:
    """Return how far two open detectors find the same on images. Raises `ConfigError` for a file that is no image."""
    counts = np.zeros(3, np.int64)
    for image in images:
        frame = _frame(image)
        first, second = reference.detect([frame])[0], candidate.detect([frame])[0]
        counts += len(first), len(second), matches(first, second)
    total = int(counts[0] + counts[1])
    value = 2 * int(counts[2]) / total if total else 1.0
    return Agreement(value, len(images), int(counts[0]), int(counts[1]), int(counts[2]))


def matches(first: Detections, second: Detections) -> int:
    """Return how many boxes of `first` have one of their own in `second`: same class, best overlap first."""
    overlap = iou_matrix(first.xyxy, second.xyxy)
    overlap[first.class_id[:, None] != second.class_id[None, :]] = 0
    found = 0
    while overlap.size and overlap.max() >= MATCH_IOU:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        overlap[row], overlap[:, column] = 0, 0
        found += 1
    return found


def prepare_int8(facts: ModelFacts, images: Path, max_loss: float = DEFAULT_MAX_LOSS) -> Prepared:
    """Return the INT8 form of a model, calibrated on half of the images and accepted on the other half.

    Args:
        facts: the FP32 ONNX model.
        images: folder of pictures like those that the model will see; no labels needed.
        max_loss: share of boxes that may differ from FP32.

    Raises:
        ModelError: INT8 finds too little of what FP32 finds; the message has the numbers.
        ConfigError: too few images.
    """
    files = find_images(images)
    if len(files) < MIN_IMAGES:
        raise ConfigError(f"{images} holds {len(files)} images: INT8 needs {MIN_IMAGES} or more, better 200")
    batches = calibration_batches(facts, files[::2][:MAX_CALIBRATION])
    content, _counts = with_precision(facts.path, "int8", batches)
    found = _gate(facts, content, files[1::2][:MAX_CALIBRATION])
    if 1 - found.value > max_loss:
        raise ModelError(
            f"{facts.name}: INT8 agrees with FP32 on {found.value:.1%} of the boxes ({found.matched} of "
            f"{found.reference} found, {found.candidate} reported, {found.images} images), below {1 - max_loss:.0%}: "
            f"use --precision fp16, give more images like the real ones, or allow more with --max-loss"
        )
    accuracy = {"agreement": round(found.value, 4), "images": float(found.images), "max_loss": max_loss}
    return Prepared(content, accuracy)


def images_id(images: Path) -> str:
    """Return an identity of a folder's images, by their names and sizes, for the key of the plan cache."""
    lines = [f"{file.name} {file.stat().st_size}" for file in find_images(images)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def calibration_batches(facts: ModelFacts, images: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    """Yield each image as the model is fed it, as a batch of the size that the model fixes, else of one."""
    rows, columns = facts.size_hw
    normaliser = Normaliser(facts.image)
    canvas = np.empty((1, rows, columns, 3), np.uint8)
    shape = (1, 3, rows, columns) if facts.image.layout == "nchw" else (1, rows, columns, 3)
    for file in images:
        image = _frame(file).image
        draw(image, fit((image.shape[1], image.shape[0]), (columns, rows), facts.family.anchor), canvas[0])
        batch = np.empty(shape, np.float32)
        normaliser.write(canvas, batch)
        yield np.repeat(batch, facts.batch or 1, axis=0)


def _gate(facts: ModelFacts, content: bytes, images: Sequence[Path]) -> Agreement:
    """Return how far the quantised model agrees with the original, both run by ONNX Runtime."""
    with tempfile.TemporaryDirectory(prefix="framewire-int8-") as folder:
        candidate = Path(folder) / facts.path.name
        candidate.write_bytes(content)
        detectors = [
            load_detector(path, backend="onnxruntime", score_threshold=SCORE, size=facts.size_hw)
            for path in (facts.path, candidate)
        ]
        try:
            return agreement(detectors[0], detectors[1], images)
        finally:
            for detector in detectors:
                detector.close()


def _frame(path: Path) -> Frame:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{path}: not a readable image")
    return Frame(np.asarray(image, np.uint8), path.name, 0, 0, 0)
