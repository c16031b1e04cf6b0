"""Pixels of a decoded frame that become a BGR image when somebody asks for one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LazyImage(ABC):
    """A decoded picture before its conversion. All methods may be called on any thread.

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
    """The decoded picture of a frame whose image nobody has wanted yet; a slot that is no field of `Frame`.

    Copies of a frame by `dataclasses.replace`, pickle and copy have the image instead, so a picture can never survive
    in a frame whose image was replaced, for example by one in which people are hidden.
    """

    __slots__ = ("_lazy",)
    _lazy: LazyImage | None

    def restamped(self, **changes: Any) -> Any:
        """Return this frame with other times, numbers or names and the same picture, which is not converted for it."""
        first, *others = fields(self)  # type: ignore[arg-type]  # a subclass is a dataclass
        values = {one.name: getattr(self, one.name) for one in others} | changes
        return type(self)(getattr(self, first.name) if self._lazy is None else self._lazy, **values)  # type: ignore[call-arg]
