"""Runs a model on windows of a frame, at the scale at which the whole frame is detected.

The frame is letterboxed once, and a window is cut from that: aligned with the model's stride, it shows the model the
pixels that it would see on the whole frame. Each size of window is the same model at another size, loaded once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes
from engine.data import Detections, Frame
from engine.detection.feeding import Fed
from engine.detection.input_size.background import Loading
from engine.detection.input_size.shapes import at_size, largest_stride, why_not_rectangular
from engine.detection.input_size.sized import MS_PER_NS, SizedModel, Wanted
from engine.detection.input_size.sizes import MakeSized, Sizes
from engine.detection.letterbox import Canvas, Letterbox, fit, source_from_target
from engine.detection.model import ModelFacts
from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError
from engine.flow.attention.cover import MAX_WINDOWS, Grid
from engine.flow.attention.geometry import Window
from engine.flow.attention.known import Found

logger = logging.getLogger(__name__)
STRIDES_WH = ((6, 6), (10, 6), (6, 10), (8, 8), (12, 8), (8, 12), (10, 10), (14, 12))
"""Sizes of windows in strides of the model, smallest first; each takes about 38 MB."""
WEAK = 0.1
"""Score from which the place of a box below the threshold is looked at again."""


class WindowModels:
    """A model at the sizes of its windows, loaded one after the other on first use.

    Use it on the detector's thread.

    Args:
        facts: the model at the size that it was exported for.
        make_sized: see `engine.detection.input_size.sizes.MakeSized`.
    """

    def __init__(self, facts: ModelFacts, make_sized: MakeSized) -> None:
        self.facts = facts
        self._make_sized = make_sized
        self._step = largest_stride(facts)
        rows, columns = facts.size_hw
        sizes = ((w * self._step, h * self._step) for w, h in STRIDES_WH)
        self._to_load = [size for size in sizes if size[0] <= columns and size[1] <= rows and size != (columns, rows)]
        self._loaded: dict[tuple[int, int], SizedModel] = {}
        self._loading: Loading | None = None
        self._canvases: dict[tuple[int, int], Canvas] = {}
        self._is_refused = False

    def grid(self, frame_hw: tuple[int, int], depth: int, *, wait: bool) -> Grid | None:
        """Return the grid of the model's frame with the sizes that are loaded; None if windows cannot be used (yet).

        Args:
            frame_hw: rows and columns of the model's frame for whole frames.
            depth: frames in flight.
            wait: whether to wait until all sizes are loaded.
        """
        self._load(depth * MAX_WINDOWS, wait=wait)
        grid = Grid.of((frame_hw[1], frame_hw[0]), self._step, tuple(self._loaded))
        return grid if grid.sizes and not self._to_load and self._loading is None else None

    def _load(self, depth: int, *, wait: bool) -> None:
        while self._loading is not None or self._to_load:
            try:
                self._loading = self._loading or Loading(self._made(self._to_load.pop(0), depth))
            except (EngineError, ValueError) as error:
                self._refuse(error)
                return
            if wait:
                self._loading.wait()
            if not self._loading.is_done:
                return
            self._take_over()

    def _made(self, size_wh: tuple[int, int], depth: int) -> SizedModel:
        """Return the model at the size of a window, not yet loaded. Raises `ModelError` if it cannot have that size."""
        if (reason := why_not_rectangular(self.facts)) is not None:
            raise ModelError(reason)
        if self.facts.task not in ("detect", ""):
            raise ModelError(f"its task is {self.facts.task}: windows give boxes only")
        return self._make_sized(at_size(self.facts, (size_wh[1], size_wh[0])), depth)

    def _take_over(self) -> None:
        loading, self._loading = self._loading, None
        if loading is None:
            return
        if loading.failure is None:
            rows, columns = loading.sized.facts.size_hw
            self._loaded[columns, rows] = loading.sized
            return
        loading.sized.close()
        if not isinstance(loading.failure, (ModelError, MissingDependencyError)):
            raise loading.failure
        self._refuse(loading.failure)

    def _refuse(self, error: Exception) -> None:
        self._to_load.clear()
        for sized in self._loaded.values():
            sized.close()
        self._loaded.clear()
        if not self._is_refused:
            logger.warning("windows are not used, every look is at the whole frame: %s", error)
        self._is_refused = True

    def letterboxed(self, frame: Frame, frame_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], Letterbox]:
        """Return the (H, W, 3) letterboxed frame, valid until the next call, and its placement."""
        canvas = self._canvases.get(frame_hw)
        if canvas is None:
            batch = np.empty((1, *frame_hw, 3), np.uint8)
            canvas = self._canvases.setdefault(frame_hw, Canvas(batch, self.facts.family.anchor))
        return canvas.batch[0], canvas.place(0, frame.image)

    def of(self, window: Window) -> SizedModel:
        """Return the loaded model of a window's size. Raises `ConfigError` if there is none."""
        left, top, right, bottom = window
        sized = self._loaded.get((right - left, bottom - top))
        if sized is None:
            raise ConfigError(f"no window of {right - left} x {bottom - top} pixels is loaded")
        return sized

    def close(self) -> None:
        """Free all sizes; harmless when repeated."""
        if self._loading is not None:
            self._loading.abandon()
            self._loading = None
        for sized in self._loaded.values():
            sized.close()
        self._loaded.clear()
        self._to_load.clear()


