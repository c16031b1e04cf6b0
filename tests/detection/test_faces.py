"""Faces and poses: hand-worked cases, OpenCV's own decoder, and the real files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.assets import face_model
from engine.backends.base import TensorSpec
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Layout
from engine.detection.letterbox import fit
from engine.detection.load import load_detector

FACES = {
    "zidane.jpg": [[530, 225, 690, 455], [900, 80, 1075, 295]],
    "bus.jpg": [[105, 405, 165, 480], [258, 410, 318, 485]],
}
"""Boxes that each hold one face with some room around it, drawn by hand; every face found must lie in one."""


def layout_of(side: int, *outputs: tuple[str, np.ndarray]) -> Layout:
    specs = tuple(TensorSpec(name, values.shape, values.dtype.name) for name, values in outputs)
    return Layout(specs, (side, side), {})


def yunet_outputs(side: int) -> dict[str, np.ndarray]:
    sizes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    return {
        f"{kind}_{stride}": np.zeros((1, (side // stride) ** 2, size), np.float32)
        for kind, size in sizes.items()
        for stride in (8, 16, 32)
    }


def test_yunet_counts_in_strides_from_the_corner_of_the_cell() -> None:
    outputs = yunet_outputs(64)
    cell = 1 * 4 + 2  # row 1, column 2 of the grid of stride 16
    outputs["cls_16"][0, cell], outputs["obj_16"][0, cell] = 0.9, 0.4
    outputs["bbox_16"][0, cell] = (0.5, 0.25, np.log(2), np.log(3))
    outputs["kps_16"][0, cell] = np.arange(10) / 4
    layout = layout_of(64, *outputs.items())
    family = choose_family(layout)
    assert (family.name, family.names, family.color) == ("yunet", ("face",), "bgr")
    head, listed = family.build(layout), list(outputs.values())
    found = head.find(listed, 0, 0.5)
    assert found.score == pytest.approx([0.6])
    np.testing.assert_allclose(found.xyxy, [[40 - 16, 20 - 24, 40 + 16, 20 + 24]], atol=1e-4)
    points = head.extra(found, listed, 0, fit((64, 64), (64, 64)))["keypoints"][0]
    np.testing.assert_allclose(points[:, 0], 32 + 16 * np.arange(0, 10, 2) / 4)
    np.testing.assert_allclose(points[:, 1], 16 + 16 * np.arange(1, 10, 2) / 4)


def test_the_order_of_yunets_outputs_does_not_matter() -> None:
    outputs = yunet_outputs(64)
    outputs["cls_8"][0, 5] = outputs["obj_8"][0, 5] = 1
    layout = layout_of(64, *reversed(outputs.items()))
    found = choose_family(layout).build(layout).find(list(reversed(outputs.values())), 0, 0.5)
    np.testing.assert_allclose(found.xyxy, [[40 - 4, -4, 40 + 4, 4]])


def test_centerface_measures_height_before_width_from_the_middle_of_the_cell() -> None:
    score, size, offset, landmarks = (np.zeros((1, count, 8, 8), np.float32) for count in (1, 2, 2, 10))
    score[0, 0, 3, 5] = 0.8
    size[0, :, 3, 5] = np.log(4), np.log(2)  # height 16, width 8
    offset[0, :, 3, 5] = 0.25, -0.5
    landmarks[0, :, 3, 5] = np.tile((0.5, 0.25), 5)
    outputs = [score, size, offset, landmarks]
    layout = layout_of(32, *((str(index), values) for index, values in enumerate(outputs)))
    family = choose_family(layout)
    assert (family.name, family.names, family.color) == ("centerface", ("face",), "rgb")
    head = family.build(layout)
    found = head.find(outputs, 0, 0.5)
    x, y = (5 - 0.5 + 0.5) * 4, (3 + 0.25 + 0.5) * 4
    np.testing.assert_allclose(found.xyxy, [[x - 4, y - 8, x + 4, y + 8]], rtol=1e-6)
    points = head.extra(found, outputs, 0, fit((32, 32), (32, 32)))["keypoints"][0]
    np.testing.assert_allclose(points[:, :2], np.tile((x - 4 + 2, y - 8 + 8), (5, 1)), rtol=1e-6)


def test_movenet_gives_one_person_around_its_sure_keypoints() -> None:
    output = np.zeros((1, 1, 17, 3), np.float32)
    output[0, 0, :, 2] = 0.1
    output[0, 0, 0] = (0.25, 0.5, 0.9)  # y, x, score
    output[0, 0, 1] = (0.75, 0.7, 0.6)
    output[0, 0, 2] = (0.99, 0.01, 0.4)  # less than half as sure as the surest
    layout = layout_of(100, ("out", output))
    head = choose_family(layout).build(layout)
    assert len(head.find([output], 0, 0.25)) == 0
    found = head.find([output], 0, 0.15)
    assert found.score == pytest.approx([(0.9 + 0.6 + 0.4 + 14 * 0.1) / 17])
    np.testing.assert_allclose(found.xyxy, [[50 - 1, 25 - 2.5, 70 + 1, 75 + 2.5]], rtol=1e-5)
    points = head.extra(found, [output], 0, fit((100, 100), (100, 100)))["keypoints"][0]
    np.testing.assert_allclose(points[0], (50, 25, 0.9), rtol=1e-6)


@pytest.mark.parametrize("logits", ["logits", "pred_logits"])
def test_libreyolos_name_of_the_logits_is_known(logits: str) -> None:
    values, boxes = np.full((1, 4, 3), -9, np.float32), np.full((1, 4, 4), 0.5, np.float32)
    values[0, 2, 1] = 2
    layout = layout_of(64, (logits, values), ("pred_boxes", boxes))
    family = choose_family(layout)
    assert (family.name, family.classes(layout)) == ("detr_logits", 3)
    found = family.build(layout).find([values, boxes], 0, 0.5)
    np.testing.assert_array_equal(found.xyxy, [[16, 16, 48, 48]])
    assert found.class_id.tolist() == [1]


def test_nanodet_g_has_eleven_bins() -> None:
    scores = [np.zeros((1, (64 // stride) ** 2, 80), np.float32) for stride in (8, 16, 32)]
    reaches = [np.full((1, len(score[0]), 44), -50, np.float32) for score in scores]
    scores[1][0, 5, 7] = 0.9  # row 1, column 1 of stride 16: its middle is (24, 24)
    reaches[1][0, 5, [10, 11 + 1, 22 + 0, 33 + 2]] = 50
    layout = layout_of(64, *((f"o{index}", values) for index, values in enumerate([*scores, *reaches])))
    family = choose_family(layout)
    assert (family.name, family.classes(layout)) == ("nanodet", 80)
    found = family.build(layout).find([*scores, *reaches], 0, 0.5)
    np.testing.assert_allclose(found.xyxy, [[24 - 160, 24 - 16, 24, 24 + 32]], atol=1e-3)


def detect(model: Path, image: np.ndarray, score: float) -> Detections:
    with load_detector(model, score_threshold=score) as detector:
        return detector.detect([Frame(image, "photo", 0, 0, 0)])[0]


@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("model", ["centerface", "yunet_s_640_640.onnx", "yunet_s_dynamic.onnx"])
def test_the_faces_of_photographs_are_found_and_nothing_else(data_dir: Path, model: str, name: str) -> None:
    path = face_model() if model == "centerface" else data_dir / "models" / "more" / model
    image = cv2.imread(str(data_dir / "images" / "assets" / name))
    found = detect(path, image, 0.6)
    room = np.float32(FACES[name])
    inside = (found.xyxy[:, None, :2] >= room[None, :, :2]) & (found.xyxy[:, None, 2:] <= room[None, :, 2:])
    assert sorted(inside.all(axis=2).argmax(axis=1)) == list(range(len(room)))
    assert inside.all(axis=2).any(axis=1).all()
    middle = found.extra["keypoints"][:, :, :2].mean(axis=1)
    assert ((middle > found.xyxy[:, :2]) & (middle < found.xyxy[:, 2:])).all()


def test_yunet_equals_opencvs_own_decoder(data_dir: Path) -> None:
    path = data_dir / "models" / "more" / "yunet_s_640_640.onnx"
    image = cv2.imread(str(data_dir / "images" / "assets" / "zidane.jpg"))
    square = np.zeros((640, 640, 3), np.uint8)
    square[:360] = cv2.resize(image, (640, 360))
    reference = cv2.FaceDetectorYN.create(str(path), "", (640, 640), 0.6, 0.3)
    _, rows = reference.detect(square)
    found = detect(path, square, 0.6)
    expected = np.concatenate((rows[:, :2], rows[:, :2] + rows[:, 2:4]), axis=1).astype(np.float32)
    overlap = iou_matrix(expected, found.xyxy)
    assert len(found) == len(rows)
    assert overlap.max(axis=1).min() > 0.98
    order = overlap.argmax(axis=1)
    np.testing.assert_allclose(found.score[order], rows[:, 14], atol=0.01)
    np.testing.assert_allclose(found.extra["keypoints"][order][:, :, :2].reshape(-1, 10), rows[:, 4:14], atol=1.0)


def test_movenet_stands_on_the_person_of_a_photograph(data_dir: Path) -> None:
    """A crop of one man: his nose is near the top, his ankles near the bottom."""
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))[390:910, 30:260]
    found = detect(data_dir / "models" / "more" / "movenet_single_pose_lightning_ptq.tflite", image, 0.2)
    assert len(found) == 1
    nose, left_ankle, right_ankle = found.extra["keypoints"][0, [0, 15, 16], 1] / len(image)
    assert nose < 0.2
    assert min(left_ankle, right_ankle) > 0.8


def test_an_image_classifier_of_bytes_names_the_bus(data_dir: Path) -> None:
    from engine.detection.classify import load_classifier
    from engine.detection.frame_classifier import FrameClassifier

    path = data_dir / "models" / "more" / "mobilenet_v2_1.0_224_quant.tflite"
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    classifier = FrameClassifier(load_classifier(path), "mobilenet")
    classifier.open()
    found = classifier.detect([Frame(image, "photo", 0, 0, 0)])[0]
    classifier.close()
    assert found.class_id.tolist() == [655]  # minibus, after a class for the background
    assert 0.5 < found.score[0] <= 1
