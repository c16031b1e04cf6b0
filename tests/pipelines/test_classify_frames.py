"""Whole-frame classification through pipeline and wire."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pipelines.test_cli import framewire, summary_of


@pytest.fixture
def colour_model(tmp_path: Path) -> Path:
    """A classifier that names the strongest colour of an image."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Mul", ["means", "ten"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", kind, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("scores", kind, [1, 3])],
        [helper.make_tensor("ten", kind, [1], [10.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, value in {"task": "classify", "names": "{0: 'red', 1: 'green', 2: 'blue'}"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(tmp_path / "colours.onnx"))
    return tmp_path / "colours.onnx"


def test_frames_are_named_on_the_wire_and_in_inspect(colour_model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "frames", tmp_path / "out.jsonl"
    folder.mkdir()
    for n, bgr in enumerate([(0, 0, 250), (250, 0, 0), (0, 250, 0)]):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((48, 64, 3), bgr, np.uint8))
    done = framewire(
        "run", "--source", str(folder), "--model", str(colour_model), "--set", "detector.task=classify",
        "--publish", "none", "--jsonl", str(out), "--save", str(tmp_path / "out.mp4"), "--json",
    )  # fmt: skip
    assert summary_of(done)["sources"]["frames"]["published"] == 3
    [objects] = zip(*(json.loads(line)["objects"] for line in out.read_text().splitlines()), strict=True)
    assert [o["class_name"] for o in objects] == ["red", "blue", "green"]
    assert [o["classes"][0]["class_name"] for o in objects] == ["red", "blue", "green"]
    assert all(len(o["classes"]) == 3 and o["xyxy"] == [0, 0, 64, 48] for o in objects)
    facts = summary_of(framewire("inspect", str(colour_model), "--json"))
    assert facts["class_names"] == ["red", "green", "blue"]
