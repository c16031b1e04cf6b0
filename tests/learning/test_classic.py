"""Classifiers without deep training, scored as the engine runs them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.data import Detections, Frame
from engine.detection.classify import load_classifier, load_image_classifier
from engine.detection.second_stage import SecondStage
from engine.errors import ConfigError, ModelError
from pipelines.cli import app
from pipelines.learning.classic.crops import read_crops
from pipelines.learning.classic.graph import GraphBuilder
from pipelines.learning.classic.train import ClassicOptions, run_graph, train_classic
from pipelines.learning.model_facts import facts_of
from pipelines.models.inspect import describe

if find_spec("sklearn") is None:  # to import it takes seconds, in every process that collects
    pytest.skip('scikit-learn is missing: pip install "framewire[classic]"', allow_module_level=True)
onnx = pytest.importorskip("onnx", reason='onnx is missing: pip install "framewire[classic]"')


@pytest.fixture(scope="module")
def hog_model(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    out = tmp_path_factory.mktemp("hog") / "digits.onnx"
    return out, train_classic(digits, out, ClassicOptions("hog-svm")).accuracy


@pytest.fixture(scope="module")
def words_model(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    out = tmp_path_factory.mktemp("words") / "textures.npz"
    return out, train_classic(textures, out, ClassicOptions("sift-words", holdout=1 / 3)).accuracy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random convolutions in the place of a pretrained one: features need not be trained to be useful."""
    rng, graph, name = np.random.default_rng(0), GraphBuilder(), "images"
    for before, after in ((3, 32), (32, 64)):
        kernel = rng.normal(0, (2 / before / 9) ** 0.5, (after, before, 3, 3))
        conv = graph.node("Conv", name, graph.weight(kernel), strides=[2, 2], pads=[1, 1, 1, 1])
        name = graph.node("Relu", conv)
    pooled = graph.node("AveragePool", name, kernel_shape=[2, 2], strides=[2, 2])
    flat = graph.node("Flatten", pooled, axis=1)
    logits = graph.node("Gemm", flat, graph.weight(rng.normal(0, 1, (64 * 16, 5))), graph.weight(np.zeros(5)))
    path = tmp_path_factory.mktemp("base") / "random.onnx"
    graph.save(path, (32, 32), logits, 5, {})
    return path


def test_hog_and_a_support_vector_machine_read_digits(hog_model: tuple[Path, float]) -> None:
    assert hog_model[1] >= 0.97


def test_sift_words_tell_textures_apart(words_model: tuple[Path, float]) -> None:
    assert words_model[1] >= 0.95


