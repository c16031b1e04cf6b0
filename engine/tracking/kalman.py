"""A constant-velocity Kalman filter over all tracks at once, in seconds.

The state of a track is 4 measured values and their 4 rates per second. In the trackers built here every noise matrix
is diagonal, so each value and its rate form a filter of their own and the 8 x 8 covariance holds only three numbers
per value: its variance, the variance of its rate, and their covariance. Nothing is inverted, nothing is approximated:
the result equals the full matrix form (Kalman 1960; SORT, Bewley et al. 2016; a test holds it against the textbook).

`mean` is (N, 8): values, then rates per second. `cov` is (N, 12): variances of the values, covariances of value and
rate, variances of the rates. Both are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REFERENCE_FPS = 30.0
"""The papers state noise per frame of a 30 fps video; here it is converted to seconds with this rate."""


class MotionModel(Protocol):
    """How a box becomes 4 measured values, and how uncertain they are."""

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


def predict(mean: Array, cov: Array, process: Array, seconds: float) -> None:
    """Move `mean` (N, 8) and `cov` (N, 12) forward by `seconds`, in place.

    Args:
        mean: states.
        cov: covariances.
        process: (N, 8) variances that one second adds to values and rates.
        seconds: time since the previous step, at least 0.
    """
    mean[:, :4] += mean[:, 4:] * seconds
    value, cross, rate = cov[:, :4], cov[:, 4:8], cov[:, 8:]
    value += (cross * 2.0 + rate * seconds + process[:, :4]) * seconds
    cross += rate * seconds
    rate += process[:, 4:] * seconds


def correct(mean: Array, cov: Array, measured: Array, noise: Array) -> tuple[Array, Array]:
    """Return the states and covariances after the measurements.

    Args:
        mean: (N, 8) predicted states.
        cov: (N, 12) their covariances.
        measured: (N, 4) values, one row per state.
        noise: (N, 4) variances of the measurements.
    """
    value, cross = cov[:, :4], cov[:, 4:8]
    shrink = 1.0 / (value + noise)
    gain_value, gain_rate = value * shrink, cross * shrink
    error = measured - mean[:, :4]
    new_mean = mean + np.concatenate((gain_value * error, gain_rate * error), axis=1)
    new_cov = cov - np.concatenate((gain_value * value, gain_value * cross, gain_rate * cross), axis=1)
    return new_mean, new_cov


def _positive_boxes(centre: Array, width: Array, height: Array) -> Array:
    half = np.stack((width, height), axis=1)
    np.maximum(half, 1e-3, out=half)
    half *= 0.5
    return np.concatenate((centre - half, centre + half), axis=1)


def _centre_and_size(xyxy: Array) -> Array:
    out = np.empty_like(xyxy)
    np.subtract(xyxy[:, 2:], xyxy[:, :2], out=out[:, 2:])
    np.add(xyxy[:, :2], xyxy[:, 2:], out=out[:, :2])
    out[:, :2] *= 0.5
    return out


@dataclass(frozen=True)
class CentreAspectHeight:
    """Centre x, y, aspect w/h, height, with noise in proportion to the height (DeepSORT, ByteTrack).

    Attributes:
        position: standard deviation of a measured position and of a step at 30 fps, in heights.
        velocity: standard deviation of the change of velocity from frame to frame at 30 fps, in heights per frame.

    >>> model = CentreAspectHeight()
    >>> model.decode(start(model, model.encode(np.array([[3.0, 4.0, 7.0, 6.0]])))[0])
    array([[3., 4., 7., 6.]])
    """

    position: float = 1 / 20
    velocity: float = 1 / 160

    def encode(self, xyxy: Array) -> Array:
        """Return the (N, 4) measured values of (N, 4) boxes."""
        values = _centre_and_size(xyxy)
        values[:, 2] /= values[:, 3]
        return values

    def decode(self, mean: Array) -> Array:
        """Return the (N, 4) xyxy boxes of (N, 8) states."""
        height = mean[:, 3]
        return _positive_boxes(mean[:, :2], mean[:, 2] * height, height)

    def initial(self, values: Array) -> Array:
        """Return the (N, 8) variances of a new track."""
        p, v = 2 * self.position, 10 * self.velocity * REFERENCE_FPS
        std = values[:, 3, None] * np.array([p, p, 0.0, p, v, v, 0.0, v])
        std += np.array([0.0, 0.0, 1e-2, 0.0, 0.0, 0.0, 1e-5 * REFERENCE_FPS, 0.0])
        variances: Array = std * std
        return variances

    def process(self, mean: Array) -> Array:
        """Return the (N, 8) variances that one second adds."""
        p, v = self.position, self.velocity * REFERENCE_FPS
        std = mean[:, 3, None] * np.array([p, p, 0.0, p, v, v, 0.0, v])
        std += np.array([0.0, 0.0, 1e-2, 0.0, 0.0, 0.0, 1e-5 * REFERENCE_FPS, 0.0])
        variances: Array = std * std * REFERENCE_FPS
        return variances

    def measurement(self, mean: Array) -> Array:
        """Return the (N, 4) variances of a measurement."""
        p = self.position
        std = mean[:, 3, None] * np.array([p, p, 0.0, p])
        std += np.array([0.0, 0.0, 1e-1, 0.0])
        variances: Array = std * std
        return variances
