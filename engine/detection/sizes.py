"""Chooses the size at which a frame runs: one for all, or one of a few rectangles by aspect ratio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from engine.backends.resize import FixedSizeError
from engine.data import Frame
from engine.detection.model import ModelFacts
from engine.detection.shapes import USUAL_ASPECT, at_size, rectangle
from engine.detection.sized import SizedModel
from engine.errors import EngineError, MissingDependencyError, ModelError

logger = logging.getLogger(__name__)
MAX_SHAPES = 6
"""Rectangles that are loaded at most, about 40 MB each; frames of further aspects take the model's own size."""

MakeSized = Callable[[ModelFacts, int | None], SizedModel]
"""Makes the model at one size, not yet loaded, with so many inferences in flight; None leaves that to the backend."""


class Sizes(Protocol):
    """Chooses the size at which each frame is detected. Use it on the detector's thread."""

    @property
    def main(self) -> SizedModel:
        """The size that was loaded first, or will be."""

    def open(self) -> None:
        """Load the model. Raises `ModelError`; harmless when repeated."""

    def of(self, frame: Frame) -> SizedModel:
        """Return the loaded model for a frame."""

    def close(self) -> None:
        """Free all; harmless when repeated."""


class OneSize:
    """All frames at one size."""

    def __init__(self, sized: SizedModel) -> None:
        self.main = sized

    def open(self) -> None:
        """Load the model. Raises `ModelError`; harmless when repeated."""
        self.main.open()

    def of(self, frame: Frame) -> SizedModel:
        """Return the only size."""
        return self.main

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self.main.close()


class ByAspect:
    """Each frame at the smallest size that holds its aspect.

    A size is loaded when a frame needs it. A model whose graph cannot take another size stays at its own; the reason
    is logged once.

    Args:
        facts: the model at the size that it was exported for.
        make_sized: see `MakeSized`.
        expected_wh: expected sizes of frames, if known.
    """

    def __init__(self, facts: ModelFacts, make_sized: MakeSized, expected_wh: Sequence[tuple[int, int]] = ()) -> None:
        self._facts = facts
        self._make_sized = make_sized
        self._wanted = list(dict.fromkeys(rectangle(size_wh, facts) for size_wh in expected_wh or [USUAL_ASPECT]))
        self._guess = None if expected_wh else self._wanted[0]
        self._is_fixed = False
        self._loaded: dict[tuple[int, int], SizedModel] = {}
        self._depth: int | None = None
        self.main = self._made(self._wanted[0])

    def _made(self, size_hw: tuple[int, int]) -> SizedModel:
        try:
            return self._make_sized(at_size(self._facts, size_hw), self._depth)
        except FixedSizeError as error:
            self._stay(error)
            return self._make_sized(self._facts, self._depth)

    def open(self) -> None:
        """Load the model at the sizes that are expected. Raises `ModelError`; harmless when repeated."""
        if self._loaded:
            return
        for size_hw in self._expected():
            self._open(size_hw)
        self.main = next(iter(self._loaded.values()))

    def _expected(self) -> Iterator[tuple[int, int]]:
        for size_hw in self._wanted[:MAX_SHAPES]:
            yield self._facts.size_hw if self._is_fixed else size_hw

    def of(self, frame: Frame) -> SizedModel:
        """Return the loaded model for a frame, loading it at that size if necessary."""
        size_hw = self._facts.size_hw
        if not self._is_fixed:
            size_hw = rectangle((frame.width, frame.height), self._facts)
        sized = self._loaded.get(size_hw)
        if sized is None:
            return self._open(size_hw if len(self._loaded) < MAX_SHAPES else self._facts.size_hw)
        if size_hw == self._guess:
            self._guess = None
        return sized

    def _open(self, size_hw: tuple[int, int]) -> SizedModel:
        """Return the loaded model at a size, or at its own size if the graph cannot take this one."""
        if size_hw in self._loaded:
            return self._loaded[size_hw]
        sized = self.main if not self._loaded and self.main.facts.size_hw == size_hw else self._made(size_hw)
        try:
            sized.open()
        except (ModelError, MissingDependencyError) as error:
            if sized.facts.size_hw == self._facts.size_hw:
                raise
            sized.close()
            self._stay(error)
            return self._open(self._facts.size_hw)
        self._adopt(sized)
        return sized

    def _adopt(self, sized: SizedModel) -> None:
        """Start using a loaded model; free a size that was guessed but that no frame had."""
        if self._depth is None:
            self._depth = sized.backend.depth
        self._loaded[sized.facts.size_hw] = sized
        if self._guess in self._loaded and len(self._loaded) > 1:
            self._loaded.pop(self._guess).close()
            self._guess, self.main = None, sized
        logger.info("the model runs at %d x %d", *sized.facts.size_hw[::-1])

    def _stay(self, error: EngineError) -> None:
        self._is_fixed = True
        logger.info("the model stays at its own size: %s", error)

    def close(self) -> None:
        """Free all sizes; harmless when repeated."""
        for sized in (*self._loaded.values(), self.main):
            sized.close()
        self._loaded.clear()
