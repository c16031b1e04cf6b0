"""The synthetic scene: its ground truth matches what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.sources.synthetic import BACKGROUND, Scene, SyntheticSource, number_in_image, scene_from_uri


@pytest.mark.parametrize("size", [(640, 480), (33, 77), (1, 1), (1921, 5)], ids=str)
def test_boxes_lie_inside_the_picture_whatever_its_size(size: tuple[int, int]) -> None:
    width, height = size
    source = SyntheticSource(Scene(width=width, height=height, objects=7, seed=3))
    for number in (0, 1, 100, 99999):
        xyxy = source.truth(number).xyxy
        assert (xyxy[:, :2] >= 0).all()
        assert (xyxy[:, 2] <= width).all()
        assert (xyxy[:, 3] <= height).all()
        assert (xyxy[:, 2:] > xyxy[:, :2]).all()
        assert source.image(number).shape == (height, width, 3)


def test_the_truth_is_where_the_pixels_are() -> None:
    source = SyntheticSource(Scene(objects=1, seed=5))
    for number in range(0, 300, 50):
        x1, y1, x2, y2 = source.truth(number).xyxy[0].astype(int)
        drawn = source.image(number) != BACKGROUND
        drawn[:4, :128] = False  # the number
        rows, columns = np.nonzero(drawn.any(axis=2))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, max(y1, 0), x2, y2)


def test_objects_move_smoothly() -> None:
    source = SyntheticSource(Scene(fps=25, objects=20))
    steps = [np.abs(source.truth(n + 1).xyxy - source.truth(n).xyxy).max() for n in range(500)]
    assert 0 < max(steps) <= 0.25 * 640 / 25 + 1


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    first, same, other = (SyntheticSource(Scene(seed=seed)).image(9) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@pytest.mark.parametrize("number", [0, 1, 255, 65536, 2**31])
def test_the_frame_number_can_be_read_from_the_picture(number: int) -> None:
    assert number_in_image(SyntheticSource(Scene()).image(number)) == number


def test_tracks_of_the_truth_keep_their_identity() -> None:
    source = SyntheticSource(Scene(objects=4))
    assert source.truth_tracks(0).track_id.tolist() == source.truth_tracks(500).track_id.tolist() == [1, 2, 3, 4]


def test_no_objects_is_an_empty_truth() -> None:
    source = SyntheticSource(Scene(objects=0, count=2))
    assert len(source.truth(0)) == 0
    assert len(list(source)) == 2


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("synthetic://?widht=3", "unknown parameter 'widht'"),
        ("synthetic://?width=wide", "expected a number"),
        ("synthetic://?width=0", "expected sizes"),
        ("synthetic://?fps=0", "fps above 0"),
        ("synthetic://?fps=nan", "fps above 0"),
        ("synthetic://?classes=0", "expected 1 or more"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        scene_from_uri(uri)
