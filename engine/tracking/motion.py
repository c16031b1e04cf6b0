"""Box encodings for trackers: two from the literature, with their noise in seconds and box sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.tracking.kalman import REFERENCE_FPS, Array

_LEAST_PX = 1e-3


def _positive_boxes(centre: Array, width: Array, height: Array) -> Array:
    boxes = np.empty((len(centre), 4), order="F")  # columns are computed and read one by one
    for axis, extent in enumerate((width, height)):
        half, middle = np.maximum(extent, _LEAST_PX), centre[:, axis]
        half *= 0.5
        np.subtract(middle, half, out=boxes[:, axis])
        np.add(half, middle, out=boxes[:, axis + 2])
    return boxes


def _centre_and_size(xyxy: Array) -> Array:
    out = np.empty(xyxy.shape, order="F")
    np.subtract(xyxy[:, 2:], xyxy[:, :2], out=out[:, 2:])
    np.add(xyxy[:, :2], xyxy[:, 2:], out=out[:, :2])
    out[:, :2] *= 0.5
    return out


def _per_second(std_per_frame: Array) -> Array:
    """Convert standard deviations added per frame at 30 fps into variances added per second."""
    variances: Array = std_per_frame * std_per_frame * REFERENCE_FPS
    return variances


@dataclass(frozen=True)
class CentreWidthHeight:
    """Centre x, y, width, height, with noise in proportion to width and height (BoT-SORT).

    Attributes:
        position: standard deviation of a measured value, and of a step at 30 fps, in box widths or heights.
        velocity: standard deviation of the change of velocity in a step at 30 fps, in the same unit per step.

    >>> from engine.tracking.kalman import start
    >>> model = CentreWidthHeight()
    >>> model.decode(start(model, model.encode(np.array([[3.0, 4.0, 7.0, 6.0]])))[0])
    array([[3., 4., 7., 6.]])
    """

    position: float = 1 / 20
    velocity: float = 1 / 160
    size_powers: ClassVar[tuple[int, int]] = (1, 1)

    def encode(self, xyxy: Array) -> Array:
        """Return the (N, 4) measured values of (N, 4) boxes."""
        return _centre_and_size(xyxy)

    def decode(self, mean: Array) -> Array:
        """Return the (N, 4) xyxy boxes of (N, 8) states."""
        return _positive_boxes(mean[:, :2], mean[:, 2], mean[:, 3])

    def _std(self, values: Array, position: float, velocity: float) -> Array:
        size = values[:, [2, 3, 2, 3, 2, 3, 2, 3]]
        std: Array = size * np.repeat((position, velocity * REFERENCE_FPS), 4)
        return std

    def initial(self, values: Array) -> Array:
        """Return the (N, 8) variances of a new track."""
        variances: Array = self._std(values, 2 * self.position, 10 * self.velocity) ** 2
        return variances

    def process(self, mean: Array) -> Array:
        """Return the (N, 8) variances that one second adds."""
        return _per_second(self._std(mean, self.position, self.velocity))

    def measurement(self, mean: Array) -> Array:
        """Return the (N, 4) variances of a measurement."""
        variances: Array = (mean[:, [2, 3, 2, 3]] * self.position) ** 2
        return variances


@dataclass(frozen=True)
class CentreAreaRatio:
    """Centre x, y, area, and ratio w/h without a rate (SORT, OC-SORT).

    The papers use noise in pixels for all box sizes; here it grows with the size (the square root of the
    area) and equals theirs at `reference_px`, so that a scene is tracked in 4K as in VGA.

    >>> from engine.tracking.kalman import start
    >>> model = CentreAreaRatio()
    >>> model.decode(start(model, model.encode(np.array([[3.0, 4.0, 7.0, 6.0]])))[0])
    array([[3., 4., 7., 6.]])
    """

    reference_px: float = 100.0
    size_powers: ClassVar[tuple[int, int]] = (2, 0)

    def encode(self, xyxy: Array) -> Array:
        """Return the (N, 4) measured values of (N, 4) boxes."""
        values = _centre_and_size(xyxy)
        width, height = values[:, 2].copy(), values[:, 3].copy()
        values[:, 2], values[:, 3] = width * height, width / height
        return values

    def decode(self, mean: Array) -> Array:
        """Return the (N, 4) xyxy boxes of (N, 8) states."""
        area, ratio = np.maximum(mean[:, 2], _LEAST_PX), np.maximum(mean[:, 3], 1e-9)
        width = np.sqrt(area * ratio)
        return _positive_boxes(mean[:, :2], width, area / width)

    def _scaled(self, area: Array, variances: tuple[float, ...]) -> Array:
        """Return (N, len(variances)): variances of positions times the relative area, of areas times its square."""
        scale = np.maximum(area, 1.0) / self.reference_px**2
        out: Array = np.multiply.outer(variances, scale)
        out[2::4] *= scale
        out[3::4] = np.array(variances[3::4])[:, None]
        return out.T

    def initial(self, values: Array) -> Array:
        """Return the (N, 8) variances of a new track."""
        rate = 1e4 * REFERENCE_FPS**2
        return self._scaled(values[:, 2], (10.0, 10.0, 10.0, 10.0, rate, rate, rate, 0.0))

    def process(self, mean: Array) -> Array:
        """Return the (N, 8) variances that one second adds."""
        step, move, grow = REFERENCE_FPS, 1e-2 * REFERENCE_FPS**3, 1e-4 * REFERENCE_FPS**3
        return self._scaled(mean[:, 2], (step, step, step, step, move, move, grow, 0.0))

    def measurement(self, mean: Array) -> Array:
        """Return the (N, 4) variances of a measurement."""
        return self._scaled(mean[:, 2], (1.0, 1.0, 10.0, 10.0))
