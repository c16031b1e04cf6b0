from __future__ import annotations

import numpy as np
import pytest

from engine.backends.base import TensorSpec
from engine.backends.resize import FixedSizeError, SizeChange, grid_constant, regrouped

WIDE = SizeChange((640, 640), (384, 640))
TALL = SizeChange((640, 640), (640, 384))


@pytest.mark.parametrize(
    ("before", "after", "target", "expected"),
    [
        pytest.param((1, 144, 80, 80), (1, 144, 48, 80), (1, 144, 6400), [1, 144, 3840], id="cells in a row"),
        pytest.param((1, 2, 64, 400), (1, 2, 64, 240), (1, 128, 20, 20), [1, 128, 12, 20], id="back to a grid"),
        pytest.param((1, 256, 20, 20), (1, 256, 12, 20), (1, 2, 128, 400), [1, 2, 128, 240], id="heads of attention"),
        pytest.param((1, 64, 8400), (1, 64, 5040), (1, 4, 16, 8400), [1, 4, 16, 5040], id="bins of all anchors"),
        pytest.param((1, 255, 80, 80), (1, 255, 48, 80), (1, 3, 85, 80, 80), [1, 3, 85, 48, 80], id="cells and boxes"),
        pytest.param((1, 3, 80, 80, 85), (1, 3, 48, 80, 85), (1, 19200, 85), [1, 11520, 85], id="three boxes per cell"),
        pytest.param((1, 80, 80, 80), (1, 80, 48, 80), (1, 80, 6400), [1, 80, 3840], id="80 classes on 80 cells"),
        pytest.param((None, 64, 400), (None, 64, 240), (None, 64, 20, 20), [-1, 64, 12, 20], id="open batch"),
        pytest.param((1, 1, 6400), (1, 1, 3840), (1, 6400, 1, 1), [1, 3840, 1, 1], id="sizes of one"),
        pytest.param((1, 116, 40, 40), (1, 116, 24, 40), (1, 2, 58, 40, 40), [1, 2, 58, 24, 40], id="channel shuffle"),
    ],
)
def test_a_reshape_is_regrouped_at_the_new_size(
    before: tuple[int | None, ...], after: tuple[int | None, ...], target: tuple[int | None, ...], expected: list[int]
) -> None:
    assert regrouped(before, after, target, WIDE) == expected


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [
        pytest.param((1, 400, 64), (1, 240, 64), (1, 25600 // 32, 32), id="groups across the cells"),
        pytest.param((1, 64, 400), (1, 64, 240), (1, 64, 100, 4), id="windows of cells"),
        pytest.param((1, 64, 400), (1, 64), (1, 25600), id="another rank"),
        pytest.param((1, 64, 400), (1, 64, 240), (1, 64, 0), id="nothing"),
    ],
)
def test_a_reshape_of_another_kind_is_refused(
    before: tuple[int, ...], after: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(FixedSizeError):
        regrouped(before, after, target, WIDE)


def anchors(size_hw: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """(1, 2, A): x and y of the middle of each cell of strides 8, 16, 32, in cells."""
    parts = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        parts.append(np.stack((x.ravel() + 0.5, y.ravel() + 0.5)) * scale)
    return np.concatenate(parts, axis=1)[None].astype(np.float32)


def strides(size_hw: tuple[int, int]) -> np.ndarray:
    """(A, 1): the stride of each cell."""
    counts = [(size_hw[0] // stride) * (size_hw[1] // stride) for stride in (8, 16, 32)]
    return np.repeat(np.float32([8, 16, 32]), counts)[:, None]


def boxes_per_cell(size_hw: tuple[int, int]) -> np.ndarray:
    """(1, 3, h, w, 2): x and y of each cell of stride 8, as classic YOLOv5 has them."""
    y, x = np.mgrid[: size_hw[0] // 8, : size_hw[1] // 8]
    return np.broadcast_to(np.stack((x, y), axis=-1) - 0.5, (1, 3, *x.shape, 2)).astype(np.float32).copy()


@pytest.mark.parametrize("change", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize(
    "make",
    [anchors, strides, boxes_per_cell, lambda hw: anchors(hw).transpose(0, 2, 1).copy()],
    ids=["anchors", "strides", "boxes per cell", "anchors last"],
)
def test_constants_of_a_grid_are_those_of_the_new_size(make: object, change: SizeChange) -> None:
    changed = grid_constant(make(change.old_hw), change)  # type: ignore[operator]
    assert changed is not None
    np.testing.assert_allclose(changed, make(change.new_hw), rtol=1e-6)  # type: ignore[operator]
    assert changed.dtype == np.float32


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(np.random.default_rng(1).normal(size=(80, 80, 3, 3)).astype(np.float32), id="80 by 80 channels"),
        pytest.param(np.random.default_rng(1).normal(0, 1e-4, size=(400, 64)).astype(np.float32), id="400 channels"),
        pytest.param(np.ones(84, np.float32), id="of no grid"),
    ],
)
def test_weights_of_coincident_sizes_are_left_alone(weights: np.ndarray) -> None:
    assert grid_constant(weights, WIDE) is None


def test_fractions_of_the_frame_are_refused() -> None:
    """They would have to be scaled, and nothing tells which side to scale by."""
    with pytest.raises(FixedSizeError, match="fractions"):
        grid_constant(anchors((640, 640), 1 / 80), WIDE)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        pytest.param([(1, 84, 8400)], [(1, 84, 5040)], id="anchors"),
        pytest.param([(1, 25200, 85)], [(1, 15120, 85)], id="three boxes per cell"),
        pytest.param([(1, 300, 6)], [(1, 300, 6)], id="300 objects"),
        pytest.param([(1, 100, 6)], [(1, 100, 6)], id="100 objects"),
        pytest.param([(1600, 80), (400, 32)], [(960, 80), (240, 32)], id="cells of each stride"),
        pytest.param([(1, 116, 8400), (1, 32, 160, 160)], [(1, 116, 5040), (1, 32, 96, 160)], id="prototypes"),
        pytest.param([(1, 300, 38), (1, 32, 160, 160)], [(1, 300, 38), (1, 32, 96, 160)], id="objects and prototypes"),
        pytest.param([(None, 255, 20, 20)], [(None, 255, 12, 20)], id="grid with open batch"),
        pytest.param([(400, 6400), (1, 1)], [(400, 3840), (1, 1)], id="as many classes as cells of another stride"),
    ],
)
def test_outputs_change_with_their_cells(
    shapes: list[tuple[int | None, ...]], expected: list[tuple[int | None, ...]]
) -> None:
    specs = [TensorSpec(f"output{index}", shape, "float32") for index, shape in enumerate(shapes)]
    assert [spec.shape for spec in WIDE.of_outputs(specs)] == expected
