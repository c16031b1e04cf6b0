"""Pixels of a decoded frame, converted to a BGR image on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LazyImage(ABC):
    """A decoded image before its conversion. All methods may be called on any thread.

    Attributes:
        width: pixels per row.
        height: rows.
    """

    width: int
    height: int

    @abstractmethod
    def image(self) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 BGR image, read-only; the same array each time."""

    @abstractmethod
    def luma(self) -> NDArray[np.uint8] | None:
        """Return the (H, W) uint8 brightness as it was decoded, read-only; None if its format has no such plane."""


class MayBeLazy:
    """The decoded image of a frame whose BGR image has not been read yet; a slot that is not a field of `Frame`.

    Copies made by `dataclasses.replace`, pickle and copy hold the converted image instead, so the decoded image can
    never survive in a frame whose image was replaced, for example to hide people.
    """

    __slots__ = ("_lazy",)
    _lazy: LazyImage | None

    def restamped(self, **changes: Any) -> Any:
        """Return this frame with other times, numbers or names and the same image, without converting it."""
        first, *others = fields(self)  # type: ignore[arg-type]  # a subclass is a dataclass
        values = {one.name: getattr(self, one.name) for one in others} | changes
        return type(self)(getattr(self, first.name) if self._lazy is None else self._lazy, **values)  # type: ignore[call-arg]
