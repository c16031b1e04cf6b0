"""FP16 and INT8 written into the ONNX: same tensors outside, close numbers, reduced arithmetic inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.assets import demo_model
from engine.backends.tensorrt.precision import fold_weight_casts, tail_nodes, with_precision
from engine.errors import ConfigError, ModelError
from tests.onnx_models import save_model

Array = NDArray[np.float32]
SIDE = 16


def save_small_network(path: Path, *, huge_weight: bool = False) -> Path:
    """Two convolutions, a resize, a shortcut, and arithmetic on their result as a head has it."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["images", "w0", "b0"], ["c0"], pads=[1] * 4, strides=[2, 2], name="first"),
        helper.make_node("Sigmoid", ["c0"], ["s0"]),
        helper.make_node("Mul", ["c0", "s0"], ["a0"]),
        helper.make_node("Resize", ["a0", "", "scales"], ["r0"], mode="nearest"),
        helper.make_node("Constant", [], ["half"], value=onnx.numpy_helper.from_array(np.float32([0.5]))),
        helper.make_node("Mul", ["r0", "half"], ["r1"]),
        helper.make_node("Conv", ["r1", "w1"], ["c1"], pads=[1] * 4, name="second"),
        helper.make_node("Add", ["c1", "grid"], ["moved"]),
        helper.make_node("Mul", ["moved", "stride"], ["boxes"]),
        helper.make_node("ReduceMean", ["c1"], ["means"], axes=[2, 3], keepdims=0),
    ]
    weights = {
        "w0": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "b0": rng.normal(0, 0.1, 8).astype(np.float32),
        "w1": rng.normal(0, 0.2, (4, 8, 3, 3)).astype(np.float32) * (1e6 if huge_weight else 1),
        "scales": np.float32([1, 1, 2, 2]),
        "grid": np.arange(SIDE, dtype=np.float32).reshape(1, 1, 1, SIDE),
        "stride": np.float32(32),
    }
    outputs = {"boxes": ("batch", 4, SIDE, SIDE), "means": ("batch", 4)}
    return save_model(path, nodes, {"images": ("batch", 3, SIDE, SIDE)}, outputs, weights)


def run(content: bytes | Path, images: Array) -> list[Array]:
    model = content if isinstance(content, bytes) else str(content)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {session.get_inputs()[0].name: images})]


def pictures(seed: int, count: int = 1, side: int = SIDE) -> Array:
    return np.random.default_rng(seed).random((count, 3, side, side)).astype(np.float32)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    return {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}


def test_fp32_is_the_file_as_it_is(tmp_path: Path):
    path = save_small_network(tmp_path / "small.onnx")
    assert with_precision(path, "fp32") == (path.read_bytes(), {})


def test_fp16_keeps_inputs_and_outputs_and_the_numbers(tmp_path: Path):
    path = save_small_network(tmp_path / "small.onnx")
    content, counts = with_precision(path, "fp16")
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}
    assert counts == {"fp32_nodes": 3}
    for output, expected in zip(run(content, pictures(1, 2)), run(path, pictures(1, 2)), strict=True):
        np.testing.assert_allclose(output, expected, rtol=2e-3, atol=0.1)  # 11 bits, times the stride of 32


