"""Outputs without sizes, as `export(dynamic=True, simplify=False)` of Ultralytics writes them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.backends.base import TensorSpec
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Layout
from engine.detection.heads.open_sizes import fill_in
from engine.errors import ModelError

OPEN = (None, None, None)
AUTHOR = {"author": "Ultralytics"}


def layout_of(
    task: str, metadata: dict[str, Any], shape: tuple[int | None, ...] = OPEN, classes: int | None = 80
) -> Layout:
    outputs = [TensorSpec("output0", shape, "float32")]
    if task == "segment":
        outputs.append(TensorSpec("output1", (None, None, None, None), "float32"))
    return Layout(tuple(outputs), (640, 640), metadata, task, classes)


@pytest.mark.parametrize(
    ("task", "told", "sizes", "family"),
    [
        pytest.param("detect", {}, (84, None), "yolo", id="raw"),
        pytest.param("segment", {}, (116, None), "yolo_segment", id="masks"),
        pytest.param("pose", {"kpt_shape": [5, 2]}, (94, None), "yolo_pose", id="keypoints"),
        pytest.param("obb", {"end2end": False}, (85, None), "yolo_obb", id="oriented"),
        pytest.param("detect", {"end2end": True}, (None, 6), "end_to_end", id="end to end"),
        pytest.param("detect", {"args": {"nms": True}}, (None, 6), "end_to_end", id="with NMS"),
        pytest.param("segment", {"end2end": True}, (None, 38), "yolo_segment", id="masks end to end"),
        pytest.param("detect", {"end2end": True, "head": "RTDETRDecoder"}, (None, 6), "rtdetr", id="RT-DETR"),
    ],
)
def test_the_metadata_tell_them(
    task: str, told: dict[str, Any], sizes: tuple[int | None, int | None], family: str
) -> None:
    filled = fill_in(layout_of(task, AUTHOR | told))
    assert filled.shapes[0] == (None, *sizes)
    assert choose_family(filled).name == family


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout_of("detect", {}), id="of others"),
        pytest.param(layout_of("detect", AUTHOR, classes=None), id="without names"),
        pytest.param(layout_of("detect", AUTHOR, (None, 84, None)), id="rows in the file"),
        pytest.param(layout_of("detect", AUTHOR | {"head": "RTDETRDecoder"}), id="RT-DETR of either layout"),
        pytest.param(Layout((), (640, 640), AUTHOR, "detect", 80), id="no output"),
    ],
)
def test_what_they_do_not_tell_stays_open(layout: Layout) -> None:
    assert fill_in(layout) == layout


def test_sizes_that_nothing_tells_have_a_remedy() -> None:
    with pytest.raises(ModelError, match=r"\(\?, \?, \?\).*simplify=True"):
        choose_family(layout_of("detect", AUTHOR | {"head": "RTDETRDecoder"}))


def test_an_absurd_number_of_keypoints_is_refused() -> None:
    with pytest.raises(ModelError, match="kpt_shape"):
        fill_in(layout_of("pose", AUTHOR | {"kpt_shape": [10**9, 3]}))
