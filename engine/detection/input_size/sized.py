"""A model at one image size: feeds a backend and decodes what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, TensorSpec
from engine.backends.resize import FixedSizeError
from engine.data import Detections, Frame
from engine.detection.feeding import Fed, Feeder, LetterboxOn
from engine.detection.heads.base import Candidates, Head, Outputs
from engine.detection.letterbox import Letterbox, source_from_target
from engine.detection.model import ModelFacts
from engine.errors import ConfigError, ModelError

MS_PER_NS = 1e-6
DISAGREEING = (IndexError, ValueError, ZeroDivisionError, cv2.error)
"""What decoding raises when the outputs' sizes are inconsistent or differ from those in the file."""


@dataclass(frozen=True, slots=True)
class Sensitive:
    """Objects that privacy must see even though they are not reported.

    Attributes:
        floor: a box needs a score above this.
        classes: (classes + 2,) bool whether class -1, 0, 1 ... is sensitive.
    """

    floor: float
    classes: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which detections are reported.

    Attributes:
        score_threshold: a box needs a score above this.
        iou_threshold: boxes of one class that overlap by more than this are one object.
        classes: (classes + 2,) bool whether class -1, 0, 1 ... is wanted.
        sensitive: further objects to find for privacy; None: none.
    """

    score_threshold: float
    iou_threshold: float
    classes: NDArray[np.bool_]
    sensitive: Sensitive | None = None

    @property
    def floor(self) -> float:
        """The lowest score of interest."""
        return self.score_threshold if self.sensitive is None else min(self.sensitive.floor, self.score_threshold)

    def is_reported(self, found: Candidates) -> NDArray[np.bool_]:
        """Return (N,) whether each candidate is of a wanted class and above the threshold."""
        known: NDArray[np.bool_] = self.classes.take(found.class_id + 1, mode="clip")
        return known if self.sensitive is None else known & (found.score > self.score_threshold)

    def is_sensitive(self, found: Candidates) -> NDArray[np.bool_]:
        """Return (N,) whether privacy must see each candidate."""
        if self.sensitive is None:
            return np.zeros(len(found), np.bool_)
        known: NDArray[np.bool_] = self.sensitive.classes.take(found.class_id + 1, mode="clip")
        return known & (found.score > self.sensitive.floor)


class SizedModel:
    """One model at one image size.

    Args:
        facts: the model at this size.
        backend: runs it.
        max_batch: maximum number of frames per inference.
        letterbox_on: as `ModelDetector`.
        check: examines the opened model and raises `ModelError` if it must not be used.
    """

    def __init__(
        self,
        facts: ModelFacts,
        backend: Backend,
        max_batch: int,
        letterbox_on: LetterboxOn,
        check: Callable[[SizedModel], None] | None = None,
    ) -> None:
        self.facts = facts
        self.backend = backend
        self._head: Head = facts.head()
        self.max_batch = max_batch
        self._letterbox_on = letterbox_on
        self._check = check
        self._class_map = None if facts.class_map is None else np.array(facts.class_map, np.int32)
        self._feeder: Feeder | None = None
        self._order: list[int] = []

    def open(self) -> None:
        """Load the model and make the batches. Raises `ModelError`; harmless when repeated."""
        if self._feeder is not None:
            return
        self.backend.open()
        self._order = _output_order(self.facts, self.backend)
        _check_outputs(self.facts, [self.backend.outputs[index] for index in self._order])
        self._head = _head_for(self.facts, self.backend.outputs[self._order[0]])
        self._feeder = Feeder(self.facts, self.backend, self.max_batch, self._letterbox_on)
        if self._check is None:
            return
        try:
            self._check(self)
        except ModelError:
            self.close()
            raise

    def start(self, frames: Sequence[Frame], score_threshold: float) -> Fed:
        """Start the inference of a batch. Raises `ConfigError` if it is closed or full."""
        if self._feeder is None:
            raise ConfigError("the detector is closed: call open() first")
        return self._feeder.start(frames, score_threshold)

    @property
    def is_busy(self) -> bool:
        """Whether a batch that was letterboxed on the CPU is in flight."""
        return self._feeder is not None and self._feeder.is_busy

    def decode(
        self, outputs: Outputs, boxes: Sequence[Letterbox], wanted: Wanted, spent: dict[str, float]
    ) -> list[Detections]:
        """Return the detections of each frame of the (b, ...) outputs, and add the time of NMS to `spent`.

        Raises:
            ModelError: the outputs do not fit the head.
        """
        ordered = [outputs[index] for index in self._order]
        found = []
        try:
            for row, (box, candidates) in enumerate(
                zip(boxes, self._head.find_all(ordered, len(boxes), wanted.floor), strict=True)
            ):
                found.append(self._detections(candidates, ordered, row, box, wanted, spent))
        except DISAGREEING as error:
            raise ModelError(self._disagreement(ordered, error)) from error
        return found

    def _disagreement(self, outputs: Outputs, error: Exception) -> str:
        """Return why the outputs cannot be decoded."""
        specs = zip(self.facts.file.outputs, outputs, strict=True)
        got = ", ".join(f"{spec.name} {output.shape}" for spec, output in specs)
        told = ", ".join(map(str, self.facts.file.outputs))
        return (
            f"{self.facts.path}: head {self.facts.family.name} cannot decode {got}, where the file states {told}: "
            f"name another head, or export the model again ({error})"
        )

    def _detections(
        self,
        found: Candidates,
        outputs: Outputs,
        row: int,
        box: Letterbox,
        wanted: Wanted,
        spent: dict[str, float],
    ) -> Detections:
        if self._class_map is not None:
            found = _renumbered(found, self._class_map)
        known = wanted.is_reported(found) | wanted.is_sensitive(found)
        if not known.all():
            found = found.rows(known)
        started_ns = time.monotonic_ns()
        kept = found.rows(self._head.suppress(found, wanted.iou_threshold))
        spent["nms"] += (time.monotonic_ns() - started_ns) * MS_PER_NS
        if wanted.sensitive is None:
            return self._in_frame(kept, outputs, row, box)
        is_reported = wanted.is_reported(kept)
        detections = self._in_frame(kept.rows(is_reported), outputs, row, box)
        rest = kept.rows(~is_reported)
        if len(rest):
            detections.unreported = Detections(source_from_target(rest.xyxy, box), rest.score, rest.class_id)
        return detections

    def _in_frame(self, kept: Candidates, outputs: Outputs, row: int, box: Letterbox) -> Detections:
        extra = self._head.extra(kept, outputs, row, box)
        return Detections(source_from_target(kept.xyxy, box), kept.score, kept.class_id, extra)

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self._feeder = None
        self.backend.close()


def _head_for(facts: ModelFacts, first: TensorSpec) -> Head:
    """Return the head for the backend's first output: with the class scores merged, or as in the file."""
    head, rows = facts.head(), facts.layout.outputs[0].shape[1:2]
    scores = head.class_scores
    if scores is not None and rows[0] is not None and first.shape[1] == scores.merged(rows[0]):
        return head.merged()
    return head


