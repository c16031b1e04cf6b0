"""Images and clips of events show what players display: upright, with square pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.events.media.cut import Wanted, cut
from engine.events.media.still import StillWanted, still
from engine.sources.open import open_source
from tests.events.media.recorded import UTC_NS, record
from tests.media import encode_clip, rotate_mp4

MATRICES = {
    "upright": (1, 0, 0, 1),
    "a quarter clockwise": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "mirrored": (-1, 0, 0, 1),
    "transposed": (0, 1, 1, 0),
}


def corners(count: int = 30) -> list[np.ndarray]:
    """Return images, 160 x 96, whose four corners have different colours."""
    image = np.full((96, 160, 3), 40, np.uint8)
    for at, color in enumerate([(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)]):
        y, x = at // 2 * 48, at % 2 * 80
        image[y : y + 48, x : x + 80] = color
    return [image] * count


@pytest.mark.parametrize("matrix", [pytest.param(matrix, id=name) for name, matrix in MATRICES.items()])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(3, 2)], ids=str)
def test_a_still_and_a_clip_of_a_recording_are_displayed_as_the_video(
    tmp_path: Path, matrix: tuple[int, int, int, int], aspect: Fraction
) -> None:
    clip = encode_clip(tmp_path / "a.mp4", corners(), pixel_aspect=aspect)
    rotate_mp4(clip, matrix)
    (frame,) = [frame for frame in open_source(str(clip)) if frame.frame_id == 20]
    record(clip, tmp_path / "recording")
    found = still(StillWanted(tmp_path / "recording", UTC_NS + 800_000_000, tmp_path / "a.jpg", 640))
    assert found.bytes, found.reason
    image = cv2.imread(str(tmp_path / "a.jpg"))
    assert image is not None
    assert image.shape[1] / image.shape[0] == pytest.approx(frame.width * frame.pixel_aspect / frame.height, rel=0.03)
    expected = cv2.resize(np.asarray(frame.image), (image.shape[1], image.shape[0]))
    assert np.abs(expected.astype(int) - image).mean() < 12
    made = cut(Wanted(tmp_path / "recording", UTC_NS, UTC_NS + 1_000_000_000, tmp_path / "clip"))
    (first, *_) = list(open_source(str(made.paths[0])))
    assert (first.width, first.height) == (frame.width, frame.height)
    assert first.pixel_aspect == pytest.approx(frame.pixel_aspect, rel=0.01)
    assert np.abs(np.asarray(first.image).astype(int) - frame.image).mean() < 12
