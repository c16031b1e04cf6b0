"""Whatever numbers a model computes, heads return valid boxes or none, and never raise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backends.base import TensorSpec
from engine.detection.heads.families import FAMILIES, choose_family
from engine.detection.heads.family import Layout
from engine.detection.letterbox import fit

SIDE = 64
CELLS = (64, 16, 4)
ANCHORS = sum(CELLS)
Case = tuple[list[tuple[tuple[int, ...], str]], dict[str, Any], str, tuple[str, ...]]
CASES: dict[str, Case] = {
    "darknet_yolov3": ([((1, 21, 2, 2), "float32")], {"anchors": [[[8, 8], [9, 9], [10, 10]]]}, "", ()),
    "yunet": (
        [((1, cells, size), "float32") for size in (1, 1, 4, 10) for cells in CELLS],
        {},
        "",
        tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)),
    ),
    "centerface": ([((1, size, 16, 16), "float32") for size in (1, 2, 2, 10)], {}, "", ()),
    "movenet": ([((1, 1, 17, 3), "float32")], {}, "pose", ()),
    "yolo": ([((1, 7, ANCHORS), "float32")], {}, "", ()),
    "end_to_end": ([((1, 50, 6), "float32")], {}, "", ()),
    "yolo_pose": ([((1, 5 + 51, ANCHORS), "float32")], {}, "pose", ()),
    "yolo_segment": ([((1, 7 + 32, ANCHORS), "float32"), ((1, 32, 16, 16), "float32")], {}, "segment", ()),
    "yolo_obb": ([((1, 8, ANCHORS), "float32")], {}, "obb", ()),
    "yolov5": ([((1, 3 * ANCHORS, 8), "float32")], {}, "", ()),
    "yolox": ([((1, ANCHORS, 8), "float32")], {}, "", ()),
    "yolox_decoded": ([((1, ANCHORS, 8), "float32")], {"head": "yolox_decoded"}, "", ()),
    "nanodet": ([((cells, size), "float32") for cells in CELLS for size in (80, 32)], {}, "", ()),
    "nanodet_plus": ([((1, ANCHORS + 1, 112), "float32")], {}, "", ()),
    "picodet": ([((cells, size), "float32") for size in (10, 32) for cells in (*CELLS, 1)], {}, "", ()),
    "rtdetr": ([((1, 50, 6), "float32")], {"head": "RTDETRDecoder"}, "", ()),
    "rtdetr_raw": ([((1, 50, 84), "float32")], {"head": "RTDETRDecoder"}, "", ()),
    "detr_logits": ([((1, 9, 80), "float32"), ((1, 9, 4), "float32")], {}, "", ("logits", "pred_boxes")),
    "detr_softmax": ([((1, 9, 92), "float32"), ((1, 9, 4), "float32")], {}, "", ("logits", "pred_boxes")),
    "rfdetr": ([((1, 9, 4), "float32"), ((1, 9, 91), "float32")], {}, "", ("dets", "labels")),
    "torchvision": ([((9, 4), "float32"), ((9,), "int64"), ((9,), "float32")], {}, "", ()),
    "labels_boxes_scores": (
        [((1, 9), "int64"), ((1, 9, 4), "float32"), ((1, 9), "float32")],
        {"head": "labels_boxes_scores"},
        "",
        (),
    ),
    "ssd": ([((1, 9, 4), "float32"), ((1, 9), "int64"), ((1, 9), "float32")], {"head": "ssd"}, "", ()),
    "detection_output": ([((1, 1, 9, 7), "float32")], {}, "", ()),
    "tf_detection": (
        [((1, 9, 4), "float32"), ((1, 9), "float32"), ((1, 9), "float32")],
        {},
        "",
        ("detection_boxes", "detection_classes", "detection_scores"),
    ),
}
NASTY = np.array([0, 1, -1, 0.5, 1e-30, 1e6, -1e30, 3e38, np.nan, np.inf, -np.inf, 64, 2**31], np.float32)


def fill(shape: tuple[int, ...], dtype: str, random: np.random.Generator, nasty: float) -> np.ndarray:
    """Random numbers between 0 and 1, some of them replaced by the worst possible values."""
    if dtype == "int64":
        return random.choice([0, 1, 90, -1, 2**62, -(2**63)], shape)
    values = random.random(shape, np.float32)
    return np.where(random.random(shape) < nasty, random.choice(NASTY, shape), values).astype(np.float32)


def test_every_family_is_tried() -> None:
    assert set(CASES) == {family.name for family in FAMILIES}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), nasty=st.sampled_from([0.0, 0.02, 0.5, 1.0]), threshold=st.floats(0, 1))
def test_no_numbers_break_a_head(name: str, seed: int, nasty: float, threshold: float) -> None:
    shapes, metadata, task, names = CASES[name]
    random = np.random.default_rng(seed)
    outputs = [fill(shape, dtype, random, nasty) for shape, dtype in shapes]
    specs = [
        TensorSpec(names[i] if names else f"output{i}", output.shape, output.dtype.name)
        for i, output in enumerate(outputs)
    ]
    layout = Layout(tuple(specs), (SIDE, SIDE), metadata, task)
    family = choose_family(layout)
    assert family.name == name
    head = family.build(layout)
    found = head.find(outputs, 0, threshold)
    kept = found.rows(head.suppress(found, 0.5))
    extra = head.extra(kept, outputs, 0, fit((50, 70), (SIDE, SIDE)))
    assert len(kept) <= 300
    assert np.isfinite(kept.xyxy).all()
    assert (kept.score > threshold).all()
    assert all(len(column) == len(kept) for column in extra.values())