def test_fp16_computes_the_bulk_in_fp16_and_the_tail_in_fp32(tmp_path: Path):
    path = save_small_network(tmp_path / "small.onnx")
    model = onnx.load_from_string(with_precision(path, "fp16")[0])
    types = types_of(model)
    produced = {node.op_type: types[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}
    assert produced["Conv"] == produced["Sigmoid"] == produced["Resize"] == TensorProto.FLOAT16
    assert produced["Add"] == produced["ReduceMean"] == TensorProto.FLOAT
    stored = Counter(tensor.data_type for tensor in model.graph.initializer)
    assert stored[TensorProto.FLOAT16] == 4  # two weights, a bias, the constant
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 2  # in at the front, out once for three readers


def test_a_weight_beyond_fp16_keeps_its_node_in_fp32(tmp_path: Path):
    path = save_small_network(tmp_path / "huge.onnx", huge_weight=True)
    content, _ = with_precision(path, "fp16")
    types = types_of(onnx.load_from_string(content))
    assert types["c0"] == TensorProto.FLOAT16
    assert types["c1"] == TensorProto.FLOAT
    for output, expected in zip(run(content, pictures(2)), run(path, pictures(2)), strict=True):
        np.testing.assert_allclose(output, expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max())


def test_fp16_of_the_demo_model_is_close(tmp_path: Path):
    content, _ = with_precision(demo_model(), "fp16")
    images = pictures(4, side=416)
    for output, expected in zip(run(content, images), run(demo_model(), images), strict=True):
        np.testing.assert_allclose(output, expected, atol=0.05)


def test_fp16_of_yolov8n_moves_no_box_by_much(data_dir: Path):
    path = data_dir / "models" / "yolov8n_fp32_dequantised.onnx"
    content, _ = with_precision(path, "fp16")
    images = np.zeros((1, 3, 640, 640), np.float32)
    images[:, :, 80:560] = np.repeat(pictures(5, side=480)[:, :, :, :480], 2, axis=3)[..., :640]
    output, expected = run(content, images)[0], run(path, images)[0]
    assert np.abs(output[:, 4:] - expected[:, 4:]).max() < 0.02


def test_weights_stored_in_fp16_are_unfolded_before_the_conversion():
    model = onnx.load(demo_model())
    casts = sum(node.op_type == "Cast" for node in model.graph.node)
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    fold_weight_casts(model)
    assert casts > 0
    assert not any(node.op_type == "Cast" for node in model.graph.node)
    onnx.checker.check_model(model)


@pytest.mark.parametrize("keeps_outside", [pytest.param(True, id="FP32 outside"), pytest.param(False, id="FP16")])
def test_a_model_exported_in_fp16_computes_in_fp32_what_must(tmp_path: Path, keeps_outside: bool):
    """Ultralytics writes FP16 models with FP32 inputs and outputs; what we keep FP32 gives FP32 to what follows it."""
    nodes = [
        helper.make_node("Cast", ["images"], ["in"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["in", "w"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Exp", ["c"], ["d"]),
        *([helper.make_node("Cast", ["d"], ["out"], to=TensorProto.FLOAT)] if keeps_outside else []),
    ]
    weights = {"w": np.random.default_rng(2).normal(0, 0.2, (3, 3, 1, 1)).astype(np.float16)}
    result = "out" if keeps_outside else "d"
    path = save_model(tmp_path / "half.onnx", nodes, {"images": (1, 3, 8, 8)}, {result: (1, 3, 8, 8)}, weights)
    model = onnx.load(path)
    if not keeps_outside:
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        onnx.save(model, path)
    content, _ = with_precision(path, "fp16")
    types_of(onnx.load_from_string(content))
    output, expected = run(content, pictures(4, side=8))[0], run(path, pictures(4, side=8))[0]
    np.testing.assert_allclose(output, expected, rtol=0.01)


def test_the_tail_is_what_no_convolution_follows(tmp_path: Path):
    model = onnx.load(save_small_network(tmp_path / "small.onnx"))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    assert tail_nodes(model) == ["moved", "boxes", "means"]


def test_int8_quantises_all_convolutions_but_the_last(tmp_path: Path):
    path = save_small_network(tmp_path / "small.onnx")
    content, counts = with_precision(path, "int8", (pictures(seed) for seed in range(8)))
    assert counts == {"quantised_nodes": 1, "calibration_batches": 8}
    model = onnx.load_from_string(content)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["QuantizeLinear"] >= 1
    assert operators["DequantizeLinear"] >= 2
    zero_points = [tensor for tensor in model.graph.initializer if "zero_point" in tensor.name]
    assert zero_points
    for tensor in zero_points:
        assert tensor.data_type == TensorProto.INT8
        assert not onnx.numpy_helper.to_array(tensor).any()
    for output, expected in zip(run(content, pictures(9)), run(path, pictures(9)), strict=True):
        assert np.abs(output - expected).max() < 0.1 * np.abs(expected).max()


def test_int8_without_images_says_what_it_needs(tmp_path: Path):
    path = save_small_network(tmp_path / "small.onnx")
    with pytest.raises(ConfigError, match="calibration"):
        with_precision(path, "int8", ())


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_quantised_model_is_not_converted_again(tmp_path: Path, precision: str):
    nodes = [helper.make_node("DynamicQuantizeLinear", ["images"], ["q", "s", "z"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["out"]))
    path = save_model(tmp_path / "q.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8)})
    with pytest.raises(ModelError, match=r"quantised already \(DynamicQuantizeLinear\)"):
        with_precision(path, precision, one_picture())  # type: ignore[arg-type]


def one_picture() -> Iterator[Array]:
    yield pictures(0, side=8)


def test_garbage_is_a_model_error(tmp_path: Path):
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        with_precision(path, "fp16")


def test_branches_stay_fp32(tmp_path: Path):
    then_branch, else_branch = (
        helper.make_graph(
            [helper.make_node("Identity", ["images"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("yes", "no")
    )
    nodes = [
        helper.make_node("Constant", [], ["condition"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["condition"], ["out"], then_branch=then_branch, else_branch=else_branch),
    ]
    path = save_model(tmp_path / "if.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8)})
    with pytest.raises(ModelError, match="branches or loops"):
        with_precision(path, "fp16")


def save_norm(path: Path, epsilon: float) -> Path:
    """A convolution, a layer norm written out, `(x - mean) / sqrt(var + epsilon)`, and a convolution."""
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["c0"], pads=[1] * 4, name="first"),
        helper.make_node("ReduceMean", ["c0"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["c0", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[1], keepdims=1),
        helper.make_node("Add", ["variance", "epsilon"], ["guarded"], name="guard"),
        helper.make_node("Sqrt", ["guarded"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normed"]),
        helper.make_node("Conv", ["normed", "w1"], ["out"], pads=[1] * 4, name="second"),
    ]
    weights = {
        "w0": np.full((4, 3, 3, 3), 0.1, np.float32),
        "w1": np.full((2, 4, 3, 3), 0.1, np.float32),
        "epsilon": np.float32([epsilon]),
    }
    shape = ("batch", 3, SIDE, SIDE)
    return save_model(path, nodes, {"images": shape}, {"out": ("batch", 2, SIDE, SIDE)}, weights)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-8, 1e-5, 1e-3])
def test_a_small_epsilon_is_not_lost_in_fp16(tmp_path: Path, epsilon: float) -> None:
    """On a flat image the variance is 0, and an epsilon that rounds to 0 in FP16 makes 0 / 0."""
    path = save_norm(tmp_path / "norm.onnx", epsilon)
    flat = np.full((1, 3, SIDE, SIDE), 0.5, np.float32)
    content, _ = with_precision(path, "fp16")
    assert np.isfinite(run(path, flat)[0]).all()
    assert np.isfinite(run(content, flat)[0]).all()
    np.testing.assert_allclose(run(content, pictures(1))[0], run(path, pictures(1))[0], atol=0.05)


def test_an_ordinary_epsilon_leaves_the_norm_in_fp16(tmp_path: Path) -> None:
    kinds = {
        epsilon: {
            node.op_type: node.input[0]
            for node in onnx.load_from_string(
                with_precision(save_norm(tmp_path / "n.onnx", epsilon), "fp16")[0]
            ).graph.node
        }
        for epsilon in (1e-3, 1e-12)
    }
    assert kinds[1e-3]["Sqrt"] == "guarded"
    assert kinds[1e-3]["Div"] == kinds[1e-12]["Div"].removesuffix("_float_in")


@pytest.mark.parametrize("opset", [17, 20])
def test_what_is_not_int8_computes_in_fp16(tmp_path: Path, opset: int) -> None:
    model = onnx.load(str(save_small_network(tmp_path / "small.onnx")))
    model = onnx.version_converter.convert_version(model, opset) if opset < 18 else model
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    content, counts = with_precision(path, "int8", [pictures(seed) for seed in range(4)])
    assert counts["quantised_nodes"] >= 1
    quantised = onnx.load_from_string(content)
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in onnx.shape_inference.infer_shapes(quantised).graph.value_info
    }
    sigmoid = next(node for node in quantised.graph.node if node.op_type == "Sigmoid")
    assert types[sigmoid.output[0]] == TensorProto.FLOAT16
    assert not [node for node in quantised.graph.node if node.op_type == "Cast" and "Dequantize" in node.input[0]]
    for found, expected in zip(run(content, pictures(9)), run(path, pictures(9)), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize(("epsilon", "is_half"), [(1e-5, True), (1e-12, False)])
def test_a_norm_whose_epsilon_is_zero_in_fp16_stays_fp32(tmp_path: Path, epsilon: float, is_half: bool) -> None:
    ones = np.ones(3, np.float32)
    nodes = [
        helper.make_node("InstanceNormalization", ["images", "one", "one"], ["normed"], epsilon=epsilon),
        helper.make_node("Conv", ["normed", "w"], ["out"]),
    ]
    weights = {"one": ones, "w": np.ones((2, 3, 1, 1), np.float32)}
    path = save_model(tmp_path / "n.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 2, 8, 8)}, weights)
    types = types_of(onnx.load_from_string(with_precision(path, "fp16")[0]))
    assert (types["normed"] == TensorProto.FLOAT16) == is_half
