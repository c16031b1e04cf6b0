"""The Darknet converter against OpenCV's reader (golden file) and against a plain numpy forward pass."""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from engine.errors import ModelError
from tools.make.make_darknet_golden import (
    EVERY_SECTION,
    EVERY_SECTION_WEIGHT_COUNT,
    GOLDEN,
    made_up_input,
    made_up_numbers,
    trained_cfg,
    weights_file,
)
from tools.onnx_from_darknet import main, onnx_from_darknet, read_weights, sections_from_cfg

NAMES = ("cat", "dog")
Array = NDArray[np.float32]


def outputs_of(model: onnx.ModelProto | Path, images: Array) -> list[Array]:
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {"images": images})]


def numbers() -> Array:
    return made_up_numbers(EVERY_SECTION_WEIGHT_COUNT, 1)


class PlainDarknet:
    """Darknet's forward pass section by section, written from its C sources with nothing folded."""

    def __init__(self, cfg: str, values: Array) -> None:
        self.sections = sections_from_cfg(cfg)[1:]
        self.values = values.astype(np.float64)
        self.position = 0

    def take(self, count: int) -> NDArray[np.float64]:
        self.position += count
        return self.values[self.position - count : self.position]

    def convolution(self, x: NDArray[np.float64], filters: int, size: int, stride: int, padding: int, normalised: bool):
        bias = self.take(filters)
        gamma, mean, variance = (self.take(filters) if normalised else None for _ in range(3))
        weights = self.take(filters * len(x) * size * size).reshape(filters, -1)
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        out = np.einsum("of,fhw->ohw", weights, np.moveaxis(windows, (3, 4), (1, 2)).reshape(-1, *windows.shape[1:3]))
        if gamma is not None and mean is not None and variance is not None:
            out = (out - mean[:, None, None]) / (np.sqrt(variance) + 1e-6)[:, None, None] * gamma[:, None, None]
        return out + bias[:, None, None]

    @staticmethod
    def maxpool(x: NDArray[np.float64], size: int, stride: int) -> NDArray[np.float64]:
        height, width = ((side - 1) // stride + 1 for side in x.shape[1:])
        begin = (size - 1) // 2
        out = np.full((len(x), height, width), -np.inf)
        for row in range(height):
            for column in range(width):
                top, left = row * stride - begin, column * stride - begin
                window = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
                out[:, row, column] = window.max(axis=(1, 2))
        return out

    def layer(self, section, done: list[NDArray[np.float64]], x: NDArray[np.float64]) -> NDArray[np.float64]:
        options = section.options
        if section.kind == "convolutional":
            size, stride = int(options["size"]), int(options["stride"])
            padding = size // 2 if options.get("pad") == "1" else 0
            x = self.convolution(x, int(options["filters"]), size, stride, padding, "batch_normalize" in options)
            return np.where(x > 0, x, 0.1 * x) if options["activation"] == "leaky" else x
        if section.kind == "maxpool":
            return self.maxpool(x, int(options["size"]), int(options["stride"]))
        if section.kind == "shortcut":
            return x + done[int(options["from"])]
        if section.kind == "upsample":
            return x.repeat(int(options["stride"]), 1).repeat(int(options["stride"]), 2)
        if section.kind == "route":
            parts = [done[int(index)] for index in options["layers"].split(",")]
            groups, chosen = int(options.get("groups", 1)), int(options.get("group_id", 0))
            return np.concatenate([np.split(part, groups)[chosen] for part in parts])
        return x

    def outputs(self, image: Array) -> list[NDArray[np.float64]]:
        done: list[NDArray[np.float64]] = []
        for section in self.sections:
            done.append(self.layer(section, done, done[-1] if done else image.astype(np.float64)))
        return [x for x, section in zip(done, self.sections, strict=True) if section.kind == "yolo"]


def test_every_section_equals_what_opencv_computes():
    golden = np.load(GOLDEN)
    model = onnx_from_darknet(EVERY_SECTION, numbers(), NAMES, weights_dtype="float32")
    for index, output in enumerate(outputs_of(model, made_up_input())):
        np.testing.assert_allclose(output, golden[f"made_up_{index}"], rtol=2e-5, atol=2e-4)


def test_every_section_equals_a_plain_forward_pass():
    model = onnx_from_darknet(EVERY_SECTION, numbers(), NAMES, weights_dtype="float32")
    expected = PlainDarknet(EVERY_SECTION, numbers()).outputs(made_up_input()[0])
    for output, plain in zip(outputs_of(model, made_up_input()), expected, strict=True):
        np.testing.assert_allclose(output[0], plain, rtol=1e-5, atol=1e-4)


def test_both_signs_reach_the_leaky_activations():
    convolution = PlainDarknet(EVERY_SECTION, numbers())
    first = convolution.convolution(made_up_input()[0].astype(np.float64), 8, 3, 1, 1, True)
    assert (first < 0).mean() > 0.05
    assert (first > 0).mean() > 0.05


def test_a_batch_gives_what_each_image_gives_alone():
    model = onnx_from_darknet(EVERY_SECTION, numbers(), NAMES)
    one, other = made_up_input(), -made_up_input()
    both = outputs_of(model, np.concatenate((one, other)))
    for output, first, second in zip(both, outputs_of(model, one), outputs_of(model, other), strict=True):
        np.testing.assert_allclose(output, np.concatenate((first, second)), rtol=1e-4, atol=1e-4)


def test_fp16_storage_halves_the_file_and_hardly_moves_the_output():
    whole = onnx_from_darknet(EVERY_SECTION, numbers(), NAMES, weights_dtype="float32")
    half = onnx_from_darknet(EVERY_SECTION, numbers(), NAMES)
    stored = {tensor.data_type for tensor in half.graph.initializer if tensor.name.endswith("weight")}
    assert stored == {onnx.TensorProto.FLOAT16}
    for output, expected in zip(outputs_of(half, made_up_input()), outputs_of(whole, made_up_input()), strict=True):
        assert np.abs(output - expected).max() < 2e-3 * np.abs(expected).max()  # FP16 keeps 11 bits


def test_metadata_says_how_to_decode():
    model = onnx_from_darknet(EVERY_SECTION, numbers(), NAMES, metadata={"license": "ours"})
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert literal_eval(metadata["names"]) == {0: "cat", 1: "dog"}
    assert literal_eval(metadata["imgsz"]) == [36, 52]
    assert literal_eval(metadata["anchors"]) == [[[8, 9], [14, 11]], [[3, 5]]]
    assert (metadata["task"], metadata["head"], metadata["license"]) == ("detect", "darknet_yolov3", "ours")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(("[net]", "[convolutional]"), "does not begin with", id="no net section"),
        pytest.param(("[shortcut]", "[dropout]"), r"\[dropout\] is not supported", id="unknown section"),
        pytest.param(("activation=leaky", "activation=swish"), "swish", id="unknown activation"),
        pytest.param(("layers=-1,1", "layers=-1,40"), "not before it", id="route to nowhere"),
        pytest.param(("layers=-1,1", "layers=-1,2"), "differ in size", id="route of different sizes"),
        pytest.param(("from=-2", "from=-4"), "only equal shapes", id="shortcut of different shapes"),
        pytest.param(("num=3", "num=3\nscale_x_y=1.05"), "scale_x_y", id="scaled yolo"),
        pytest.param(("mask=1,2", "mask=1"), "needs 7 channels", id="channels and anchors differ"),
        pytest.param(("mask=1,2\n", "\n"), "has no mask", id="yolo without mask"),
        pytest.param(("filters=8", "filters"), "neither", id="line without a value"),
        pytest.param(("[yolo]", "[route]\nlayers=-1"), r"no \[yolo\]", id="no detector"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(change: tuple[str, str], message: str):
    with pytest.raises(ModelError, match=message):
        onnx_from_darknet(EVERY_SECTION.replace(*change), numbers(), NAMES)


def test_weights_that_end_too_early_are_refused():
    with pytest.raises(ModelError, match="the cfg needs 3 more"):
        onnx_from_darknet(EVERY_SECTION, numbers()[:-3], NAMES)


def test_left_over_weights_are_refused():
    with pytest.raises(ModelError, match="3 numbers of the weights are left over"):
        onnx_from_darknet(EVERY_SECTION, made_up_numbers(EVERY_SECTION_WEIGHT_COUNT + 3, 1), NAMES)


def test_class_names_must_fit_the_network():
    with pytest.raises(ModelError, match=r"3 class names for a network of \[2\] classes"):
        onnx_from_darknet(EVERY_SECTION, numbers(), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "too short", id="empty"),
        pytest.param(b"not a weights file, but text", "claims version", id="text"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "some.weights"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(path)


def test_the_command_line_converts_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cfg, weights, names, output = (tmp_path / name for name in ("a.cfg", "a.weights", "a.names", "a.onnx"))
    cfg.write_text(EVERY_SECTION)
    weights.write_bytes(weights_file(numbers()))
    names.write_text("cat\ndog\n")
    arguments = [str(cfg), str(weights), "--names", str(names), "--output", str(output), "--meta", "origin=here"]
    assert main(arguments) == 0
    assert "a.onnx" in capsys.readouterr().out
    assert [len(result[0]) for result in outputs_of(output, made_up_input())] == [14, 7]


def test_the_command_line_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "no.cfg"), "no.weights", "--names", "no.names", "--output", "no.onnx"])
    assert stop.value.code == 1
    assert "no.cfg" in capsys.readouterr().err


def test_the_fine_scale_gets_the_anchors_it_was_trained_with():
    cfg = "[yolo]\nmask = 3,4,5\n[yolo]\nmask = 0,1,2\n"
    assert trained_cfg(cfg) == "[yolo]\nmask = 3,4,5\n[yolo]\nmask = 1,2,3\n"
    with pytest.raises(ValueError, match="no mask=0,1,2"):
        trained_cfg(trained_cfg(cfg))
