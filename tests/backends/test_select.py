from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import registry
from engine.assets import demo_model
from engine.backends import select
from engine.backends.select import BACKENDS, REMOTE, create_backend, select_backend, why_not
from engine.errors import ConfigError, MissingDependencyError

HERE = Path("model.onnx")


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Let some packages look as if they were not installed."""
    installed = select.importlib.util.find_spec
    monkeypatch.setattr(
        select.importlib.util, "find_spec", lambda name: None if name in missing else installed(name) or object()
    )


def test_openvino_is_the_choice_for_onnx_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    name, reason = select_backend(HERE)
    assert name == "openvino"
    assert reason.startswith("the fastest on an x86-64 CPU")


def test_onnx_runtime_steps_in_and_the_reason_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino", "tensorrt", "tensorrt_rtx")
    name, reason = select_backend(HERE)
    assert name == "onnxruntime"
    assert "openvino is not usable: not installed (pip install openvino)" in reason


def test_without_any_backend_every_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx")
    with pytest.raises(ConfigError, match=r"pip install openvino.*pip install onnxruntime"):
        select_backend(HERE)


def test_a_plan_needs_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    with pytest.raises(ConfigError, match=r"tensorrt is not usable.*\[tensorrt\]"):
        select_backend(Path("model.plan"))


def test_a_named_backend_is_taken_as_asked() -> None:
    assert select_backend(HERE, "onnxruntime") == ("onnxruntime", "requested")


def test_a_named_backend_that_cannot_read_the_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"onnxruntime does not run model.xml: use openvino"):
        select_backend(Path("model.xml"), "onnxruntime")


def test_tensorrt_takes_onnx_for_it_builds_a_plan_of_it() -> None:
    assert select_backend(HERE, "tensorrt") == ("tensorrt", "requested")
    with pytest.raises(ConfigError, match=r"tensorrt does not run model.xml: use openvino"):
        select_backend(Path("model.xml"), "tensorrt")


def test_a_file_that_no_backend_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no backend runs .weights files"):
        select_backend(Path("model.weights"))


def test_a_backend_is_not_usable_for_files_that_it_does_not_run() -> None:
    assert why_not("onnxruntime", Path("model.tflite")) == "does not run .tflite files"
    assert why_not("onnxruntime", Path("model.ONNX")) == why_not("onnxruntime")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="expected auto, tensorrt, openvino, onnxruntime"):
        why_not("caffe")


def test_every_row_says_how_to_install_it() -> None:
    assert all(entry.install and ":" in entry.target for entry in BACKENDS.values())
    assert [name for name, entry in BACKENDS.items() if not entry.suffixes] == [REMOTE]  # its models are no files


def test_a_missing_package_is_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from engine.backends.base import BackendOptions

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match="--backend onnxruntime"):
        create_backend("openvino", HERE, BackendOptions()).open()


def save_dynamic(path: Path) -> Path:
    """Write a graph with one layer of dynamic quantisation."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["images"], ["pixels", "scale", "zero"]),
        helper.make_node("ConvInteger", ["pixels", "weights", "zero"], ["sums"]),
    ]
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    sums = helper.make_tensor_value_info("sums", onnx.TensorProto.INT32, [1, 2, 8, 8])
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.uint8), "weights")
    graph = helper.make_graph(nodes, "test", [images], [sums], initializer=[weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_dynamic_quantisation_goes_to_onnx_runtime_and_the_reason_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    model = save_dynamic(tmp_path / "m.onnx")
    name, reason = select_backend(model)
    assert name == "onnxruntime"
    assert "openvino computes dynamic quantisation in FP32" in reason
    assert select_backend(model, "openvino") == ("openvino", "requested")
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "onnxruntime")
    assert select_backend(model)[0] == "openvino"


def test_a_file_that_cannot_be_read_is_left_to_whoever_loads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without(monkeypatch, "tensorrt", "tensorrt_rtx")
    broken = tmp_path / "m.onnx"
    broken.write_bytes(b"not a model")
    assert select_backend(broken)[0] == "openvino"


def test_a_model_for_a_built_in_backend_needs_no_metadata_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading that of all packages takes longer than anything else in the choice of a backend."""

    def unexpected(path: tuple[str, ...]) -> None:
        raise AssertionError("the metadata of all packages was read")

    monkeypatch.setattr(registry, "_installed", unexpected)
    assert select_backend(demo_model())[0] in BACKENDS
    with pytest.raises(AssertionError, match="metadata"):
        select_backend(Path("model.unknown"))
