"""Prepares each image before anything else uses it: lens correction, region, noise, contrast, brightness.

One `Preparation` per source serves its camera and the data sets made from it, so that a model sees in the engine what
it saw in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.data import Frame, SourceInfo, SourceStatus
from engine.errors import ConfigError
from engine.protocols import Source, SourceListener
from engine.sources.base import SourceBase

Image = NDArray[np.uint8]
Region = tuple[float, float, float, float]
MAPS = 8
"""Tables of lens corrections kept, one per lens and frame size."""


@dataclass(frozen=True, slots=True)
class Lens:
    """Brown's model of a lens, as `cv2.calibrateCamera` returns it, in fractions of the image size.

    Attributes:
        focal: focal length, as a fraction of the image width.
        centre: where the optical axis meets the image, as shares of width and height.
        k1: radial distortion of the second order; negative for a barrel. `k2` and `k3`: of the fourth and sixth order.
        k2: see `k1`.
        k3: see `k1`.
        p1: tangential distortion.
        p2: see `p1`.
    """

    focal: float = 1.0
    centre: tuple[float, float] = (0.5, 0.5)
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0


@lru_cache(maxsize=MAPS)
def _maps(lens: Lens, width: int, height: int) -> Any:
    focal = lens.focal * width
    camera = np.array([[focal, 0, lens.centre[0] * width], [0, focal, lens.centre[1] * height], [0, 0, 1]], np.float64)
    distortion = np.array([lens.k1, lens.k2, lens.p1, lens.p2, lens.k3], np.float64)
    return cv2.initUndistortRectifyMap(camera, distortion, None, camera, (width, height), cv2.CV_16SC2)


@dataclass(frozen=True, slots=True)
class Preparation:
    """The chain, in the order in which it is applied.

    Attributes:
        lens: distortion to remove; None leaves the image as it is.
        region: left, top, right, bottom as shares of the image; the frame is cropped to it.
        denoise: `median` removes single wrong pixels, `bilateral` sensor noise; both keep edges.
        contrast: factor around middle grey.
        brightness: added, as a share of the range from black to white.
        gamma: below 1 brightens dark parts, above 1 darkens them.
        equalise: spread the brightness within tiles of the image (CLAHE), for scenes with deep shadows.

    Raises:
        ConfigError: a value is outside its range.

    >>> Preparation(brightness=0.5).apply(np.zeros((2, 2, 3), np.uint8))[0, 0].tolist()
    [128, 128, 128]
    >>> Preparation(region=(0.5, 0.0, 1.0, 1.0)).apply(np.zeros((4, 8, 3), np.uint8)).shape
    (4, 4, 3)
    """

    lens: Lens | None = None
    region: Region | None = None
    denoise: Literal["none", "median", "bilateral"] = "none"
    contrast: float = 1.0
    brightness: float = 0.0
    gamma: float = 1.0
    equalise: bool = False
    _curve: Image | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.region or (0.0, 0.0, 1.0, 1.0)
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise ConfigError(f"region {self.region}: expected left, top, right, bottom between 0 and 1, in that order")
        if not (0 < self.contrast <= 10 and -1 <= self.brightness <= 1 and 0.1 <= self.gamma <= 10):
            raise ConfigError(
                f"contrast {self.contrast}, brightness {self.brightness}, gamma {self.gamma}: "
                "expected above 0 to 10, -1 to 1, and 0.1 to 10"
            )
        if self.denoise not in ("none", "median", "bilateral"):
            raise ConfigError(f"denoise {self.denoise!r}: expected none, median or bilateral")
        object.__setattr__(self, "_curve", self._make_curve())

    def _make_curve(self) -> Image | None:
        """Return the new value of each grey level, or None if nothing changes."""
        if (self.contrast, self.brightness, self.gamma) == (1.0, 0.0, 1.0):
            return None
        level = np.arange(256) / 255
        level = np.clip((level - 0.5) * self.contrast + 0.5 + self.brightness, 0, 1) ** self.gamma
        curve: Image = np.round(level * 255).astype(np.uint8)
        return curve

    def apply(self, image: Image) -> Image:
        """Return the prepared image, (h, w, 3) uint8 BGR; the given one is left unchanged."""
        if self.lens is not None:
            across, down = _maps(self.lens, image.shape[1], image.shape[0])
            image = cv2.remap(image, across, down, cv2.INTER_LINEAR)
        if self.region is not None:
            (x1, y1), (x2, y2) = self._corners(image.shape[1], image.shape[0])
            image = image[y1:y2, x1:x2]
        if self.denoise == "median":
            image = cv2.medianBlur(image, 3)
        elif self.denoise == "bilateral":
            image = cv2.bilateralFilter(image, 5, 40, 5)
        if self._curve is not None:
            image = cv2.LUT(image, self._curve)
        return _equalised(image) if self.equalise else image

    def size_wh(self, width: int, height: int) -> tuple[int, int]:
        """Return the columns and rows that an image of this size has after preparation."""
        (x1, y1), (x2, y2) = self._corners(width, height)
        return x2 - x1, y2 - y1

    def _corners(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the corners of the region in pixels; it covers at least one."""
        x1, y1, x2, y2 = self.region or (0.0, 0.0, 1.0, 1.0)
        left, top = min(round(x1 * width), width - 1), min(round(y1 * height), height - 1)
        return (left, top), (max(round(x2 * width), left + 1), max(round(y2 * height), top + 1))


def _equalised(image: Image) -> Image:
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    result: Image = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
    return result


class PreparedSource(SourceBase):
    """A source whose frames are prepared. Size, zones and boxes are those of the prepared frame.

    Args:
        source: the camera or file.
        preparation: applied to each of its frames.
    """

    def __init__(self, source: Source, preparation: Preparation) -> None:
        super().__init__(source.info)
        self._source = source
        self._preparation = preparation

    @property
    def info(self) -> SourceInfo:
        """The properties known so far, with the size after preparation."""
        info = self._source.info
        if not (info.width and info.height):
            return info
        width, height = self._preparation.size_wh(info.width, info.height)
        return replace(info, width=width, height=height)

    def frame_wh(self) -> tuple[int, int] | None:
        """Return columns and rows of the prepared frames, None if they are not known before the source is read."""
        size = self._source.frame_wh() if isinstance(self._source, SourceBase) else None
        return None if size is None else self._preparation.size_wh(*size)

    def attach(self, listener: SourceListener) -> None:
        """Report states and losses to `listener`; call before iterating."""
        self._source.attach(_PreparedListener(self, listener))

    def interrupt(self) -> None:
        """End the iteration soon; callable from any thread, in any state, even before it begins."""
        self._source.interrupt()

    def __iter__(self) -> Iterator[Frame]:
        """Open, and yield prepared frames in order; the source is closed when the iterator ends or is closed."""
        frames: Any = iter(self._source)
        if not hasattr(frames, "close"):
            yield from map(self._prepared, frames)
            return
        with closing(frames):
            yield from map(self._prepared, frames)

    def _prepared(self, frame: Frame) -> Frame:
        return replace(frame, image=self._preparation.apply(frame.image))


class _PreparedListener:
    """Reports the states of a source with the size of its prepared frames."""

    def __init__(self, source: PreparedSource, listener: SourceListener) -> None:
        self._source, self._listener = source, listener

    def status(self, status: SourceStatus) -> None:
        self._listener.status(replace(status, info=self._source.info))

    def lost(self, count: int, cause: str) -> None:
        self._listener.lost(count, cause)
