"""Outputs whose sizes differ from those in the file or from each other: a `ModelError` that names them, or boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.backends.base import TensorSpec
from engine.backends.files.base import ModelFile
from engine.data import Frame
from engine.detection.detector import ModelDetector
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Layout
from engine.detection.model import ModelFacts
from engine.errors import ModelError
from engine.testing.backend import FakeBackend
from tests.detection.heads.test_head_fuzz import CASES, SIDE

FRAME = Frame(np.zeros((50, 70, 3), np.uint8), "a", 0, 0, 0)


def detector(layout: Layout, outputs: list[np.ndarray]) -> ModelDetector:
    family = choose_family(layout)
    file = ModelFile(
        Path("m.onnx"), "onnx", (TensorSpec("images", (1, 3, SIDE, SIDE), "float32"),), layout.outputs, {}, "float32", 1
    )
    names = tuple(f"class_{index}" for index in range(200))
    image = family.image_input((SIDE, SIDE), "nchw")
    facts = ModelFacts(
        file, layout.metadata, layout.task, family, layout, names, (SIDE, SIDE), None, 1, image, class_map=None
    )
    inputs = [TensorSpec("images", (1, SIDE, SIDE, 3), "uint8")]
    return ModelDetector(facts, FakeBackend(inputs, layout.outputs, lambda _: tuple(outputs)), score_threshold=0.1)


def layout_of(name: str) -> tuple[Layout, list[np.ndarray]]:
    shapes, metadata, task, names = CASES[name]
    specs = [TensorSpec(names[i] if names else f"output{i}", *spec) for i, spec in enumerate(shapes)]
    random = np.random.default_rng(1)
    values = [
        random.integers(0, 9, shape) if kind == "int64" else random.random(shape, np.float32) for shape, kind in shapes
    ]
    return Layout(tuple(specs), (SIDE, SIDE), metadata, task), values


@pytest.mark.parametrize("name", CASES)
def test_no_disagreement_does_more_than_raise_a_model_error(name: str) -> None:
    layout, values = layout_of(name)
    with detector(layout, values) as sound:
        sound.detect([FRAME])
    refused = []
    for position, value in enumerate(values):
        for axis in range(value.ndim):
            for size in (0, 1, value.shape[axis] // 2, value.shape[axis] + 1):
                index = np.arange(size) % max(value.shape[axis], 1)
                changed = [*values[:position], value.take(index, axis), *values[position + 1 :]]
                try:
                    with detector(layout, changed) as one:
                        one.detect([FRAME])
                except ModelError as error:
                    refused.append(str(error))
    assert refused
    assert all(f"head {name} cannot decode" in text for text in refused)


@pytest.mark.parametrize(
    ("name", "position", "axis", "size"),
    [
        pytest.param("yolo_segment", 1, 1, 64, id="prototypes"),
        pytest.param("detr_logits", 0, 1, 30, id="queries"),
        pytest.param("torchvision", 2, 0, 8, id="scores"),
    ],
)
def test_sizes_that_do_not_go_together_fit_no_head(name: str, position: int, axis: int, size: int) -> None:
    layout, _ = layout_of(name)
    specs = list(layout.outputs)
    shape = list(specs[position].shape)
    shape[axis] = size
    specs[position] = TensorSpec(specs[position].name, tuple(shape), specs[position].dtype)
    with pytest.raises(ModelError, match="fit no known head"):
        choose_family(Layout(tuple(specs), layout.size_hw, layout.metadata, layout.task))
