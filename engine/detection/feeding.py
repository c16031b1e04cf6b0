"""How frames reach a backend: letterboxed here into a reused batch, or unchanged, for a GPU that letterboxes.

Which is faster depends on the bytes moved: passing a frame on copies all of it, while letterboxing touches little more
than the model's frame. Measured on a CPU (`tools/measure/bench_preprocess.py`), into 640 x 640: 1080p 0.35 ms against
0.75, 1440p 0.85 against 0.92, 2160p 2.8 against 0.9.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, Pending, TensorSpec
from engine.backends.device import DeviceBackend, Pixels
from engine.backends.slots import Slots
from engine.data import Frame
from engine.detection.letterbox import Canvas, Letterbox, fit
from engine.detection.model import ModelFacts
from engine.errors import ConfigError

LetterboxOn = Literal["auto", "cpu", "gpu"]
LETTERBOX_ON = ("auto", "cpu", "gpu")
LARGEST_COPY = 6
"""Bytes of a frame per byte of the model's frame up to which `auto` lets the GPU letterbox it."""


@dataclass(frozen=True, slots=True)
class Fed:
    """Frames in flight.

    Attributes:
        pending: their inference.
        boxes: where each frame lies in the model's frame.
        give_back: must be called once the result has been taken.
        submitted_ns: monotonic time at which the frames were ready for the backend.
    """

    pending: Pending
    boxes: list[Letterbox]
    give_back: Callable[[], None]
    submitted_ns: int


class Feeder:
    """Starts inferences on frames. Use it on the detector's thread.

    Args:
        facts: the model.
        backend: open.
        max_batch: maximum number of frames per inference.
        letterbox_on: `gpu` if the backend can, `cpu`, or `auto`: per batch, the faster one if both scale alike.

    Raises:
        ConfigError: `gpu`, and the backend cannot.
    """

    def __init__(self, facts: ModelFacts, backend: Backend, max_batch: int, letterbox_on: LetterboxOn) -> None:
        self._facts, self._backend, self._letterbox_on = facts, backend, letterbox_on
        if letterbox_on not in LETTERBOX_ON:
            raise ConfigError(f'letterbox_on is "{letterbox_on}": expected {", ".join(LETTERBOX_ON)}')
        self._device = backend if isinstance(backend, DeviceBackend) else None
        self._can_letterbox = self._device is not None and len(backend.inputs) == 1
        if letterbox_on == "gpu" and not self._can_letterbox:
            raise ConfigError(f'letterbox_on is "gpu": backend {backend.name} cannot with this model, choose "auto"')
        shape = (max_batch, *facts.size_hw, 3)
        anchor = facts.family.anchor
        self._canvases = Slots([Canvas(backend.empty(shape, np.uint8), anchor) for _ in range(backend.depth)])

    @property
    def is_busy(self) -> bool:
        """Whether a batch that was letterboxed on the CPU is in flight."""
        return self._canvases.is_any_taken

    def start(self, frames: Sequence[Frame], score_threshold: float) -> Fed:
        """Start the inference of a batch; its result may omit boxes that do not score above the threshold.

        Raises:
            ConfigError: `depth` submissions are in flight.
        """
        if self._device is None:
            return self._start_here(frames)
        self._device.keep_above(score_threshold)
        if not self._can_letterbox or self._letterbox_on == "cpu" or self._facts.batch not in (None, len(frames)):
            return self._start_here(frames)
        rows, columns = self._facts.size_hw
        boxes = [fit((frame.width, frame.height), (columns, rows), self._facts.family.anchor) for frame in frames]
        images = [_pixels_of(frame) for frame in frames]
        if self._letterbox_on == "auto" and not self._is_better_there(images, boxes):
            return self._start_here(frames)
        return Fed(self._device.submit_images(images, boxes), boxes, lambda: None, time.monotonic_ns())

    def _is_better_there(self, images: Sequence[Pixels], boxes: Sequence[Letterbox]) -> bool:
        """Return whether the GPU scales as the CPU does (it only reduces), and the images are small enough to copy."""
        is_same = all(box.inner_wh[0] <= box.source_wh[0] and box.inner_wh[1] <= box.source_wh[1] for box in boxes)
        rows, columns = self._facts.size_hw
        return is_same and sum(image.nbytes for image in images) <= LARGEST_COPY * len(images) * rows * columns * 3

    def _start_here(self, frames: Sequence[Frame]) -> Fed:
        canvas = self._canvases.take()
        try:
            boxes = [canvas.place(row, frame.image) for row, frame in enumerate(frames)]
            batch = canvas.batch if self._facts.batch is not None else canvas.batch[: len(frames)]
            first, *others = self._backend.inputs
            feeds = {first.name: batch} | {spec.name: self._sizes(spec, len(batch)) for spec in others}
            submitted_ns = time.monotonic_ns()
            pending = self._backend.submit(feeds)
        except BaseException:
            self._canvases.give(canvas)
            raise
        return Fed(pending, boxes, lambda: self._canvases.give(canvas), submitted_ns)

    def _sizes(self, spec: TensorSpec, count: int) -> NDArray[Any]:
        """Return the value for a second input: the size (w, h) to which the model scales its boxes (its frame)."""
        rows, columns = self._facts.size_hw
        return np.tile(np.array([columns, rows], spec.dtype), (count, 1))


def _pixels_of(frame: Frame) -> Pixels:
    """Return a frame's planes where it still has them, so that it need not be converted, else its image."""
    planes = frame.planes
    return frame.image if planes is None else planes
