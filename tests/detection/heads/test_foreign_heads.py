"""Heads of other projects, against cases worked out by hand from their documented layouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.backends.base import TensorSpec
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Family, Layout
from engine.detection.heads.obb import corners_from_cxcywhr, probiou_matrix
from engine.detection.letterbox import fit
from engine.detection.model import class_map
from engine.errors import ModelError
from tests.detection.heads.test_heads import Rows, assert_rows, sigmoid

SIDE = 64
ANCHORS = 64 + 16 + 4


def layout_of(
    outputs: Sequence[np.ndarray],
    names: Sequence[str] = (),
    task: str = "",
    classes: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Layout:
    specs = [
        TensorSpec(names[i] if names else f"output{i}", output.shape, output.dtype.name)
        for i, output in enumerate(outputs)
    ]
    return Layout(tuple(specs), (SIDE, SIDE), metadata or {}, task, classes)


def assert_found(layout: Layout, outputs: Sequence[np.ndarray], family: str, expected: Rows, row: int = 0) -> Family:
    chosen = choose_family(layout)
    assert chosen.name == family
    assert_rows(chosen.build(layout).find(outputs, row, 0.25), expected)
    return chosen


def test_yolov5_multiplies_objectness_and_class() -> None:
    output = np.zeros((2, 3 * ANCHORS, 5 + 2), np.float32)
    output[1, 100] = [30, 20, 10, 8, 0.9, 0.2, 0.8]
    output[1, 101] = [30, 20, 10, 8, 0.4, 0.5, 0.5]  # 0.4 x 0.5 is below the threshold
    assert_found(layout_of([output]), [output], "yolov5", [(1, 0.72, [25, 16, 35, 24])], row=1)


@pytest.mark.parametrize(
    ("shape", "task", "family"),
    [
        pytest.param((1, 7, 340), "detect", "yolo", id="boxes"),
        pytest.param((1, 4 + 1 + 51, 340), "pose", "yolo_pose", id="keypoints"),
        pytest.param((1, 3 * 340, 8), "", "yolov5", id="YOLOv5"),
    ],
)
def test_models_for_small_objects_have_a_grid_of_stride_4(shape: tuple[int, ...], task: str, family: str) -> None:
    layout = Layout((TensorSpec("output0", shape, "float32"),), (SIDE, SIDE), {}, task)
    assert choose_family(layout).name == family


def open_layout(columns: int, classes: int | None, **metadata: Any) -> Layout:
    return Layout((TensorSpec("output0", (None, None, columns), "float32"),), (SIDE, SIDE), metadata, "", classes)


OF_YOLOV5 = {"stride": 32, "names": {0: "cat"}}


@pytest.mark.parametrize(
    ("layout", "family"),
    [
        pytest.param(open_layout(85, 80, **OF_YOLOV5), "yolov5", id="80 names"),
        pytest.param(open_layout(6, 1, **OF_YOLOV5), "yolov5", id="one class, YOLOv5's metadata"),
        pytest.param(open_layout(6, 1, **OF_YOLOV5, author="Ultralytics"), "end_to_end", id="Ultralytics"),
        pytest.param(open_layout(6, 1), "end_to_end", id="one name of the caller's"),
        pytest.param(open_layout(6, 2, **OF_YOLOV5), "end_to_end", id="two classes in six columns"),
    ],
)
def test_yolov5_with_open_anchors_is_told_by_its_classes(layout: Layout, family: str) -> None:
    assert choose_family(layout).name == family
    assert choose_family(layout, "yolov5").name == "yolov5"


def test_open_anchors_that_nothing_tells_must_be_named() -> None:
    for classes in (None, 80):  # as many names as the caller gave fit a YOLOX as well
        with pytest.raises(ModelError, match="fit no known head"):
            choose_family(open_layout(85, classes))
        assert choose_family(open_layout(85, classes), "yolov5").name == "yolov5"


def test_yolox_that_decodes_in_inference_must_be_named() -> None:
    output = np.zeros((1, ANCHORS, 5 + 2), np.float32)
    output[0, 20] = [30, 20, 10, 8, 0.9, 0.2, 0.8]
    layout = layout_of([output])
    assert choose_family(layout).name == "yolox"
    named = choose_family(layout, "yolox_decoded")
    assert (named.color, named.anchor, named.iou_threshold) == ("bgr", "top_left", 0.45)
    assert_rows(named.build(layout).find([output], 0, 0.25), [(1, 0.72, [25, 16, 35, 24])])


@pytest.mark.parametrize("name", [None, "darknet_yolov3"])
def test_darknet_outputs_without_anchors_say_what_is_missing(name: str | None) -> None:
    outputs = [np.zeros((1, 255, side, side), np.float32) for side in (2, 4)]
    with pytest.raises(ModelError, match="`anchors` in the file's metadata: a list"):
        choose_family(layout_of(outputs), name)


def distances(*bins: int) -> list[float]:
    """Logits (4 sides x 8 bins) whose expectation is the given bins."""
    logits = np.full((4, 8), -100.0)
    logits[np.arange(4), list(bins)] = 100
    return logits.ravel().tolist()


def test_nanodet_measures_its_sides_from_the_middle_of_the_cell() -> None:
    shapes = {0: 64, 1: 16, 2: 4}
    scores = {i: np.zeros((cells, 80), np.float32) for i, cells in shapes.items()}
    reach = {i: np.zeros((cells, 32), np.float32) for i, cells in shapes.items()}
    scores[0][8 * 2 + 3, 7] = 0.8  # stride 8, row 2, column 3: middle at 28, 20
    reach[0][8 * 2 + 3] = distances(1, 0, 2, 3)
    scores[2][3, 79] = 0.5  # stride 32, row 1, column 1: middle at 48
    reach[2][3] = distances(1, 1, 0, 0)
    outputs = [scores[0], scores[1], scores[2], reach[0], reach[1], reach[2]]
    expected: Rows = [(7, 0.8, [20, 20, 44, 44]), (79, 0.5, [16, 16, 48, 48])]
    for order in ([0, 1, 2, 3, 4, 5], [0, 4, 2, 3, 1, 5]):
        shuffled = [outputs[i] for i in order]
        family = assert_found(layout_of(shuffled), shuffled, "nanodet", expected)
        assert family.anchor == "center"
    batched = [output[None] for output in outputs]
    assert_found(layout_of(batched), batched, "nanodet", expected)


def test_nanodet_plus_measures_from_the_corner_of_the_cell() -> None:
    output = np.zeros((1, ANCHORS + 1, 80 + 32), np.float32)
    output[0, ANCHORS, 4] = 0.9  # stride 64: one cell
    output[0, ANCHORS, 80:] = distances(0, 0, 1, 1)
    family = assert_found(layout_of([output]), [output], "nanodet_plus", [(4, 0.9, [0, 0, 64, 64])])
    assert family.anchor == "stretch"


FOUR_STRIDES = [52 * 52, 26 * 26, 13 * 13, 7 * 7]
"""416 is no multiple of 64: the coarsest grid has 7 x 7 cells, the last of which reach beyond 416 pixels."""
PADDLE_NAMES = [f"transpose_{index}.tmp_0" for index in range(8)]


def four_strides(order: Sequence[int], names: Sequence[str] = ()) -> tuple[Layout, list[np.ndarray]]:
    """One object in the last cell of the coarsest grid: corner at 384, 384, middle at 416, 416."""
    outputs = [np.zeros((1, count, columns), np.float32) for columns in (10, 32) for count in FOUR_STRIDES]
    outputs[3][0, 7 * 6 + 6, 0] = 0.9
    outputs[7][0, 7 * 6 + 6] = distances(2, 1, 0, 0)
    ordered = [outputs[index] for index in order]
    return replace(layout_of(ordered, names), size_hw=(416, 416)), ordered


SCORES_FIRST = range(8)
IN_TURN = [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize(
    ("order", "names", "head", "family", "xyxy"),
    [
        pytest.param(IN_TURN, (), None, "nanodet_plus", [256, 320, 384, 384], id="in turn"),
        pytest.param(SCORES_FIRST, (), "nanodet_plus", "nanodet_plus", [256, 320, 384, 384], id="named NanoDet-Plus"),
        pytest.param(SCORES_FIRST, (), None, "picodet", [288, 352, 416, 416], id="scores before distances"),
        pytest.param(IN_TURN, PADDLE_NAMES, None, "picodet", [288, 352, 416, 416], id="Paddle's names"),
        pytest.param(IN_TURN, (), "picodet", "picodet", [288, 352, 416, 416], id="named PicoDet"),
    ],
)
def test_picodet_measures_from_the_middle_of_the_cell_and_nanodet_plus_from_its_corner(
    order: Sequence[int], names: Sequence[str], head: str | None, family: str, xyxy: list[float]
) -> None:
    layout, outputs = four_strides(order, names)
    chosen = choose_family(layout, head)
    assert chosen.name == family
    assert_rows(chosen.build(layout).find(outputs, 0, 0.25), [(0, 0.9, xyxy)])


def test_picodet_is_fed_rgb_of_imagenet() -> None:
    family = choose_family(four_strides(SCORES_FIRST)[0])
    assert (family.color, family.mean[0], family.std[0], family.anchor) == ("rgb", 123.675, 58.395, "stretch")


@pytest.mark.parametrize("columns", [1, 2, 80])
def test_an_output_of_one_stride_too_few_is_no_picodet(columns: int) -> None:
    outputs = [np.zeros((1, count, size), np.float32) for size in (columns, 32) for count in FOUR_STRIDES[:3]]
    layout = replace(layout_of(outputs, PADDLE_NAMES[:6]), size_hw=(416, 416))
    assert choose_family(layout).name == "nanodet"
    with pytest.raises(ModelError, match="head picodet expects four strides"):
        choose_family(layout, "picodet")


@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(1, 896, 16), (1, 896, 1)], id="BlazeFace"),
        pytest.param([(1, 4420, 2), (1, 4420, 4)], id="UltraFace"),
        pytest.param([(rows, size) for size in (1, 4, 10) for rows in (3200, 800, 200)], id="SCRFD"),
        pytest.param([(1, 8400, 4), (1, 8400, 80)], id="YOLO-NAS"),
    ],
)
def test_parts_that_no_head_joins_say_what_they_need(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(
        ModelError, match=r"fit no known head: separate boxes, scores or landmarks .* decoding and NMS inside"
    ):
        choose_family(layout_of([np.zeros(shape, np.float32) for shape in shapes]))


RTDETR = {"head": "RTDETRDecoder"}


def test_rtdetr_rows_are_fractions_of_the_frame() -> None:
    output = np.zeros((1, 300, 6), np.float32)
    output[0, 3] = [0.5, 0.25, 0.5, 0.25, 0.7, 9]
    layout = layout_of([output], metadata=RTDETR)
    family = assert_found(layout, [output], "rtdetr", [(9, 0.7, [16, 8, 48, 24])])
    assert family.anchor == "stretch"


def test_older_rtdetr_has_a_score_per_class() -> None:
    output = np.zeros((1, 300, 84), np.float32)
    output[0, 3, :4] = [0.5, 0.25, 0.5, 0.25]
    output[0, 3, 4 + 9] = 0.7
    assert_found(layout_of([output], metadata=RTDETR), [output], "rtdetr_raw", [(9, 0.7, [16, 8, 48, 24])])


@pytest.mark.parametrize(
    ("names", "family"), [(("pred_boxes", "logits"), "detr_logits"), (("dets", "labels"), "rfdetr")]
)
def test_a_query_can_give_two_classes(names: tuple[str, str], family: str) -> None:
    boxes, logits = np.zeros((1, 5, 4), np.float32), np.full((1, 5, 91), -9, np.float32)
    boxes[0, 2] = [0.5, 0.5, 0.25, 0.5]
    logits[0, 2, 1], logits[0, 2, 3] = 2.0, 1.0
    box = [24.0, 16.0, 40.0, 48.0]
    expected: Rows = [(1, sigmoid(2.0), box), (3, sigmoid(1.0), box)]
    assert_found(layout_of([boxes, logits], names), [boxes, logits], family, expected)
    assert_found(layout_of([logits, boxes], names[::-1]), [logits, boxes], family, expected)


def test_the_last_class_of_a_softmax_is_no_object() -> None:
    boxes, logits = np.full((1, 5, 4), 0.5, np.float32), np.full((1, 5, 92), -5, np.float32)
    logits[0, :, 91] = 9  # nothing there
    logits[0, 2, 17], logits[0, 2, 91] = 2.0, 1.0
    score = math.exp(2) / (math.exp(2) + math.exp(1) + 90 * math.exp(-5))
    names = ("logits", "pred_boxes")
    family = assert_found(
        layout_of([logits, boxes], names), [logits, boxes], "detr_softmax", [(17, score, [16, 16, 48, 48])]
    )
    assert class_map(family, layout_of([logits, boxes], names)) is not None
    fewer = [logits[:, :, :4], boxes]
    assert choose_family(layout_of(fewer, names, classes=3)).name == "detr_logits"
    assert choose_family(layout_of(fewer, names, classes=3), "detr_softmax").name == "detr_softmax"


def listed(order: Sequence[int], batch: bool = False) -> list[np.ndarray]:
    boxes = np.array([[1, 2, 30, 40], [5, 5, 9, 9]], np.float32)
    columns = [boxes, np.array([3, 1], np.int64), np.array([0.9, 0.1], np.float32)]
    return [columns[i][None] if batch else columns[i] for i in order]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["faster r-cnn", "retinanet"])
@pytest.mark.parametrize(("classes", "class_id"), [(None, 3), (5, 2)], ids=["coco numbers", "named classes"])
def test_torchvision_labels_count_from_one(order: Sequence[int], classes: int | None, class_id: int) -> None:
    outputs = listed(order)
    assert_found(layout_of(outputs, classes=classes), outputs, "torchvision", [(class_id, 0.9, [1, 2, 30, 40])])


def test_labels_boxes_scores_of_rtdetrs_own_export() -> None:
    outputs = listed((1, 0, 2), batch=True)
    layout = replace(layout_of(outputs), takes_size=True)
    assert_found(layout, outputs, "labels_boxes_scores", [(3, 0.9, [1, 2, 30, 40])])


def test_lists_of_boxes_that_are_scaled_to_no_given_size_must_be_named() -> None:
    outputs = listed((0, 1, 2), batch=True)
    layout = layout_of(outputs)
    with pytest.raises(ModelError, match="name one of .*labels_boxes_scores .* in pixels.*; ssd .*fractions"):
        choose_family(layout)
    pixels = choose_family(layout, "labels_boxes_scores").build(layout)
    assert_rows(pixels.find(outputs, 0, 0.25), [(3, 0.9, [1, 2, 30, 40])])
    outputs[0] = outputs[0] / SIDE
    fractions = choose_family(layout, "ssd").build(layout)
    assert_rows(fractions.find(outputs, 0, 0.25), [(2, 0.9, [1, 2, 30, 40])])


def test_detection_output_of_an_ssd() -> None:
    output = np.zeros((1, 1, 3, 7), np.float32)
    output[0, 0, 0] = [0, 2, 0.8, 0.25, 0.5, 0.5, 1.0]
    output[0, 0, 1] = [-1, 0, 0, 0, 0, 0, 0]  # ends the list
    assert_found(layout_of([output]), [output], "detection_output", [(1, 0.8, [16, 32, 32, 64])])


def test_tensorflow_boxes_begin_with_y() -> None:
    outputs = [
        np.array([[[0.25, 0.5, 0.5, 1.0], [0, 0, 1, 1]]], np.float32),
        np.array([[17.0, 1.0]], np.float32),
        np.array([[0.8, 0.1]], np.float32),
    ]
    names = ("detection_boxes:0", "detection_classes:0", "detection_scores:0")
    assert_found(layout_of(outputs, names), outputs, "tf_detection", [(17, 0.8, [32, 16, 64, 32])])


def test_pose_keypoints_come_back_to_the_image() -> None:
    output = np.zeros((1, 4 + 1 + 6, ANCHORS), np.float32)
    output[0, :, 7] = [32, 32, 20, 20, 0.9, 32, 32, 0.8, 0, 16, 0.1]
    layout = layout_of([output], task="pose", metadata={"kpt_shape": [2, 3]})
    head = choose_family(layout).build(layout)
    found = head.find([output], 0, 0.25)
    columns = head.extra(found, [output], 0, fit((128, 64), (SIDE, SIDE)))
    np.testing.assert_allclose(columns["keypoints"], [[[64, 32, 0.8], [0, 0, 0.1]]], atol=1e-4)


def test_a_mask_fills_its_prototype_inside_its_box() -> None:
    output = np.zeros((1, 4 + 1 + 32, ANCHORS), np.float32)
    output[0, :5, 7] = [32, 32, 32, 40, 0.9]
    output[0, 5, 7] = 1.0
    prototypes = np.zeros((1, 32, 16, 16), np.float32)
    prototypes[0, 0] = -1
    prototypes[0, 0, :, 8:] = 1  # the right half of the frame
    layout = layout_of([output, prototypes], task="segment")
    head = choose_family(layout).build(layout)
    found = head.find([output, prototypes], 0, 0.25)
    [mask] = head.extra(found, [output, prototypes], 0, fit((128, 128), (SIDE, SIDE)))["mask"]
    expected = np.zeros((128, 128), bool)
    expected[24:104, 64:96] = True
    np.testing.assert_array_equal(mask, expected)


def test_an_oriented_box_has_four_corners() -> None:
    output = np.zeros((1, 4 + 2 + 1, ANCHORS), np.float32)
    output[0, :, 7] = [32, 32, 20, 10, 0.1, 0.9, math.pi / 2]
    layout = layout_of([output], task="obb")
    head = choose_family(layout).build(layout)
    found = head.find([output], 0, 0.25)
    assert_rows(found, [(1, 0.9, [27, 22, 37, 42])])
    corners = head.extra(found, [output], 0, fit((128, 128), (SIDE, SIDE)))["xyxyxyxy"]
    assert {tuple(np.round(corner).tolist()) for corner in corners[0]} == {(54, 44), (74, 44), (74, 84), (54, 84)}


def test_oriented_boxes_are_as_alike_as_they_overlap() -> None:
    boxes = np.float32([[10, 10, 8, 4, 0], [10, 10, 4, 8, math.pi / 2], [10, 10, 8, 4, math.pi / 2], [90, 90, 8, 4, 0]])
    alike = probiou_matrix(boxes, boxes)
    np.testing.assert_allclose(np.diag(alike), 1, atol=2e-3)
    np.testing.assert_allclose(alike, alike.T, atol=1e-5)
    assert alike[0, 1] > 0.99  # the same box said in two ways
    assert 0.4 < alike[0, 2] < 0.9
    assert alike[0, 3] < 1e-3
    assert corners_from_cxcywhr(boxes[:1]).shape == (1, 4, 2)
