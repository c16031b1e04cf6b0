from __future__ import annotations

import numpy as np

from engine.data import Detections, Frame
from engine.tracking.botsort import BotSort
from engine.tracking.camera_motion import CameraMotion
from engine.tracking.steady import SteadyTrack

FRAME_NS = 33_333_333
NO_BOXES = np.zeros((0, 4))


def wall(seed: int = 0) -> np.ndarray:
    """A large wall of blocks, of which a camera sees a part."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))


def view(image: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.ascontiguousarray(image[y : y + 480, x : x + 640])


def test_the_shift_of_the_picture_is_found() -> None:
    camera, image = CameraMotion(), wall()
    camera.observe(view(image, 100, 100), NO_BOXES)
    assert camera.take() is None
    camera.observe(view(image, 112, 94), NO_BOXES)
    affine = camera.take()
    assert affine is not None
    np.testing.assert_allclose(affine, [[1, 0, -12], [0, 1, 6]], atol=0.6)


def test_shifts_add_up_until_they_are_taken() -> None:
    camera, image = CameraMotion(), wall()
    for x in (100, 108, 116):
        camera.observe(view(image, x, 100), NO_BOXES)
    affine = camera.take()
    assert affine is not None
    np.testing.assert_allclose(affine[:, 2], [-16, 0], atol=1.0)
    assert camera.take() is None


def test_a_blank_picture_is_a_camera_that_stands_still() -> None:
    camera = CameraMotion()
    for _ in range(2):
        camera.observe(np.zeros((480, 640, 3), np.uint8), NO_BOXES)
    assert camera.take() is None


def test_a_picture_of_another_size_starts_anew() -> None:
    camera, image = CameraMotion(), wall()
    camera.observe(view(image, 0, 0), NO_BOXES)
    camera.observe(np.ascontiguousarray(image[:300, :400]), NO_BOXES)
    assert camera.take() is None


def test_only_a_tracker_that_follows_the_camera_wants_frames() -> None:
    assert SteadyTrack(camera_motion=True).wants_frames
    assert SteadyTrack(camera_motion=True).clone().wants_frames
    assert not SteadyTrack().wants_frames


def test_ids_survive_a_jerk_of_the_camera() -> None:
    image = wall()
    for follow, expected in ((True, 1), (False, 2)):
        tracker, ids = BotSort(camera_motion=follow), set()
        for i in range(20):
            x = 300 if i < 10 else 360
            frame = Frame(view(image, x, 100), "cam", i, i * FRAME_NS, 0)
            tracker.observe(frame)
            found = Detections([[700 - x, 200, 740 - x, 300]], [0.9], [0])
            ids |= set(tracker.update(found, i * FRAME_NS).track_id.tolist())
        assert len(ids) == expected
