"""The detector: frames in, detections out, several batches in flight.

`submit` letterboxes the frames straight into a reused batch and starts the backend; the pending's `result`, called
on another thread, waits, decodes the head, suppresses duplicates and maps the boxes back to each frame.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, device_of
from engine.backends.trial import Trial
from engine.data import Detections, Frame
from engine.detection.feeding import Fed, LetterboxOn
from engine.detection.input_size.sized import MS_PER_NS, Sensitive, SizedModel, Wanted
from engine.detection.input_size.sizes import OneSize, Sizes
from engine.detection.input_size.windows import PendingFound, WithWindows, look
from engine.detection.letterbox import fit
from engine.detection.model import ModelFacts
from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError
from engine.flow.attention.cover import Grid
from engine.flow.attention.geometry import Placement, Window
from engine.protocols import DetectorFacts

logger = logging.getLogger(__name__)
Fallback = Callable[[str], tuple[Sizes, str] | None]
"""Maps a backend that does not open to the model on the next one and the reason for it, or to None."""

MakeTrial = Callable[[str], Trial]


class ModelDetector:
    """Runs a detection model on frames of any size.

    Call `open`, `submit` and `close` on one thread, and take the results on one other thread. `depth` and `precision`
    are known once the detector is open.

    Args:
        facts: the model, from `inspect_model`.
        backend: runs it; if `sizes` is given, the backend is the one it uses.
        score_threshold: a box needs a score above this.
        iou_threshold: boxes of one class that overlap by more than this are one object.
        classes: class ids to report; None for all.
        max_batch: maximum number of frames per inference.
        letterbox_on: `cpu`, `gpu`, or `auto` for the faster one if both scale alike.
        backend_reason: why this backend was chosen, in one line for the summary.
        sizes: chooses the size at which each frame runs; None runs all at the size of `facts`.
        fallback: provides the model on another backend if one does not open; None makes `open` fail instead.
        try_first: begins to load the model on a backend, by name, in another process; None: load it here at once.
    """

    def __init__(
        self,
        facts: ModelFacts,
        backend: Backend | None = None,
        *,
        score_threshold: float = 0.25,
        iou_threshold: float = 0.7,
        classes: Sequence[int] | None = None,
        max_batch: int = 1,
        letterbox_on: LetterboxOn = "auto",
        backend_reason: str = "",
        sizes: Sizes | None = None,
        fallback: Fallback | None = None,
        try_first: MakeTrial | None = None,
    ) -> None:
        _check_unit("score_threshold", score_threshold)
        _check_unit("iou_threshold", iou_threshold)
        self.facts = facts
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_batch = facts.batch or max_batch
        self.backend_reason = backend_reason
        self._wanted = _class_mask(facts.class_names, classes)
        if sizes is None:
            if backend is None:
                raise ConfigError("a detector needs a backend, or sizes with their own backends")
            sizes = OneSize(SizedModel(facts, backend, self.max_batch, letterbox_on))
        self._sensitive: Sensitive | None = None
        self._sizes = sizes
        self._fallback = fallback
        self._try_first = try_first
        self._trial: Trial | None = None
        self._is_open = False

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
        """Maximum number of submissions in flight."""
        return self.inference.depth

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self.inference.name

    @property
    def inference(self) -> Backend:
        """The backend itself, to measure it alone; submit to it only while no frames are in flight."""
        return self._sizes.main.backend

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the model's frame; of the first one if it has several."""
        return self._sizes.main.facts.size_hw

    def describe(self) -> DetectorFacts:
        """Return the backend, its device, and why it was chosen."""
        return DetectorFacts(self.backend, device_of(self.inference), self.backend_reason)

    @property
    def precision(self) -> str:
        """Type of the weights, and the arithmetic if the backend chooses it."""
        return f"{self.facts.file.precision} weights, {self.inference.precision} arithmetic"

    def choose_classes(self, classes: Sequence[int] | None) -> None:
        """Report only these class ids from now on, or all; may be called on any thread.

        Raises:
            ConfigError: an id that the model does not have.
        """
        self._wanted = _class_mask(self.facts.class_names, classes)

    def also_find(self, classes: Sequence[int], floor: float) -> None:
        """From now on, add objects of these classes to `Detections.unreported` down to a score of `floor`.

        Privacy hides them; what is reported does not change. May be called on any thread.

        Raises:
            ConfigError: an id that the model does not have, or a floor outside 0 to 1.
        """
        _check_unit("floor", floor)
        self._sensitive = Sensitive(floor, _class_mask(self.facts.class_names, classes)) if classes else None

    def prepare(self) -> bool:
        """Return whether `open` can proceed without waiting for another process. Never blocks.

        A model that must not be loaded on one backend is tried on the next.
        """
        while self._try_first is not None and not self._is_open:
            self._trial = self._trial or self._try_first(self.backend)
            if not self._trial.poll():
                return False
            failure, backend = self._trial.failure, self.backend
            if failure is None or not self.fall_back():
                return True
            logger.warning("%s does not run here (%s): continuing with %s", backend, failure, self.backend)
            self._trial = None
        return True

    def _pass_trial(self) -> None:
        """Wait until another process has loaded the model. Raises `ModelError`."""
        if self._try_first is None:
            return
        trial, self._trial = self._trial or self._try_first(self.backend), None
        try:
            while not trial.poll(wait_s=1.0):
                pass
        finally:
            trial.close()
        if trial.failure is not None:
            raise ModelError(f"{self.facts.path}: {trial.failure}")

    def open(self) -> None:
        """Load the model and make the batches; harmless when repeated.

        Raises:
            ModelError: none of the allowed backends can load it; the error is that of the first.
        """
        if self._is_open:
            return
        cv2.setNumThreads(1)  # a resize takes 0.3 ms: its threads would only take cores from the inference
        first: EngineError | None = None
        while True:
            try:
                self._open_sizes()
                return
            except (ModelError, MissingDependencyError) as error:
                self.close()
                first = first or error
                other = self._fallback(self.backend) if self._fallback is not None else None
                if other is None:
                    raise first from None if first is error else error
                failed, self._sizes = self.backend, other[0]
                logger.warning("%s does not run here (%s): continuing with %s", failed, error, self.backend)
                self.backend_reason = f"{failed} did not open; {other[1]}"

    def fall_back(self) -> bool:
        """Choose the next backend, to be loaded by the next `open`; return False if there is none.

        Call it while the detector is closed.
        """
        other = self._fallback(self.backend) if self._fallback is not None else None
        if other is None:
            return False
        failed, self._sizes = self.backend, other[0]
        self.backend_reason = f"{failed} failed; {other[1]}"
        return True

    def _open_sizes(self) -> None:
        self._pass_trial()
        self._sizes.open()
        self._is_open = True

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """Start the detection of 1 to `max_batch` frames.

        Raises:
            ConfigError: no frames, too many, or not frames; not open; or `depth` submissions are in flight.
        """
        if not self._is_open:
            raise ConfigError("the detector is closed: call open() first")
        if not 1 <= len(frames) <= self.max_batch:
            raise ConfigError(f"{len(frames)} frames submitted: expected 1 to {self.max_batch}")
        for frame in frames:
            if not isinstance(frame, Frame):
                raise ConfigError(f"{type(frame).__name__} submitted: expected frames, make one with Frame(image)")
        started_ns, wanted = time.monotonic_ns(), self._wanted_now
        self._sizes.begin_batch()
        by_size: dict[SizedModel, list[int]] = {}
        for position, frame in enumerate(frames):
            by_size.setdefault(self._sizes.of(frame), []).append(position)
        pending = PendingBatch(wanted, len(frames))
        try:
            for sized, positions in by_size.items():
                pending.add(sized, sized.start([frames[at] for at in positions], wanted.floor), positions)
        except BaseException:
            pending.give_back()
            raise
        pending.stage_ms["preprocess"] = (pending.submitted_ns - started_ns) * MS_PER_NS
        return pending

    @property
    def _wanted_now(self) -> Wanted:
        return Wanted(self.score_threshold, self.iou_threshold, self._wanted, self._sensitive)

    def window_grid(self, frame: Frame, *, wait: bool) -> tuple[Placement, Grid] | None:
        """Return where a frame lies in the model's frame, and the windows that can be cut from it.

        The sizes of windows are loaded when this is first called, in the background unless `wait` is set. None: they
        are not loaded yet, or the model cannot run at other sizes, as a warning says once.
        """
        if not self._is_open or not isinstance(self._sizes, WithWindows):
            return None
        self._sizes.begin_batch()
        facts = self._sizes.of(frame).facts
        grid = self._sizes.windows.grid(facts.size_hw, self.depth, wait=wait)
        placement = fit((frame.width, frame.height), facts.size_hw[::-1], facts.family.anchor)
        return None if grid is None else (placement, grid)

    def submit_windows(self, frame: Frame, windows: Sequence[Window] | None) -> PendingFound:
        """Start the detection on windows of a frame; None: on the whole of it. It counts as one submission.

        Call `window_grid` with the same frame first.

        Args:
            frame: of any size.
            windows: in pixels of the model's frame, at the sizes of the grid, `cover.MAX_WINDOWS` at most.

        Raises:
            ConfigError: not open, no window of this size, or `depth` submissions are in flight.
        """
        if not self._is_open or not isinstance(self._sizes, WithWindows):
            raise ConfigError("the detector has no windows: call open(), then window_grid() first")
        return look(self._sizes, frame, windows, self._wanted_now, time.monotonic_ns())

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect on any number of frames and wait; opens the detector if necessary.

        Raises:
            ConfigError: these are no frames.
        """
        if isinstance(frames, Frame):
            raise ConfigError("detect takes a list of frames: detect([frame])")
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
        self._is_open = False
        if self._trial is not None:
            self._trial.close()
            self._trial = None
        self._sizes.close()

    def __enter__(self) -> ModelDetector:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PendingBatch:
    """Detections of one batch in flight, at one size or several."""

    def __init__(self, wanted: Wanted, count: int) -> None:
        self._wanted = wanted
        self._count = count
        self._parts: list[tuple[SizedModel, Fed, list[int]]] = []
        self.stage_ms: dict[str, float] = {}

    def add(self, sized: SizedModel, fed: Fed, positions: list[int]) -> None:
        """Add the inference of the frames at these positions of the batch."""
        self._parts.append((sized, fed, positions))

    @property
    def submitted_ns(self) -> int:
        """Monotonic time at which the last frame was ready for the backend."""
        return self._parts[-1][1].submitted_ns

    def result(self) -> list[Detections]:
        """Wait, and return one `Detections` per frame. Call once. Raises `ModelError`."""
        found = [Detections.empty()] * self._count
        self.stage_ms |= {"nms": 0.0, "infer": 0.0, "postprocess": 0.0}
        try:
            for sized, fed, positions in self._parts:
                for at, detections in zip(positions, self._result_of(sized, fed), strict=True):
                    found[at] = detections
        finally:
            self.give_back()
        return found

    def _result_of(self, sized: SizedModel, fed: Fed) -> list[Detections]:
        outputs = fed.pending.result()
        inferred_ns = time.monotonic_ns()
        found = sized.decode(outputs, fed.boxes, self._wanted, self.stage_ms)
        infer_ms = (inferred_ns - fed.submitted_ns) * MS_PER_NS
        self.stage_ms["infer"] = max(self.stage_ms["infer"], infer_ms)
        self.stage_ms["postprocess"] += (time.monotonic_ns() - inferred_ns) * MS_PER_NS
        return found

    def give_back(self) -> None:
        """Free the slots of all parts; harmless when repeated."""
        parts, self._parts = self._parts, []
        for _, fed, _ in parts:
            fed.pending.release()
            fed.give_back()


def _check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}: expected a number between 0 and 1")


def _class_mask(names: Sequence[str], classes: Sequence[int] | None) -> NDArray[np.bool_]:
    """Return (classes + 2,) whether class -1, 0, 1 ... is wanted; the first and last cover unknown ids."""
    mask = np.full(len(names) + 2, classes is None)
    mask[[0, -1]] = False
    for class_id in classes or ():
        if not 0 <= class_id < len(names):
            raise ConfigError(f"class {class_id}: the model has classes 0 to {len(names) - 1}")
        mask[class_id + 1] = True
    return mask
