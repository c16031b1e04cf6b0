"""Chooses the size at which a frame runs: one for all, or one of a few rectangles by aspect ratio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from engine.backends.resize import FixedSizeError
from engine.data import Frame
from engine.detection.input_size.background import Loading
from engine.detection.input_size.shapes import USUAL_ASPECT, at_size, rectangle
from engine.detection.input_size.sized import SizedModel
from engine.detection.letterbox import fit
from engine.detection.model import ModelFacts
from engine.errors import EngineError, MissingDependencyError, ModelError

logger = logging.getLogger(__name__)
MAX_SHAPES = 6
"""Maximum number of loaded rectangles, about 40 MB each; frames of other aspects use the model's own size."""

MakeSized = Callable[[ModelFacts, int | None], SizedModel]
"""Makes the model at one size, not yet loaded, with a number of inferences in flight; None leaves it to the backend."""

Waits = Callable[[str], bool]
"""Whether the frames of a source, by its name, wait until their size is loaded."""


WhyNotBuilt = Callable[[tuple[int, int]], str | None]
"""Why the model at a size, rows and columns, must be built for minutes before it is loaded; None if it must not."""


def all_wait(source_id: str) -> bool:
    """Make the frames of every source wait, so that results do not depend on the speed of the machine."""
    return True


class Sizes(Protocol):
    """Chooses the size at which each frame is detected. Use it on the detector's thread."""

    @property
    def main(self) -> SizedModel:
        """The size that was loaded first, or will be."""

    def open(self) -> None:
        """Load the model. Raises `ModelError`; harmless when repeated."""

    def begin_batch(self) -> None:
        """Start using whatever has been loaded in the meantime. Call it before each batch of frames."""

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

    def begin_batch(self) -> None:
        """Do nothing."""

    def of(self, frame: Frame) -> SizedModel:
        """Return the only size."""
        return self.main

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self.main.close()