def _output_order(facts: ModelFacts, backend: Backend) -> list[int]:
    """Return the backend's index of each output of the model file: by name, else in the same order."""
    position = {spec.name: index for index, spec in enumerate(backend.outputs)}
    wanted = [spec.name for spec in facts.file.outputs]
    if len(position) != len(wanted):
        raise ModelError(f"{facts.path}: {len(wanted)} outputs in the file, {len(position)} once loaded")
    if set(position) != set(wanted):
        return list(range(len(wanted)))
    return [position[name] for name in wanted]


def _check_outputs(facts: ModelFacts, outputs: Sequence[TensorSpec]) -> None:
    """Raise `FixedSizeError` unless a resized graph has the outputs expected at the new size."""
    if facts.layout.outputs == facts.file.outputs:
        return
    for spec, got in zip(facts.layout.outputs, outputs, strict=True):
        sizes = zip(spec.shape, got.shape, strict=False)
        differing = [axis for axis, pair in enumerate(sizes) if None not in pair and pair[0] != pair[1]]
        if len(spec.shape) != len(got.shape) or differing not in ([], [1]):  # scores per class may have been merged
            raise FixedSizeError(f"{facts.path}: output {got} at {facts.size_hw}, where {spec} was expected")


def _renumbered(found: Candidates, class_map: NDArray[np.int32]) -> Candidates:
    """Return the candidates with class ids by the map; numbers outside it become -1, which is not a class."""
    inside = (found.class_id >= 0) & (found.class_id < len(class_map))
    mapped = class_map[np.where(inside, found.class_id, 0)]
    return replace(found, class_id=np.where(inside, mapped, -1).astype(np.int32))
