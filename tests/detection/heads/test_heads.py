"""Heads against cases worked out by hand, in plain Python, from the documented layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.detection.heads.base import Candidates, Head
from engine.detection.heads.darknet import DarknetHead
from engine.detection.heads.ultralytics import EndToEndHead, RawHead
from engine.detection.heads.yolox import YoloxHead

Rows = list[tuple[int, float, list[float]]]


def rows(found: Candidates) -> Rows:
    """Class, score and box, the best score first."""
    table = zip(found.class_id.tolist(), found.score.tolist(), found.xyxy.tolist(), strict=True)
    return sorted(table, key=lambda row: -row[1])


def assert_rows(found: Candidates, expected: Rows) -> None:
    got = rows(found)
    assert [row[0] for row in got] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1] for row in got], [row[1] for row in expected], rtol=1e-5)
    np.testing.assert_allclose([row[2] for row in got], [row[2] for row in expected], rtol=1e-5, atol=1e-4)
    assert (found.xyxy.dtype, found.score.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int32)


def raw_output() -> NDArray[np.float32]:
    """(2, 4 + 3, 84): two images; anchors 5 and 60 of the second hold objects."""
    output = np.zeros((2, 7, 84), np.float32)
    output[1, :, 5] = [32, 16, 20, 10, 0.1, 0.7, 0.2]
    output[1, :, 60] = [50, 50, 4, 8, 0.9, 0.3, 0.89]
    return output


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_raw_head_reads_centre_size_and_best_class(dtype: str) -> None:
    found = RawHead().find([raw_output().astype(dtype)], 1, 0.25)
    expected: Rows = [(0, 0.9, [48, 46, 52, 54]), (1, 0.7, [22, 11, 42, 21])]
    if dtype == "float16":
        expected = [(row[0], float(np.float16(row[1])), row[2]) for row in expected]
    assert_rows(found, expected)


def test_raw_head_keeps_images_of_a_batch_apart() -> None:
    assert len(RawHead().find([raw_output()], 0, 0.25)) == 0


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    output = raw_output()
    output[1, 5, 5] = 0.5
    assert [row[0] for row in rows(RawHead().find([output], 1, 0.5))] == [0]


def test_rows_that_are_no_numbers_are_left_out() -> None:
    output = raw_output()
    output[1, 0, 5] = np.nan
    output[1, 4:, 7] = np.nan
    output[1, :, 8] = [1, 1, np.inf, 1, 0.9, 0.9, 0.9]
    output[1, :, 9] = [10, 10, -4, 3, 0.9, 0.1, 0.1]
    assert len(RawHead().find([output], 1, 0.25)) == 1


def test_end_to_end_head_reads_corners_and_skips_padding() -> None:
    output = np.zeros((1, 300, 6), np.float32)
    output[0, 0] = [10, 20, 30, 40, 0.8, 2]
    output[0, 1] = [11, 20, 30, 40, 0.6, 2]  # a duplicate stays: there is no NMS
    output[0, 2] = [1, 2, 3, 4, 0.2, 0]
    head = EndToEndHead()
    found = head.find([output], 0, 0.25)
    assert_rows(found, [(2, 0.8, [10, 20, 30, 40]), (2, 0.6, [11, 20, 30, 40])])
    assert head.suppress(found, 0.1).tolist() == [0, 1]
    assert len(head.find([output], 0, 0.0)) == 3


def test_yolox_head_adds_the_grid_and_scales_by_stride() -> None:
    output = np.zeros((1, 64 + 16 + 4, 5 + 2), np.float32)  # 64 x 64 pixels: 8x8, 4x4, 2x2 cells
    output[0, 8 * 3 + 5] = [0.5, 0.25, math.log(3), math.log(2), 0.9, 0.8, 0.1]  # stride 8, row 3, column 5
    output[0, 64 + 4 * 1 + 2] = [0.0, 1.0, 0.0, math.log(0.5), 0.5, 0.2, 0.9]  # stride 16, row 1, column 2
    output[0, 80 + 3] = [0.5, 0.5, 0.0, 0.0, 1.0, 0.0, 1.0]  # stride 32, row 1, column 1
    output[0, 3] = [0.5, 0.5, 0.0, 0.0, 0.3, 0.5, 0.5]  # 0.3 x 0.5 is below the threshold
    found = YoloxHead((64, 64)).find([output], 0, 0.25)
    expected: Rows = [
        (1, 1.0, [48 - 16, 48 - 16, 48 + 16, 48 + 16]),
        (0, 0.72, [44 - 12, 26 - 8, 44 + 12, 26 + 8]),
        (1, 0.45, [32 - 8, 32 - 4, 32 + 8, 32 + 4]),
    ]
    assert_rows(found, expected)


def test_yolox_grids_of_a_frame_that_is_not_square() -> None:
    output = np.zeros((1, 4 * 8 + 2 * 4 + 1 * 2, 6), np.float32)  # 32 rows x 64 columns
    output[0, 32 + 8 + 1] = [0.5, 0.5, 0, 0, 1, 0.9]  # stride 32, row 0, column 1
    assert_rows(YoloxHead((32, 64)).find([output], 0, 0.25), [(0, 0.9, [32, 0, 64, 32])])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_darknet_head_follows_its_layer() -> None:
    anchors = [[[81, 82], [135, 169]], [[10, 14], [23, 27]]]
    coarse = np.full((1, 2 * 7, 2, 3), -9, np.float32)  # 64 x 96 pixels, stride 32
    fine = np.full((1, 2 * 7, 4, 6), -9, np.float32)  # stride 16
    coarse[0, 7:14, 1, 2] = [0.3, -0.2, 0.1, -0.4, 2.0, -1.0, 3.0]  # second anchor, row 1, column 2
    fine[0, 0:7, 3, 4] = [0.0, 1.0, 0.5, 0.2, 1.5, 2.0, 1.0]  # first anchor, row 3, column 4
    found = DarknetHead((64, 96), anchors).find([coarse, fine], 0, 0.25)

    def box(x: float, y: float, w: float, h: float) -> list[float]:
        return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]

    first = box((2 + sigmoid(0.3)) * 32, (1 + sigmoid(-0.2)) * 32, 135 * math.exp(0.1), 169 * math.exp(-0.4))
    second = box((4 + sigmoid(0.0)) * 16, (3 + sigmoid(1.0)) * 16, 10 * math.exp(0.5), 14 * math.exp(0.2))
    assert_rows(
        found,
        [(1, sigmoid(2.0) * sigmoid(3.0), first), (0, sigmoid(1.5) * sigmoid(2.0), second)],
    )


def test_darknet_head_at_the_ends_of_the_threshold() -> None:
    head = DarknetHead((32, 32), [[[10, 10]]])
    output = np.full((1, 6, 1, 1), 50, np.float32)
    output[0, 2:4] = 0
    assert len(head.find([output], 0, 0.0)) == 1
    assert len(head.find([output], 0, 1.0)) == 0


@pytest.mark.parametrize(
    ("head", "shapes"),
    [
        pytest.param(RawHead(), [(1, 7, 84)], id="raw"),
        pytest.param(EndToEndHead(), [(1, 300, 6)], id="end to end"),
        pytest.param(YoloxHead((64, 64)), [(1, 84, 7)], id="yolox"),
        pytest.param(DarknetHead((64, 64), [[[8, 8]] * 3, [[4, 4]] * 3]), [(1, 21, 2, 2), (1, 21, 4, 4)], id="darknet"),
    ],
)
@pytest.mark.parametrize("value", [0.0, 1e30, -1e30, np.nan, np.inf, -np.inf])
def test_no_output_breaks_a_head(head: RawHead, shapes: list[tuple[int, ...]], value: float) -> None:
    found = head.find([np.full(shape, value, np.float32) for shape in shapes], 0, 0.25)
    kept = found.rows(head.suppress(found, 0.5))
    assert np.isfinite(kept.xyxy).all()
    assert len(kept) <= 300


def hostile(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[np.floating]:
    """Mostly low scores and valid boxes; some values are infinite, NaN or far too large."""
    random = np.random.default_rng(seed)
    output = random.uniform(0, 1, shape) ** 4
    output[random.random(shape) < 0.02] = np.nan
    output[random.random(shape) < 0.01] = np.inf
    output[random.random(shape) < 0.01] = -6e4
    return output.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    ("head", "shape"),
    [
        (RawHead(), (5, 9, 84)),
        (RawHead(3), (5, 9, 84)),
        (RawHead(5, is_merged=True), (5, 6, 84)),
        (RawHead(1, is_merged=True), (5, 9, 84)),
        (EndToEndHead(), (5, 40, 6)),
        (EndToEndHead(), (5, 40, 9)),
    ],
)
def test_all_images_of_a_batch_at_once_are_as_each_alone(
    head: Head, shape: tuple[int, ...], count: int, dtype: str
) -> None:
    output = hostile(shape, dtype, count)
    together = head.find_all([output], count, 0.25)
    assert len(together) == count
    assert sum(map(len, together)) > 0
    for row, found in enumerate(together):
        alone = head.find([output], row, 0.25)
        for name in ("xyxy", "score", "class_id"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
            assert getattr(found, name).dtype == getattr(alone, name).dtype
        assert found.extra.keys() == alone.extra.keys()
        for name, column in found.extra.items():
            np.testing.assert_array_equal(column, alone.extra[name])
            assert column.dtype == alone.extra[name].dtype


@pytest.mark.parametrize("head", [RawHead(), EndToEndHead()])
def test_images_without_candidates_stay_empty(head: Head) -> None:
    output = np.zeros((3, 8, 84) if isinstance(head, RawHead) else (3, 84, 6), np.float32)
    assert [len(found) for found in head.find_all([output], 3, 0.25)] == [0, 0, 0]
