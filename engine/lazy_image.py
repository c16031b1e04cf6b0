"""Pixels of a decoded frame: its planes, and a BGR image made from them on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Chroma:
    """How the colours of 4:2:0 planes are stored, and what the numbers mean.

    Attributes:
        is_interleaved: one plane of pairs of U and V (NV12), not two planes.
        is_bt709: the matrix of BT.709, not of BT.601.
        is_full_range: numbers from 0 to 255; else luma from 16 to 235 and chroma from 16 to 240.
    """

    is_interleaved: bool = False
    is_bt709: bool = False
    is_full_range: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class YuvPlanes:
    """The planes of a 4:2:0 frame, which have half the bytes of its BGR image; views, valid as long as they are held.

    Attributes:
        luma: (H, W) uint8; rows may be padded.
        colours: U and V, each (ceil(H / 2), ceil(W / 2)) uint8, or one array of both with a last axis of 2.
        chroma: how they are stored, and what the numbers mean.
    """

    luma: NDArray[np.uint8]
    colours: tuple[NDArray[np.uint8], ...]
    chroma: Chroma

    @property
    def nbytes(self) -> int:
        """The size of all planes without padding."""
        return self.luma.nbytes + sum(plane.nbytes for plane in self.colours)


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

    def planes(self) -> YuvPlanes | None:
        """Return the decoded planes, read-only; None if they are not 8-bit 4:2:0, or use an unusual colour matrix."""
        return None


class MayBeLazy:
    """The decoded image of a frame whose BGR image has not been read yet; a slot that is not a field of `Frame`.

    Copies made by `dataclasses.replace`, pickle and copy hold the converted image instead, so the decoded image can
    never survive in a frame whose image was replaced, for example to hide people.
    """

    __slots__ = ("_lazy",)
    _lazy: LazyImage | None

    @property
    def luma(self) -> NDArray[np.uint8] | None:
        """The decoded (H, W) uint8 brightness, read-only.

        None once the image is converted, or if there never was one.
        """
        lazy = self._lazy
        return None if lazy is None else lazy.luma()

    @property
    def planes(self) -> YuvPlanes | None:
        """The decoded 4:2:0 planes, read-only.

        None once the image is converted, if there never were any, or if they are of another kind.
        """
        lazy = self._lazy
        return None if lazy is None else lazy.planes()

    def restamped(self, **changes: Any) -> Any:
        """Return this frame with other times, numbers or names and the same image, without converting it."""
        first, *others = fields(self)  # type: ignore[arg-type]  # a subclass is a dataclass
        values = {one.name: getattr(self, one.name) for one in others} | changes
        return type(self)(getattr(self, first.name) if self._lazy is None else self._lazy, **values)  # type: ignore[call-arg]


def why_no_image(value: Any) -> str | None:
    """Describe a value that cannot be the image of a frame, with the remedy; None for an image.

    >>> why_no_image("bus.jpg")
    "a str: expected uint8 (H, W, 3) in BGR order, as cv2.imread('bus.jpg') returns it"
    """
    import numpy as np

    expected = "expected uint8 (H, W, 3) in BGR order"
    if not isinstance(value, np.ndarray):
        remedies = {
            "str": f", as cv2.imread({str(value)[:80]!r}) returns it",
            "Image": ": np.asarray(image.convert('RGB'))[:, :, ::-1]",
            "Tensor": ", from image.cpu().numpy()",
        }
        base = "Image" if hasattr(value, "convert") and hasattr(value, "size") else type(value).__name__
        return f"a {type(value).__name__}: {expected}{remedies.get(base, '')}"
    shape = value.shape
    if value.dtype == np.uint8 and value.ndim == 3 and shape[2] == 3 and min(shape) > 0:
        return None
    remedy = ""
    if value.ndim == 2:
        remedy = ": cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
    elif value.ndim == 3 and shape[2] == 4:
        remedy = ": image[:, :, :3]"
    elif value.dtype.kind == "f":
        remedy = ": (255 * image).astype(np.uint8), if its values are from 0 to 1"
    return f"{value.dtype} {shape}: {expected}{remedy}"
