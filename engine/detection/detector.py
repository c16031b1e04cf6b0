"""The detector: frames in, detections out, several batches in flight.

`submit` letterboxes the frames straight into a reused batch and starts the backend; the pending's `result`, called
on another thread, waits, decodes the head, suppresses duplicates and maps the boxes back to each frame.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, TensorSpec
from engine.data import Detections, Frame
from engine.detection.feeding import Fed, Feeder, LetterboxOn
from engine.detection.heads.base import Candidates, Head, Outputs
from engine.detection.letterbox import Letterbox, source_from_target
from engine.detection.model import ModelFacts
from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError
from engine.protocols import DetectorFacts

logger = logging.getLogger(__name__)
Fallback = Callable[[str], tuple[Backend, str] | None]
"""From the name of a backend that does not open to the next one and the reason for it; None where there is none."""

MS_PER_NS = 1e-6
DISAGREEING = (IndexError, ValueError, ZeroDivisionError, cv2.error)
"""What decoding raises where the sizes of the outputs do not go together, or are not those that the file tells."""


class ModelDetector:
    """Runs a detection model on frames of any size.

    `open`, `submit` and `close` belong to one thread, the results to one other. `depth`, `precision` are known once
    open.

    Args:
        facts: the model, from `inspect_model`.
        backend: runs it.
        score_threshold: a box needs a score above this.
        iou_threshold: boxes of one class that overlap by more than this are one object.
        classes: class ids to report; None for all.
        max_batch: frames per inference at most.
        letterbox_on: `cpu`, `gpu`, or `auto` for the faster one of those that give the same pixels.
        backend_reason: why this backend, in a line, for the summary.
        fallback: gives another backend where one does not open; None lets the failure end `open`.
        check: looks at the opened detector and raises `ModelError` where it must not serve.
    """

    def __init__(
        self,
        facts: ModelFacts,
        backend: Backend,
        *,
        score_threshold: float = 0.25,
        iou_threshold: float = 0.7,
        classes: Sequence[int] | None = None,
        max_batch: int = 1,
        letterbox_on: LetterboxOn = "auto",
        backend_reason: str = "",
        fallback: Fallback | None = None,
        check: Callable[[ModelDetector], None] | None = None,
    ) -> None:
        _check_unit("score_threshold", score_threshold)
        _check_unit("iou_threshold", iou_threshold)
        self.facts = facts
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_batch = facts.batch or max_batch
        self.backend_reason = backend_reason
        self._backend = backend
        self._fallback = fallback
        self._check = check
        self._head: Head = facts.head()
        self._wanted = _class_mask(facts.class_names, classes)
        self._class_map = None if facts.class_map is None else np.array(facts.class_map, np.int32)
        self._letterbox_on = letterbox_on
        self._feeder: Feeder | None = None
        self._order: list[int] = []

    @property
    def name(self) -> str:
        """Name of the model's file or folder."""
        return self.facts.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""
        return self.facts.class_names

    @property
    def depth(self) -> int:
        """Submissions that may be in flight."""
        return self._backend.depth

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.name

    @property
    def inference(self) -> Backend:
        """The backend itself, to measure it alone; submit to it only while no frames are in flight."""
        return self._backend

    def describe(self) -> DetectorFacts:
        """Return the backend, its device, and why this backend."""
        return DetectorFacts(self.backend, getattr(self._backend, "device", "cpu"), self.backend_reason)

    @property
    def precision(self) -> str:
        """Type of the weights, and the arithmetic where the backend chooses it."""
        return f"{self.facts.file.precision} weights, {self._backend.precision} arithmetic"

    def choose_classes(self, classes: Sequence[int] | None) -> None:
        """Report only these class ids from now on, or all; from any thread.

        Raises:
            ConfigError: an id that the model does not have.
        """
        self._wanted = _class_mask(self.facts.class_names, classes)

    def open(self) -> None:
        """Load the model and make the batches; harmless when repeated.

        Raises:
            ModelError: no backend that was allowed can load it; the error is that of the first.
        """
        if self._feeder is not None:
            return
        cv2.setNumThreads(1)  # a resize takes 0.3 ms: its threads would only take cores from the inference
        first: EngineError | None = None
        while True:
            try:
                self._open_backend()
                return
            except (ModelError, MissingDependencyError) as error:
                self.close()
                first = first or error
                other = self._fallback(self._backend.name) if self._fallback is not None else None
                if other is None:
                    raise first from None if first is error else error
                logger.warning("%s does not run here (%s): going on with %s", self._backend.name, error, other[0].name)
                self._backend, self.backend_reason = other[0], f"{self._backend.name} did not open; {other[1]}"

    def fall_back(self) -> bool:
        """Choose the next backend, to be loaded by the next `open`; return False where there is none.

        Call it while the detector is closed.
        """
        other = self._fallback(self._backend.name) if self._fallback is not None else None
        if other is None:
            return False
        self._backend, self.backend_reason = other[0], f"{self._backend.name} failed; {other[1]}"
        return True

    def _open_backend(self) -> None:
        self._backend.open()
        self._order = _output_order(self.facts, self._backend)
        self._head = _head_for(self.facts, self._backend.outputs[self._order[0]])
        self._feeder = Feeder(self.facts, self._backend, self.max_batch, self._letterbox_on)
        if self._check is not None:
            self._check(self)

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start the detection of 1 to `max_batch` frames.

        Raises:
            ConfigError: no or too many frames, something else, not open, or `depth` submissions in flight.
        """
        if self._feeder is None:
            raise ConfigError("the detector is closed: call open() first")
        if not 1 <= len(frames) <= self.max_batch:
            raise ConfigError(f"{len(frames)} frames submitted: expected 1 to {self.max_batch}")
        for frame in frames:
            if not isinstance(frame, Frame):
                raise ConfigError(f"{type(frame).__name__} submitted: expected frames, make one with Frame(image)")
        started_ns = time.monotonic_ns()
        score_threshold = self.score_threshold
        fed = self._feeder.start(frames, score_threshold)
        spent = {"preprocess": (fed.submitted_ns - started_ns) * MS_PER_NS}
        return PendingBatch(fed, partial(self._finish, score_threshold), spent)

    def _finish(
        self, score_threshold: float, outputs: Outputs, boxes: Sequence[Letterbox], spent: dict[str, float]
    ) -> list[Detections]:
        ordered = [outputs[index] for index in self._order]
        spent["nms"] = 0.0
        found = []
        try:
            for row, box in enumerate(boxes):
                candidates = self._head.find(ordered, row, score_threshold)
                found.append(self._detections(candidates, ordered, row, box, spent))
        except DISAGREEING as error:
            raise ModelError(self._disagreement(ordered, error)) from error
        return found

    def _disagreement(self, outputs: Outputs, error: Exception) -> str:
        """Return why the outputs cannot be decoded."""
        specs = zip(self.facts.file.outputs, outputs, strict=True)
        got = ", ".join(f"{spec.name} {output.shape}" for spec, output in specs)
        told = ", ".join(map(str, self.facts.file.outputs))
        return (
            f"{self.facts.path}: head {self.facts.family.name} cannot decode {got}, where the file tells {told}: "
            f"name another head, or export the model again ({error})"
        )

    def _detections(
        self, found: Candidates, outputs: Outputs, row: int, box: Letterbox, spent: dict[str, float]
    ) -> Detections:
        if self._class_map is not None:
            found = _renumbered(found, self._class_map)
        known = self._wanted.take(found.class_id + 1, mode="clip")
        if not known.all():
            found = found.rows(known)
        started_ns = time.monotonic_ns()
        kept = found.rows(self._head.suppress(found, self.iou_threshold))
        spent["nms"] += (time.monotonic_ns() - started_ns) * MS_PER_NS
        extra = self._head.extra(kept, outputs, row, box)
        return Detections(source_from_target(kept.xyxy, box), kept.score, kept.class_id, extra)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect on any number of frames and wait; opens the detector where that was not done."""
        self.open()
        found: list[Detections] = []
        under_way: deque[PendingBatch] = deque()
        for start in range(0, len(frames), self.max_batch):
            if len(under_way) == self.depth:
                found += under_way.popleft().result()
            under_way.append(self.submit(frames[start : start + self.max_batch]))
        for pending in under_way:
            found += pending.result()
        return found

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self._feeder = None
        self._backend.close()

    def __enter__(self) -> ModelDetector:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PendingBatch:
    """Detections of one batch under way."""

    def __init__(
        self,
        fed: Fed,
        finish: Callable[[Outputs, Sequence[Letterbox], dict[str, float]], list[Detections]],
        stage_ms: dict[str, float],
    ) -> None:
        self._fed = fed
        self._finish = finish
        self.stage_ms = stage_ms

    def result(self) -> list[Detections]:
        """Wait, and return one `Detections` per frame. Call once. Raises `ModelError`."""
        try:
            outputs = self._fed.pending.result()
            inferred_ns = time.monotonic_ns()
            found = self._finish(outputs, self._fed.boxes, self.stage_ms)
        finally:
            self._fed.pending.release()
            self._fed.give_back()
        self.stage_ms["infer"] = (inferred_ns - self._fed.submitted_ns) * MS_PER_NS
        self.stage_ms["postprocess"] = (time.monotonic_ns() - inferred_ns) * MS_PER_NS
        return found