class WithWindows:
    """Sizes for whole frames, together with the sizes of windows."""

    def __init__(self, whole: Sizes, windows: WindowModels) -> None:
        self.whole = whole
        self.windows = windows

    @property
    def main(self) -> SizedModel:
        """The size that was loaded first, or will be."""
        return self.whole.main

    def open(self) -> None:
        """Load the model; windows load on first use."""
        self.whole.open()

    def begin_batch(self) -> None:
        """Start using whatever has been loaded in the meantime."""
        self.whole.begin_batch()

    def of(self, frame: Frame) -> SizedModel:
        """Return the loaded model for a whole frame."""
        return self.whole.of(frame)

    def close(self) -> None:
        """Free all; harmless when repeated."""
        self.whole.close()
        self.windows.close()


class PendingFound:
    """The windows of one frame, or the whole frame, in flight."""

    def __init__(self, wanted: Wanted, placement: Letterbox, started_ns: int) -> None:
        self._wanted, self._placement, self._started_ns = wanted, placement, started_ns
        self._parts: list[tuple[SizedModel, Fed, Window | None]] = []
        self.stage_ms: dict[str, float] = {}

    def add(self, sized: SizedModel, fed: Fed, window: Window | None) -> None:
        """Add the inference of one window; None: of the whole frame."""
        self._parts.append((sized, fed, window))
        self.stage_ms["preprocess"] = (fed.submitted_ns - self._started_ns) * MS_PER_NS

    def result(self) -> list[Found]:
        """Wait, and return what was found in each window. Call once. Raises `ModelError`."""
        self.stage_ms |= {"nms": 0.0, "infer": 0.0, "postprocess": 0.0}
        try:
            return [self._found(*part) for part in self._parts]
        finally:
            self.give_back()

    def _found(self, sized: SizedModel, fed: Fed, window: Window | None) -> Found:
        outputs = fed.pending.result()
        inferred_ns = time.monotonic_ns()
        floor = min(self._wanted.score_threshold, WEAK)
        wanted = Wanted(floor, self._wanted.iou_threshold, self._wanted.classes, self._wanted.sensitive)
        [found] = sized.decode(outputs, fed.boxes, wanted, self.stage_ms)
        made = self._split(self._in_frame(found, window), window)
        self.stage_ms["infer"] = max(self.stage_ms["infer"], (inferred_ns - fed.submitted_ns) * MS_PER_NS)
        self.stage_ms["postprocess"] += (time.monotonic_ns() - inferred_ns) * MS_PER_NS
        return made

    def _in_frame(self, found: Detections, window: Window | None) -> Detections:
        """Return detections of a window in pixels of the frame."""
        if window is None:
            return found

        def moved(xyxy: Boxes) -> Boxes:
            return source_from_target(xyxy + np.array(window[:2] * 2, np.float32), self._placement)

        placed = Detections(moved(found.xyxy), found.score, found.class_id)
        if found.unreported is not None:
            there = found.unreported
            placed.unreported = Detections(moved(there.xyxy), there.score, there.class_id)
        return placed

    def _split(self, found: Detections, window: Window | None) -> Found:
        """Separate the weak boxes; privacy must see those of its classes."""
        is_weak = found.score <= self._wanted.score_threshold
        weak, reported = found[is_weak], found[~is_weak]
        sensitive, hidden = self._wanted.sensitive, None
        if sensitive is not None:
            is_sensitive = sensitive.classes.take(weak.class_id + 1, mode="clip") & (weak.score > sensitive.floor)
            hidden = weak[is_sensitive]
        reported.unreported = Detections.joined(found.unreported, hidden)
        return Found(window, reported, weak.xyxy)

    def give_back(self) -> None:
        """Free the slots of all parts; harmless when repeated."""
        parts, self._parts = self._parts, []
        for _, fed, _ in parts:
            fed.pending.release()
            fed.give_back()


def look(
    sizes: WithWindows, frame: Frame, windows: Sequence[Window] | None, wanted: Wanted, started_ns: int
) -> PendingFound:
    """Start the detection on windows of a frame, or on the whole of it."""
    whole = sizes.of(frame)
    frame_hw = whole.facts.size_hw
    placement = fit((frame.width, frame.height), (frame_hw[1], frame_hw[0]), sizes.windows.facts.family.anchor)
    pending = PendingFound(wanted, placement, started_ns)
    floor = min(wanted.floor, WEAK)
    try:
        if windows is None:
            pending.add(whole, whole.start([frame], floor), None)
            return pending
        image, _ = sizes.windows.letterboxed(frame, frame_hw)
        for window in windows:
            left, top, right, bottom = window
            sized = sizes.windows.of(window)
            pending.add(sized, sized.start([Frame(image[top:bottom, left:right])], floor), window)
    except BaseException:
        pending.give_back()
        raise
    return pending