class ByAspect:
    """Each frame at the smallest size that holds its aspect.

    A size is loaded when a frame needs it. Frames of sources that do not wait are meanwhile detected at the loaded size
    in which they are largest, and the new size is loaded in the background, one at a time. A model whose graph cannot
    take another size stays at its own; the reason is logged once.

    Args:
        facts: the model at the size that it was exported for.
        make_sized: see `MakeSized`.
        expected_wh: expected sizes of frames, if known.
        waits: see `Waits`.

        why_not_built: for backends that build a plan per size, see `WhyNotBuilt`. Sizes that are built already come
            first, and nothing is built while the model serves.
    """

    def __init__(
        self,
        facts: ModelFacts,
        make_sized: MakeSized,
        expected_wh: Sequence[tuple[int, int]] = (),
        waits: Waits = all_wait,
        why_not_built: WhyNotBuilt | None = None,
    ) -> None:
        self._facts = facts
        self._why_not_built = why_not_built
        self._make_sized = make_sized
        self._waits = waits
        self._built: dict[tuple[int, int], bool] = {}
        expected = list(dict.fromkeys(rectangle(size_wh, facts) for size_wh in expected_wh or [USUAL_ASPECT]))
        self._wanted = self._built_first(expected, is_guess=not expected_wh)
        is_kept = why_not_built is not None and self._wanted[0] == facts.size_hw  # for all aspects without a plan
        self._guess = None if expected_wh or is_kept else self._wanted[0]
        self._is_guess_lent = False
        self._is_fixed = False
        self._loaded: dict[tuple[int, int], SizedModel] = {}
        self._loading: Loading | None = None
        self._refused: set[tuple[int, int]] = set()
        self._depth: int | None = None
        self.main = self._made(self._wanted[0])

    def _built_first(self, expected: list[tuple[int, int]], *, is_guess: bool) -> list[tuple[int, int]]:
        """Return the sizes to start with: those expected, unless they would have to be built and its own would not."""
        built = [size_hw for size_hw in expected if self._is_built(size_hw)]
        own = self._facts.size_hw
        if len(built) == len(expected) or not (is_guess or self._is_built(own)):
            return expected
        return list(dict.fromkeys([*built, own]))

    def _is_built(self, size_hw: tuple[int, int]) -> bool:
        """Return whether nothing must be built before the model can run at a size."""
        if self._why_not_built is None:
            return True
        if size_hw not in self._built:
            reason = self._why_not_built(size_hw)
            self._built[size_hw] = reason is None
            if reason is not None:
                logger.info("the model has not been built at %d x %d: %s", size_hw[1], size_hw[0], reason)
        return self._built[size_hw]

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

    def begin_batch(self) -> None:
        """Start using the size loaded in the background, and free an idle size that was guessed wrong."""
        self._is_guess_lent = False
        if self._loading is not None and self._loading.is_done:
            self._take_over()
        self._free_guess()

    def of(self, frame: Frame) -> SizedModel:
        """Return the loaded model for a frame, loading it at that size if the source waits for that."""
        size_hw = self._facts.size_hw
        if not self._is_fixed:
            size_hw = rectangle((frame.width, frame.height), self._facts)
        if size_hw not in self._loaded and not (self._has_room(size_hw) and self._is_built(size_hw)):
            size_hw = self._facts.size_hw
        sized = self._loaded.get(size_hw)
        if sized is None:
            return self._open(size_hw) if self._waits(frame.source_id) else self._lend(frame, size_hw)
        if size_hw == self._guess:
            self._guess = None
        return sized

    def _has_room(self, size_hw: tuple[int, int]) -> bool:
        """Return whether one more size may be loaded, or this one is being loaded."""
        loading = self._loading.sized.facts.size_hw if self._loading is not None else None
        return loading == size_hw or len(self._loaded) + (loading is not None) < MAX_SHAPES

    def _lend(self, frame: Frame, size_hw: tuple[int, int]) -> SizedModel:
        """Return the loaded model in which a frame is largest, and start to load the size that fits."""
        if self._loading is None and size_hw not in self._refused and self._is_built(size_hw):
            sized = self._made(size_hw)
            if sized.facts.size_hw in self._loaded:  # the graph cannot change its size, and its own is loaded
                return self._loaded[sized.facts.size_hw]
            self._loading = Loading(sized)
        lent = max(self._loaded, key=lambda loaded_hw: self._quality(frame, loaded_hw))
        self._is_guess_lent |= lent == self._guess
        return self._loaded[lent]

    def _quality(self, frame: Frame, size_hw: tuple[int, int]) -> tuple[float, int]:
        """Return a sort key, largest for the best size: the scale of a frame at that size, then the area saved."""
        rows, columns = size_hw
        inner = fit((frame.width, frame.height), (columns, rows), self._facts.family.anchor).inner_wh
        return inner[0] * inner[1], -rows * columns

    def _open(self, size_hw: tuple[int, int]) -> SizedModel:
        """Return the loaded model at a size, or at its own size if the graph cannot take this one."""
        if self._loading is not None and self._loading.sized.facts.size_hw == size_hw:
            self._loading.wait()
            self._take_over()
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

    def _take_over(self) -> None:
        """Start using the size loaded in the background, or give that size up if it could not be loaded."""
        loading, self._loading = self._loading, None
        if loading is None:
            return
        sized, error = loading.sized, loading.failure
        if error is None and sized.facts.size_hw not in self._loaded:
            self._adopt(sized)
            return
        sized.close()
        if error is None:
            return
        if not isinstance(error, (ModelError, MissingDependencyError)):
            raise error
        if sized.facts.size_hw != self._facts.size_hw:
            self._stay(error)
            return
        self._refused.add(sized.facts.size_hw)
        logger.warning("the model keeps the sizes that are loaded: its own cannot be loaded (%s)", error)

    def _adopt(self, sized: SizedModel) -> None:
        """Start using a loaded model."""
        if self._depth is None:
            self._depth = sized.backend.depth
        self._loaded[sized.facts.size_hw] = sized
        self._free_guess()
        logger.info("the model runs at %d x %d", *sized.facts.size_hw[::-1])

    def _free_guess(self) -> None:
        """Free a guessed size that no frame had, once nothing is in flight there."""
        if self._guess not in self._loaded or len(self._loaded) == 1:
            return
        if self._is_guess_lent or self._loaded[self._guess].is_busy:
            return
        self._loaded.pop(self._guess).close()
        self._guess, self.main = None, next(iter(self._loaded.values()))

    def _stay(self, error: EngineError) -> None:
        self._is_fixed = True
        logger.info("the model stays at its own size: %s", error)

    def close(self) -> None:
        """Free all sizes; harmless when repeated."""
        if self._loading is not None:
            self._loading.abandon()
            self._loading = None
        for sized in (*self._loaded.values(), self.main):
            sized.close()
        self._loaded.clear()
