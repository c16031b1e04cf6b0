"""Attacks by gradients on the released file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ModelError
from pipelines.learning.classic.crops import read_crops
from pipelines.learning.classic.graph import GraphBuilder
from pipelines.learning.classic.train import ClassicOptions, train_classic
from pipelines.learning.testing.attack import attack

pytest.importorskip("torch", reason='torch is missing: pip install "framewire[train]"')
pytest.importorskip("sklearn", reason='scikit-learn is missing: pip install "framewire[classic]"')


@pytest.fixture(scope="module")
def model(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacked") / "m.onnx"
    train_classic(digits, out, ClassicOptions("hog-svm", size=16))
    return out


def test_the_graph_in_torch_gives_what_the_engine_gives_and_an_attack_lowers_it(model: Path, digits: Path) -> None:
    from engine.detection.classify import load_classifier

    images, truth = read_crops(digits, holdout=0.25, seed=0).part(test=True)
    images, truth = images[::4], truth[::4]
    with load_classifier(model, backend="onnxruntime") as classifier:
        right = float((classifier.probabilities(images, crop=False).argmax(axis=1) == truth).mean())
    weak, strong = (attack(model, images, truth, epsilon) for epsilon in (1 / 255, 24 / 255))
    assert weak["accuracy"] == strong["accuracy"] == pytest.approx(right, abs=0.02)
    assert weak["accuracy"] >= weak["attacked"] >= strong["attacked"]
    assert strong["attacked"] < weak["accuracy"] - 0.2


def test_a_file_without_gradients_is_refused(model: Path, tmp_path: Path) -> None:
    words = tmp_path / "w.npz"
    words.write_bytes(b"")
    with pytest.raises(ModelError, match="gradients"):
        attack(words, [], np.zeros(0, np.int64), 0.1)
    graph = GraphBuilder()
    mean = graph.node("ReduceMean", graph.node("Sin", "images"), axes=[2, 3], keepdims=0)
    constant = tmp_path / "c.onnx"
    graph.save(constant, (8, 8), mean, 3, {})
    with pytest.raises(ModelError, match="gradients"):
        attack(constant, [np.zeros((8, 8, 3), np.uint8)] * 2, np.zeros(2, np.int64), 0.1)