def test_features_of_a_base_read_digits(base: Path, digits: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    options = ClassicOptions("features", base=base)
    result = train_classic(digits, tmp_path / "f.onnx", options, lambda *counts: seen.append(counts))
    assert seen[-1] == (result.learnt, result.learnt)
    assert result.accuracy >= 0.93
    assert describe(str(tmp_path / "f.onnx"), {})["class_names"] == [str(number) for number in range(10)]


def test_early_layers_are_used_where_the_last_one_has_given_up_what_they_see(
    base: Path, digits: Path, tmp_path: Path
) -> None:
    """The last layer of this base distinguishes nothing: its features are the mean of the image."""
    graph = GraphBuilder()
    layers = onnx.load(str(base)).graph
    graph.nodes += [node for node in layers.node if node.op_type in ("Conv", "Relu")]
    graph.weights += [entry for entry in layers.initializer if any(entry.name in node.input for node in graph.nodes)]
    seen = graph.node("GlobalAveragePool", graph.nodes[-1].output[0])
    blind = graph.node("Conv", seen, graph.weight(np.full((8, 64, 1, 1), 1 / 64)))
    logits = graph.node("Gemm", graph.node("Flatten", blind, axis=1), graph.weight(np.ones((8, 5))))
    graph.save(tmp_path / "blind.onnx", (32, 32), logits, 5, {})
    result = train_classic(digits, tmp_path / "f.onnx", ClassicOptions("features", base=tmp_path / "blind.onnx"))
    assert "'layers': 2" in facts_of(tmp_path / "f.onnx")["chosen"]
    assert result.accuracy >= 0.6


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_second_stage_gives_the_labels_of_the_model(
    hog_model: tuple[Path, float], digits: Path, backend: str
) -> None:
    """The crops of boxes in a frame get the classes that the same images get alone."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO has no wheel for this machine")
    crops = read_crops(digits, holdout=0.25, seed=0)
    images, truth = crops.part(test=True)
    images, truth = images[::10], truth[::10]
    sheet = np.concatenate(images, axis=1)
    boxes = [[8 * row, 0, 8 * row + 8, 8] for row in range(len(images))]
    detections = Detections(boxes, np.ones(len(boxes)), np.zeros(len(boxes), int))
    classifier = load_classifier(hog_model[0], backend=backend)
    stage = SecondStage(classifier, top=1)
    stage.open()
    column = stage.classify(Frame(sheet), detections).extra["classes"]
    alone = classifier.probabilities([sheet[:, 8 * row : 8 * row + 8] for row in range(len(images))], crop=False)
    stage.close()
    np.testing.assert_array_equal(column[:, 0, 0].astype(int), alone.argmax(axis=1))
    assert (column[:, 0, 0].astype(int) == truth).mean() >= 0.9
    np.testing.assert_allclose(alone.sum(axis=1), 1, atol=1e-4)


def test_the_graph_is_fed_in_training_as_in_the_engine(base: Path, digits: Path) -> None:
    """Logits of the base by the training's own code and by the engine's classifier."""
    from pipelines.learning.classic.backbone import Backbone

    images = read_crops(digits, holdout=0.25, seed=0).part(test=True)[0][:20]
    backbone = Backbone(base)
    graph, output = backbone.add_to()
    last = next(node for node in reversed(backbone._model.graph.node) if node.op_type == "Gemm")
    _, matrix, bias = last.input
    graph.weights += [entry for entry in backbone._model.graph.initializer if entry.name in (matrix, bias)]
    logits = graph.node("Softmax", graph.node("Gemm", output, matrix, bias), axis=1)
    ours = run_graph(graph, logits, (32, 32), images, ClassicOptions("features", base=base))
    with load_classifier(base, backend="onnxruntime") as classifier:
        np.testing.assert_allclose(ours, classifier.probabilities(images, crop=False), atol=1e-4)


def test_words_run_as_frame_classifier_on_the_command_line(
    words_model: tuple[Path, float], textures: Path, tmp_path: Path
) -> None:
    """`framewire run` on a folder of images names their textures."""
    model, out = words_model[0], tmp_path / "found.jsonl"
    words = ["run", "--source", str(textures / "checks"), "--model", str(model), "--set", "detector.task=classify"]
    done = CliRunner().invoke(app, [*words, "--set", "publish.address=none", "--set", f"output.jsonl={out}", "--json"])
    assert done.exit_code == 0, done.output
    frames = [json.loads(line) for line in out.read_text().splitlines()]
    names = [entry["class_name"] for frame in frames for entry in frame["objects"]]
    assert len(names) == 40
    assert names.count("checks") >= 36


def test_a_file_of_words_executes_nothing_and_is_checked(
    words_model: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(words_model[0].read_bytes()[:-200])
    with pytest.raises(ModelError, match="bag-of-words"):
        load_image_classifier(broken)
    np.savez(tmp_path / "pickle.npz", facts=np.array([{"a": 1}], object), words=np.zeros(3))
    with pytest.raises(ModelError, match="bag-of-words"):
        load_image_classifier(tmp_path / "pickle.npz")
    assert describe(str(words_model[0]), {})["trained"]["method"] == "sift-words"
    monkeypatch.setattr("engine.detection.words.file.MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("words.npy", bytes(2 << 20))
    with pytest.raises(ModelError, match="at most"):
        load_image_classifier(tmp_path / "bomb.npz")


def test_too_few_pictures_are_refused_with_the_class(digits: Path, tmp_path: Path) -> None:
    for name, count in (("0", 30), ("1", 12)):
        (tmp_path / name).mkdir()
        for path in sorted((digits / name).iterdir())[:count]:
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    for method, suffix in (("hog-svm", ".onnx"), ("sift-words", ".npz")):
        with pytest.raises(ConfigError, match=r"class '1' has 9 images.*at least 10"):
            train_classic(tmp_path, tmp_path / f"m{suffix}", ClassicOptions(method))


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        (ClassicOptions("surf-words"), "m.onnx", "non-free"),
        (ClassicOptions("hog-svm"), "m.npz", "writes a .onnx"),
        (ClassicOptions("hog-svm", size=30), "m.onnx", "multiple of 8"),
        (ClassicOptions("surf"), "m.onnx", "expected one of hog-svm, sift-words, features, resnet50, cnn"),
        (ClassicOptions("features"), "m.onnx", "needs a pretrained classifier.*efficientnet-lite0"),
        (ClassicOptions("hog-svm", base=Path("b.onnx")), "m.onnx", "--base b.onnx: hog-svm starts from scratch"),
        (ClassicOptions("hog-svm"), "none/m.onnx", "no folder"),
    ],
)
def test_what_cannot_work_is_refused(
    options: ClassicOptions, out: str, message: str, digits: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_classic(digits, tmp_path / out, options)


@pytest.mark.parametrize(("out", "why"), [("none/m.onnx", "no folder none"), ("m.npz", "cnn writes a .onnx file")])
def test_a_network_is_not_trained_for_a_file_that_cannot_be_written(
    out: str, why: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["classify", "train", str(digits), "--with", "cnn", "--out", out])
    assert isinstance(done.exception, ConfigError)
    assert why in str(done.exception)


@pytest.fixture
def small(textures: Path, tmp_path: Path) -> Path:
    """Twenty images of two textures."""
    for name in ("stripes", "clouds"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for path in sorted((textures / name).iterdir())[:20]:
            (tmp_path / "few" / name / path.name).write_bytes(path.read_bytes())
    return tmp_path / "few"


@pytest.mark.parametrize(("method", "out"), [("hog-svm", "m.onnx"), ("sift-words", "m.npz")])
def test_the_progress_is_that_of_the_images(method: str, out: str, small: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    options = ClassicOptions(method, size=16 if method == "hog-svm" else None, words=16)
    result = train_classic(small, tmp_path / out, options, lambda *counts: seen.append(counts))
    assert seen == sorted(seen)
    assert seen[-1] == (result.learnt, result.learnt)


def test_the_same_seed_gives_the_same_file(small: Path, tmp_path: Path) -> None:
    options = ClassicOptions("hog-svm", size=16)
    results = [train_classic(small, tmp_path / f"{n}.onnx", options) for n in (0, 1)]
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()
    assert replace(results[0], file="") == replace(results[1], file="")
