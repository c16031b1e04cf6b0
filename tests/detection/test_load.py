from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine.backends.files.base import read_model_file
from engine.data import Frame
from engine.detection.load import class_ids, load_detector
from engine.detection.model import image_size
from engine.errors import ConfigError, ModelError
from tests.onnx_models import save_constant_model, save_model

NAMES = ("person", "bicycle", "traffic light")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(["person"], [0], id="name"),
        pytest.param(["Traffic Light", "PERSON"], [2, 0], id="any case, in the order given"),
        pytest.param([1, "2"], [1, 2], id="numbers"),
        pytest.param([], [], id="none"),
    ],
)
def test_classes_are_given_by_name_or_number(given: list[str | int], expected: list[int]) -> None:
    assert class_ids(given, NAMES) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(["persn"], 'unknown class "persn": did you mean person', id="close name"),
        pytest.param(["zebra"], "the model has person, bicycle, traffic light", id="far name"),
        pytest.param([3], 'unknown class "3"', id="number too large"),
        pytest.param([-1], 'unknown class "-1"', id="negative"),
    ],
)
def test_an_unknown_class_is_refused_with_what_is_known(given: list[str | int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_ids(given, NAMES)


def test_a_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a list"):
        class_ids("person", NAMES)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_outputs_without_a_batch_axis_are_of_one_image(tmp_path: Path, backend: str) -> None:
    """A TorchVision export with an open batch axis: boxes of two images would all be the first one's."""
    pytest.importorskip(backend)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "ten"], ["scores"]),
        helper.make_node("Ceil", ["mean"], ["one"]),
        helper.make_node("Cast", ["one"], ["labels"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("Add", ["column", "corners"], ["boxes"]),
    ]
    weights = {"ten": np.float32(10), "axis": np.array([1]), "corners": np.float32([[1, 2, 30, 40]])}
    outputs = {"boxes": ("n", 4), "labels": ("n",), "scores": ("n",)}
    model = onnx.load(save_model(tmp_path / "tv.onnx", nodes, {"images": ("b", 3, 64, 64)}, outputs, weights))
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, str(tmp_path / "tv.onnx"))
    frames = [Frame(np.full((64, 64, 3), value, np.uint8), "a", value, 0, 0) for value in (100, 200)]
    with load_detector(tmp_path / "tv.onnx", backend=backend, max_batch=2) as detector:
        found = detector.detect(frames)
    assert detector.max_batch == 1
    np.testing.assert_allclose([one.xyxy[0, 0] for one in found], [1 + 100 / 255, 1 + 200 / 255], atol=1e-3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)], metadata={"task": "detect"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"score_threshold": 1.5}, "score_threshold is 1.5", id="score"),
        pytest.param({"iou_threshold": -0.1}, "iou_threshold is -0.1", id="overlap"),
        pytest.param({"backend": "caffe"}, 'unknown backend "caffe": expected auto', id="backend"),
        pytest.param({"size": 128}, "exported for 64 x 64 only", id="size"),
        pytest.param({"mean": [1.0, 2.0]}, "mean is .*expected three numbers", id="mean"),
        pytest.param({"std": [1.0, 0.0, 1.0]}, "std without 0", id="std"),
        pytest.param({"color": "hsv"}, 'color "hsv"', id="color"),
        pytest.param({"letterbox": "left"}, 'letterbox "left"', id="letterbox"),
        pytest.param({"max_batch": 0}, "max_batch is 0", id="batch"),
        pytest.param({"performance": "fast"}, 'performance is "fast"', id="performance"),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(model: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_detector(model, **options)  # type: ignore[arg-type]


def test_an_unknown_head_names_the_known_ones(model: Path) -> None:
    with pytest.raises(ModelError, match="expected .*yolox"):
        load_detector(model, head="ssd_of_mine")


def test_a_head_that_does_not_fit_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match=r"head end_to_end expects \(b, rows, 6\)"):
        load_detector(model, head="end_to_end")


def test_the_families_own_overlap_is_the_default(model: Path) -> None:
    assert load_detector(model).iou_threshold == 0.7


def test_what_the_file_does_not_say_can_be_given(model: Path) -> None:
    facts = load_detector(
        model, color="bgr", mean=[1, 2, 3], std=[4, 5, 6], letterbox="stretch", names=["a", "b", "c"]
    ).facts
    assert (facts.image.color, facts.image.mean, facts.image.std) == ("bgr", (1, 2, 3), (4, 5, 6))
    assert facts.family.anchor == "stretch"
    assert facts.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("output", "side", "size", "expected"),
    [
        pytest.param((3, 84), 64, None, (64, 64), id="head that nobody knows"),
        pytest.param((3, 84), "open", None, (640, 640), id="the same with open sides"),
        pytest.param((3, 84), "open", (96, 128), (96, 128), id="as asked for"),
        pytest.param((10,), "open", None, (224, 224), id="classifier"),
    ],
)
def test_the_size_of_images_is_known_of_any_model(
    tmp_path: Path,
    output: tuple[int, ...],
    side: int,
    size: tuple[int, int] | None,
    expected: tuple[int, int],
) -> None:
    model = save_constant_model(tmp_path / "m.onnx", [np.zeros(output, np.float32)], side)
    assert image_size(read_model_file(model), size) == expected


def test_a_size_that_a_model_does_not_have_is_refused(tmp_path: Path) -> None:
    model = save_constant_model(tmp_path / "m.onnx", [np.zeros((3, 84), np.float32)], 64)
    with pytest.raises(ConfigError, match=r"m\.onnx: size 96 x 96: the model was exported for 64 x 64 only"):
        image_size(read_model_file(model), 96)
