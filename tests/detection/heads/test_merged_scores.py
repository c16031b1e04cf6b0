"""OpenVINO's graph finds the same best class as the head does in all scores: for every task, and in ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.data import Detections, Frame
from engine.detection.load import load_detector
from tests.onnx_models import save_constant_model

SIDE, ANCHORS, CLASSES = 64, 84, 30
PROTOTYPES = np.random.default_rng(2).normal(size=(32, 16, 16)).astype(np.float32)


def raw_output(rest: int) -> NDArray[np.float32]:
    """Return (4 + classes + rest, anchors) with few levels of score, so that many classes tie, and rows of NaN."""
    rng = np.random.default_rng(rest)
    boxes = rng.uniform(8, 56, (4, ANCHORS))
    scores = rng.integers(0, 8, (CLASSES, ANCHORS)) / 8 * (rng.random((CLASSES, ANCHORS)) < 0.3)
    scores[:, :5] = np.nan
    return np.concatenate((boxes, scores, rng.uniform(0, 3, (rest, ANCHORS)))).astype(np.float32)


def detected(path: Path, backend: str, batch: int) -> tuple[list[Detections], int | None]:
    """Return what a backend finds in some frames, and the rows of its first output."""
    images = [np.full((SIDE, SIDE, 3), 40 * index, np.uint8) for index in range(batch)]
    frames = [Frame(image, "camera", index, 0, 0) for index, image in enumerate(images)]
    with load_detector(path, backend=backend, iou_threshold=0.9, max_batch=batch) as detector:
        return detector.detect(frames), detector.inference.outputs[0].shape[1]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("task", "rest", "more"),
    [("detect", 0, []), ("pose", 51, []), ("segment", 32, [PROTOTYPES]), ("obb", 1, [])],
)
def test_merged_scores_give_the_same_detections(
    task: str, rest: int, more: list[NDArray[np.float32]], batch: int, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    metadata = {"task": task, "names": str({index: f"c{index}" for index in range(CLASSES)})}
    path = save_constant_model(tmp_path / "raw.onnx", [raw_output(rest), *more], SIDE, metadata)
    merged, rows = detected(path, "openvino", batch)
    whole, all_rows = detected(path, "onnxruntime", batch)
    assert (rows, all_rows) == (4 + 2 + rest, 4 + CLASSES + rest)
    for one, other in zip(merged, whole, strict=True):
        assert len(one) == len(other) > 5
        for name in ("xyxy", "score", "class_id"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.extra.keys() == other.extra.keys()
        for name, column in one.extra.items():
            np.testing.assert_array_equal(column, other.extra[name])


def test_two_classes_are_left_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    output = raw_output(0)[:6]
    path = save_constant_model(tmp_path / "raw.onnx", [output], SIDE, {"names": "{0: 'a', 1: 'b'}"})
    [found], rows = detected(path, "openvino", 1)
    [same], _ = detected(path, "onnxruntime", 1)
    assert rows == 6
    np.testing.assert_array_equal(found.score, same.score)
