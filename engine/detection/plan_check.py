"""Checks that a TensorRT plan finds what its ONNX model finds, before it is used.

TensorRT can build plans that return wrong boxes without an error (NVIDIA/TensorRT issues 4813, 4646, 4820). So when a
plan is first opened, a few frames of the embedded clip go through it and through ONNX Runtime: together and one by one,
because the reports include plans that are wrong at some batch sizes only. The verdict is stored next to the plan and is
valid as long as the plan's bytes do not change.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends.files.plan import PlanFile, write_whole
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.errors import EngineError, ModelError

logger = logging.getLogger(__name__)
CONFIDENT = 0.4
"""Reference boxes above this score count; those near the score threshold may fall on either side of it."""

WANTED_IOU = {"fp32": 0.9, "fp16": 0.9, "int8": 0.5}
WANTED_SHARE = {"fp32": 0.95, "fp16": 0.95, "int8": 0.8}
MARGIN = 0.1
FRAMES = 4
EVERY = 60
Detect = Callable[[Sequence[Frame]], list[Detections]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found.

    Attributes:
        plan_sha256: of the plan that was compared.
        boxes: confident boxes of the reference.
        matched: how many of these the plan also finds: same class, IoU of `WANTED_IOU`.
    """

    plan_sha256: str
    boxes: int
    matched: int

    @property
    def share(self) -> float:
        """Share of the boxes that the plan finds, 0 to 1; 1 if the reference has none."""
        return self.matched / self.boxes if self.boxes else 1.0


def check_plan(file: PlanFile, detect: Detect, reference: Detect, score_threshold: float = 0.0) -> Verdict | None:
    """Compare an opened plan with its model, once; return the verdict, or None if there is nothing to compare with.

    Args:
        file: the plan; one without our header is not checked, because its model is unknown.
        detect: runs the plan.
        reference: runs the ONNX model on ONNX Runtime; called only if the plan has not been compared before.
        score_threshold: of both.

    Raises:
        ModelError: the plan misses boxes that the model finds; the message has the numbers.
    """
    if file.facts is None:
        return None
    verdict = _read(file)
    if verdict is None:
        try:
            frames = demo_frames()
            sure = max(CONFIDENT, score_threshold + MARGIN)
            expected = reference(frames)
            found = detect(frames), [one for frame in frames for one in detect([frame])]
            verdict = min((compare(file, expected, each, sure) for each in found), key=lambda one: one.matched)
        except (EngineError, OSError) as error:
            logger.warning("%s is not compared with its model: %s", file.path.name, error)
            return None
        _write(file, verdict)
    if verdict.boxes == 0:
        logger.warning(
            "%s is not compared with its model, which finds nothing on the embedded clip: compare its boxes yourself "
            "with framewire detect --backend onnxruntime",
            file.path.name,
        )
        return verdict
    wanted = WANTED_SHARE[file.facts.precision]
    if verdict.share < wanted:
        raise ModelError(
            f"{file.path}: the plan finds {verdict.matched} of the {verdict.boxes} boxes that its model finds on ONNX "
            f"Runtime ({verdict.share:.0%}, expected {wanted:.0%}): build it with --precision fp32 or another version "
            f"of {file.facts.library}, or choose --backend onnxruntime"
        )
    return verdict


def compare(
    file: PlanFile, expected: Sequence[Detections], found: Sequence[Detections], sure: float = CONFIDENT
) -> Verdict:
    """Return how many of the reference's boxes above score `sure` the plan also finds; one `Detections` per frame.

    Raises `ModelError` for a plan without our header.
    """
    facts = file.facts
    if facts is None:
        raise ModelError(f"{file.path}: a plan without our header cannot be compared")
    boxes = matched = 0
    for first, second in zip(expected, found, strict=True):
        wanted = first[first.score > sure]
        overlap = iou_matrix(wanted.xyxy, second.xyxy)
        overlap[wanted.class_id[:, None] != second.class_id[None, :]] = 0
        boxes += len(wanted)
        matched += int((overlap.max(axis=1, initial=0.0) >= WANTED_IOU[facts.precision]).sum())
    return Verdict(facts.plan_sha256, boxes, matched)


def demo_frames() -> list[Frame]:
    """Return a few frames of the embedded clip, seconds apart."""
    from engine.assets import demo_clip
    from engine.video.address import VideoAddress
    from engine.video.decode import VideoReader
    from engine.video.frames import DecodedFrame

    reader = VideoReader(VideoAddress(str(demo_clip())))
    images: list[Any] = []
    try:
        decoded = (item for item in reader.frames() if isinstance(item, DecodedFrame))
        for number, item in enumerate(decoded):
            if number % EVERY == 0:
                images.append(item.frame.to_ndarray(format="bgr24"))
            if len(images) == FRAMES:
                break
    finally:
        reader.close()
    return [Frame(np.asarray(image, np.uint8), "demo", number, 0, 0) for number, image in enumerate(images)]


def _place(file: PlanFile) -> Path:
    return file.path.with_name(f"{file.path.name}.check.json")


def _read(file: PlanFile) -> Verdict | None:
    try:
        verdict = Verdict(**json.loads(_place(file).read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    facts = file.facts
    return verdict if facts is not None and verdict.plan_sha256 == facts.plan_sha256 else None


def _write(file: PlanFile, verdict: Verdict) -> None:
    try:
        write_whole(_place(file), json.dumps(asdict(verdict)).encode())
    except OSError as error:
        logger.info("the verdict on %s cannot be kept (%s): the next start compares again", file.path.name, error)
