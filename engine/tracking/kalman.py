"""A constant-velocity Kalman filter over all tracks at once, in seconds.

The state of a track is 4 measured values and their 4 rates per second. In the trackers built here every noise matrix
is diagonal, so each value and its rate form an independent filter and the 8 x 8 covariance has only three numbers
per value: its variance, the variance of its rate, and their covariance. There is no inversion and no approximation:
the result equals the full matrix form (Kalman 1960; SORT, Bewley et al. 2016; a test compares the two).

`mean` is (N, 8): values, then rates per second. `cov` is (N, 12): variances of the values, covariances of value and
rate, variances of the rates. Both are float64. Arrays in Fortran order take half the time: a column is contiguous.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REFERENCE_FPS = 30.0
"""The papers state noise per frame of a 30 fps video; here it is converted to seconds with this rate."""


class MotionModel(Protocol):
    """Encodes a box as 4 measured values and defines their uncertainty.

    Attributes:
        size_powers: how the third and fourth values scale with the size of a box: 1 a length, 2 an area, 0 a ratio.
    """

    size_powers: ClassVar[tuple[int, int]]

    def encode(self, xyxy: Array) -> Array:
        """Return the (N, 4) measured values of (N, 4) boxes."""

    def decode(self, mean: Array) -> Array:
        """Return the (N, 4) xyxy boxes of (N, 8) states; never inside out."""

    def initial(self, values: Array) -> Array:
        """Return the (N, 8) variances of a new track: values, then rates."""

    def process(self, mean: Array) -> Array:
        """Return the (N, 8) variances that one second adds: to the values, then to the rates."""

    def measurement(self, mean: Array) -> Array:
        """Return the (N, 4) variances of a measurement."""


def start(model: MotionModel, values: Array) -> tuple[Array, Array]:
    """Return the states (N, 8) and covariances (N, 12) of tracks that begin with the measured (N, 4) `values`."""
    mean = np.zeros((len(values), 8))
    mean[:, :4] = values
    variances = model.initial(values)
    cov = np.zeros((len(values), 12))
    cov[:, :4] = variances[:, :4]
    cov[:, 8:] = variances[:, 4:]
    return mean, cov


def predict(mean: Array, cov: Array, process: Array, seconds: float | Array) -> None:
    """Move `mean` (N, 8) and `cov` (N, 12) forward by `seconds`, in place.

    Args:
        mean: states.
        cov: covariances.
        process: (N, 8) variances that one second adds to values and rates.
        seconds: time since the previous step, at least 0; a number, or (N, 1).
    """
    mean[:, :4] += mean[:, 4:] * seconds
    value, cross, rate = cov[:, :4], cov[:, 4:8], cov[:, 8:]
    value += (cross * 2.0 + rate * seconds + process[:, :4]) * seconds
    cross += rate * seconds
    rate += process[:, 4:] * seconds


def correct(mean: Array, cov: Array, measured: Array, noise: Array) -> None:
    """Correct `mean` (N, 8) and `cov` (N, 12) by the measurements, in place.

    Args:
        mean: (N, 8) predicted states.
        cov: (N, 12) their covariances.
        measured: (N, 4) values, one row per state.
        noise: (N, 4) variances of the measurements.
    """
    value, cross, rate = cov[:, :4], cov[:, 4:8], cov[:, 8:]
    shrink = 1.0 / (value + noise)
    gain_value, gain_rate = value * shrink, cross * shrink
    error = measured - mean[:, :4]
    mean[:, :4] += gain_value * error
    mean[:, 4:] += gain_rate * error
    rate -= gain_rate * cross
    cross -= gain_value * cross
    value -= gain_value * value


def warp(mean: Array, cov: Array, affine: Array, size_powers: tuple[int, int]) -> None:
    """Move `mean` (N, 8) and `cov` (N, 12) with the camera, in place.

    Centres and their rates turn, shrink and shift with the image, sizes shrink. The rotation of a hand-held or swaying
    camera between two frames is a fraction of a degree: the covariance of x and y that it causes is neglected.

    Args:
        mean: states; the first two values are the centre.
        cov: their covariances.
        affine: (2, 3) from old to new pixels.
        size_powers: of the motion model.
    """
    linear = affine[:, :2]
    mean[:, :2] = mean[:, :2] @ linear.T + affine[:, 2]
    mean[:, 4:6] = mean[:, 4:6] @ linear.T
    scale = np.sqrt(abs(np.linalg.det(linear))) ** np.array(size_powers)
    mean[:, 2:4] *= scale
    mean[:, 6:8] *= scale
    for first in (0, 4, 8):
        cov[:, first : first + 2] = cov[:, first : first + 2] @ (linear**2).T
        cov[:, first + 2 : first + 4] *= scale**2
