"""Models in the layout of a hub's cache: every file a link to one elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.backends.base import BackendOptions
from engine.backends.files.base import read_model_file
from engine.backends.linked import real_files
from engine.backends.openvino import OpenVinoBackend

onnx = pytest.importorskip("onnx", reason="pip install onnx")
pytest.importorskip("openvino", reason="pip install openvino")


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Return a model with external weights, both as symbolic links."""
    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    info = [onnx.helper.make_tensor_value_info(name, 1, (1, 64)) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    onnx.save(model, str(blobs / "m"), save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    os.rename(blobs / "model.onnx_data", blobs / "d")
    (snapshot / "model.onnx").symlink_to(blobs / "m")
    (snapshot / "model.onnx_data").symlink_to(blobs / "d")
    (snapshot / "other.bin").symlink_to(blobs / "d")
    return snapshot / "model.onnx"


def test_openvino_runs_a_model_behind_links(linked: Path) -> None:
    assert read_model_file(linked).inputs[0].name == "x"
    backend = OpenVinoBackend(linked, BackendOptions())
    backend.open()
    backend.close()


def test_only_what_the_model_names_is_linked_and_nothing_stays(linked: Path) -> None:
    with real_files(linked) as path:
        assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx_data"]
        assert not any(file.is_symlink() for file in path.parent.iterdir())
        folder = path.parent
    assert not folder.exists()
    assert sorted(file.name for file in (linked.parents[2] / "blobs").iterdir()) == ["d", "m"]


def test_a_model_without_links_is_read_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"weights")
    with real_files(file) as path:
        assert path == file