def _check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}: expected a number between 0 and 1")


def _class_mask(names: Sequence[str], classes: Sequence[int] | None) -> NDArray[np.bool_]:
    """Return (classes + 2,) whether class -1, 0, 1 ... is wanted; the ends stand for all ids that the model has not."""
    mask = np.full(len(names) + 2, classes is None)
    mask[[0, -1]] = False
    for class_id in classes or ():
        if not 0 <= class_id < len(names):
            raise ConfigError(f"class {class_id}: the model has classes 0 to {len(names) - 1}")
        mask[class_id + 1] = True
    return mask


def _head_for(facts: ModelFacts, first: TensorSpec) -> Head:
    """Return the head for the first output as the backend gives it: with the class scores merged, or as in the file."""
    head, rows = facts.head(), facts.layout.outputs[0].shape[1:2]
    scores = head.class_scores
    if scores is not None and rows[0] is not None and first.shape[1] == scores.merged(rows[0]):
        return head.merged()
    return head


def _output_order(facts: ModelFacts, backend: Backend) -> list[int]:
    """Return where the backend has each output of the model file: by name, else in the same order."""
    position = {spec.name: index for index, spec in enumerate(backend.outputs)}
    wanted = [spec.name for spec in facts.file.outputs]
    if len(position) != len(wanted):
        raise ModelError(f"{facts.path}: {len(wanted)} outputs in the file, {len(position)} once loaded")
    if set(position) != set(wanted):
        return list(range(len(wanted)))
    return [position[name] for name in wanted]


def _renumbered(found: Candidates, class_map: NDArray[np.int32]) -> Candidates:
    """Return the candidates with class ids by the map; numbers beyond it become -1, which is no class."""
    inside = (found.class_id >= 0) & (found.class_id < len(class_map))
    mapped = class_map[np.where(inside, found.class_id, 0)]
    return replace(found, class_id=np.where(inside, mapped, -1).astype(np.int32))
