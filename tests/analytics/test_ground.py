"""Speeds on the ground, and how far they can be believed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.places import Ground, Zone
from engine.data import Tracks
from engine.errors import ConfigError
from tests.analytics.scripted import at

SIZE = (1280, 720)
PIXELS = [(200, 650), (1080, 650), (800, 250), (480, 250)]
METRES = [(0, 0), (20, 0), (20, 40), (0, 40)]
STREET = Zone("street", [(0, 200), (1280, 200), (1280, 720), (0, 720)], ground=Ground(PIXELS, METRES))
TO_PIXELS = cv2.getPerspectiveTransform(np.float32(METRES), np.float32(PIXELS))


def _drive(kmh: float, noise: float, seed: int, fps: float = 25, seconds: float = 1.6) -> tuple[np.ndarray, np.ndarray]:
    """Return measured speeds and errors of one object per lane that drives along the street."""
    rng = np.random.default_rng(seed)
    analytics = Analytics([STREET], heat=False)
    lanes = np.array([4.0, 10.0, 16.0])
    speeds = []
    for frame in range(round(seconds * fps)):
        metres = np.stack((lanes, np.full(3, 2 + kmh / 3.6 * frame / fps), np.ones(3)))
        x, y, w = TO_PIXELS @ metres
        feet = np.stack((x / w, y / w), axis=1) + rng.normal(0, noise, (3, 2))
        boxes = np.tile(feet, 2) + np.array((-30, -60, 30, 0))
        view = analytics.update(Tracks(boxes, [0.9] * 3, [0] * 3, [1, 2, 3], None, [0, 1, 2]), at(frame, fps), SIZE)
        speeds.append((view.objects.kmh, view.objects.kmh_error))
    return speeds[-1]


@pytest.mark.parametrize("kmh", [5, 15, 30, 50, 80])
def test_a_known_speed_is_measured(kmh: float) -> None:
    measured, error = _drive(kmh, 0, 0)
    assert measured == pytest.approx([kmh] * 3, rel=0.03)
    assert (error < 0.02 * kmh).all()


@pytest.mark.parametrize("kmh", [15, 30, 50, 80])
def test_the_error_covers_the_truth(kmh: float) -> None:
    off, covered = [], []
    for seed in range(8):
        measured, error = _drive(kmh, 2, seed)
        off += np.abs(measured / kmh - 1).tolist()
        covered += (np.abs(measured - kmh) <= error).tolist()
    assert np.mean(off) < 0.1
    assert np.mean(covered) >= 0.85


def test_no_speed_is_told_beyond_the_ground_or_before_five_observations() -> None:
    analytics = Analytics([STREET])
    for frame in range(10):
        boxes = [(600, 300, 640, 400), (1200, 150, 1240, 240)]
        view = analytics.update(Tracks(boxes, [0.9] * 2, [0] * 2, [1, 2], None, [0, 1]), at(frame, 10), SIZE)
        assert np.isnan(view.objects.kmh).tolist() == [frame < 4, True]
    assert view.objects.kmh[0] == pytest.approx(0, abs=1e-6)
    assert np.isnan(view.objects.metres[1]).all()


@pytest.mark.parametrize(
    ("points", "metres", "message"),
    [
        pytest.param([(0.1, 0.5), (0.5, 0.5), (0.9, 0.5), (0.5, 0.9)], METRES, "one line", id="three on a line"),
        pytest.param(
            [(0.1, 0.9), (0.9, 0.9), (0.7, 0.3), (0.3, 0.3), (0.5, 0.6)],
            [(0, 0), (20, 0), (20, 40), (0, 40), (10, 38)],
            "miss their metres",
            id="a fifth point that does not fit",
        ),
    ],
)
def test_points_that_fit_no_plane_are_refused(points: list[tuple[float, float]], metres: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Analytics([Zone("street", STREET.points, ground=Ground(points, metres))])
