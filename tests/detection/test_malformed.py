"""Files that look valid until a runtime loads them: still a `ModelError`, and no crash."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.data import Frame
from engine.detection.load import load_detector
from engine.errors import ModelError
from tests.onnx_models import save_constant_model

FRAME = Frame(np.zeros((90, 120, 3), np.uint8), "a", 0, 0, 0)
BACKENDS = ("openvino", "onnxruntime")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """An OpenVINO folder of a small detector, with a few kilobytes of weights."""
    openvino = pytest.importorskip("openvino", reason="writes the graph: pip install openvino")
    source = save_constant_model(tmp_path / "m.onnx", [np.random.default_rng(0).random((7, 84), np.float32)])
    folder = tmp_path / "m_openvino_model"
    openvino.save_model(openvino.Core().read_model(source), folder / "m.xml", compress_to_fp16=False)
    (folder / "metadata.yaml").write_text("task: detect\nstride: 32\nnames: {0: a, 1: b, 2: c}\n")
    return folder


def detect(model: Path, backend: str) -> None:
    with load_detector(model, backend=backend) as detector:
        detector.detect([FRAME])


def test_the_graph_that_the_others_are_made_from_works(graph: Path) -> None:
    detect(graph, "openvino")


@pytest.mark.parametrize("kept", [0, 100, -1], ids=["no weights", "a part of the weights", "one byte short"])
def test_weights_that_do_not_fit_their_graph_are_a_model_error(graph: Path, kept: int) -> None:
    weights = graph / "m.bin"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"m\.xml"):
        detect(graph, "openvino")


HURT: dict[str, Callable[[str], str]] = {
    "cut in the middle": lambda text: text[: len(text) // 2],
    "unknown operator": lambda text: text.replace('type="Const"', 'type="Destroy"'),
    "negative side": lambda text: text.replace("<dim>64</dim>", "<dim>-7</dim>"),
    "absurd image": lambda text: text.replace("<dim>64</dim>", "<dim>1000000</dim>"),
    "weights beyond the file": lambda text: re.sub(r'offset="\d+"', 'offset="999999999999"', text),
    "weights of all memory": lambda text: re.sub(r' size="\d+"', ' size="18446744073709551615"', text),
    "a layer twice": lambda text: text.replace('id="1"', 'id="0"'),
    "no edges": lambda text: re.sub(r"<edges>.*</edges>", "<edges/>", text, flags=re.DOTALL),
}


@pytest.mark.parametrize("name", HURT)
def test_a_graph_that_cannot_be_is_a_model_error(graph: Path, name: str) -> None:
    path = graph / "m.xml"
    text = path.read_text()
    path.write_text(HURT[name](text))
    assert path.read_text() != text
    with pytest.raises(ModelError, match=r"m\.xml"):
        detect(graph, "openvino")


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_hurt_file_does_more_than_raise_a_model_error(tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend)
    content = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)]).read_bytes()
    chance = random.Random(3)
    path = tmp_path / "hurt.onnx"
    refused = 0
    for _ in range(60):
        hurt = bytearray(content)
        for _ in range(chance.randrange(1, 8)):
            hurt[chance.choice([chance.randrange(200), len(hurt) - 1 - chance.randrange(200)])] = chance.randrange(256)
        path.write_bytes(bytes(hurt))
        try:
            detect(path, backend)
        except ModelError:
            refused += 1
    assert refused > 10


def test_no_hurt_graph_does_more_than_raise_a_model_error(graph: Path, tmp_path: Path) -> None:
    text = (graph / "m.xml").read_text()
    chance = random.Random(4)
    refused = 0
    for number in range(40):
        folder = shutil.copytree(graph, tmp_path / f"{number}_openvino_model")
        hurt = list(text)
        for _ in range(chance.randrange(1, 6)):
            hurt[chance.randrange(len(hurt))] = chance.choice('0123456789abc-,"')
        (folder / "m.xml").write_text("".join(hurt))
        try:
            detect(folder, "openvino")
        except ModelError:
            refused += 1
    assert refused > 10
