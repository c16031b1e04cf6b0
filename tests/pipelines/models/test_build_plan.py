"""`framewire build`: the request, the INT8 gate, and a real plan where TensorRT-RTX is installed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engine.assets import demo_clip, demo_model
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.tensorrt.api import installed_libraries
from engine.backends.tensorrt.find_plan import MissingPlan, find_plan, plan_to_run
from engine.data import Detections, Frame
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.errors import ConfigError, ModelError
from engine.protocols import DetectorBase
from engine.video.read_image import read_image
from pipelines.models import accuracy_gate
from pipelines.models.accuracy_gate import (
    Agreement,
    AveragePrecision,
    Measure,
    agreement,
    allowed_loss,
    calibration_batches,
    check_loss,
    images_id,
    matches,
    prepare_int8,
)
from pipelines.models.build_plan import BuildRequest, build
from tests.onnx_models import save_constant_model, save_pixel_model

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed: pip install tensorrt-rtx"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames of the demo clip as PNG files."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("pictures")
    with av.open(str(demo_clip())) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 15 == 0:
                cv2.imwrite(str(folder / f"{index:04}.png"), frame.to_ndarray(format="bgr24"))
    return folder


def boxes(*rows: tuple[float, float, float, float, int]) -> Detections:
    return Detections([row[:4] for row in rows], [0.9] * len(rows), [row[4] for row in rows])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(boxes(), boxes(), 0, id="nothing"),
        pytest.param(boxes((0, 0, 9, 9, 1)), boxes(), 0, id="only one finds it"),
        pytest.param(boxes((0, 0, 9, 9, 1)), boxes((1, 0, 10, 9, 1)), 1, id="moved a little"),
        pytest.param(boxes((0, 0, 9, 9, 1)), boxes((6, 0, 15, 9, 1)), 0, id="moved too far"),
        pytest.param(boxes((0, 0, 9, 9, 1)), boxes((0, 0, 9, 9, 2)), 0, id="another class"),
        pytest.param(boxes((0, 0, 9, 9, 1), (0, 1, 9, 9, 1)), boxes((0, 0, 9, 9, 1)), 1, id="two for one"),
    ],
)
def test_a_match_is_one_box_of_each(first: Detections, second: Detections, expected: int):
    assert matches(first, second) == expected


class Fixed(DetectorBase):
    """Finds the same objects on every frame."""

    name, class_names, max_batch, depth = "fixed", ("a", "b"), 1, 1

    def __init__(self, found: Detections) -> None:
        self._found = found

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [self._found for _ in frames]


def test_agreement_counts_what_both_find(pictures: Path):
    files = sorted(pictures.iterdir())[:3]
    found = agreement(Fixed(boxes((0, 0, 9, 9, 0), (20, 0, 29, 9, 1))), Fixed(boxes((0, 0, 9, 9, 0))), files)
    assert (found.images, found.reference, found.candidate, found.matched) == (3, 6, 3, 3)
    assert found.value == pytest.approx(2 / 3)


def test_calibration_feeds_what_the_detector_feeds(pictures: Path):
    facts = inspect_model(demo_model())
    batch = next(calibration_batches(facts, [Frame(read_image(min(pictures.iterdir())))]))
    assert (batch.shape, batch.dtype) == ((1, 3, 416, 416), np.float32)
    mean, std = (np.float32(values)[:, None, None] for values in (facts.image.mean, facts.image.std))
    pixels = batch[0] * std + mean
    assert -0.01 <= pixels.min() < 25
    assert 230 < pixels.max() <= 255.01
    np.testing.assert_allclose(pixels[:, :52], 114, atol=1e-3)


def test_the_gate_lets_a_good_int8_model_through_with_its_numbers(pictures: Path):
    prepared = prepare_int8(inspect_model(demo_model()), pictures, max_loss=0.5)
    assert 0.5 < prepared.accuracy["agreement"] <= 1
    assert prepared.accuracy["images"] == 10
    assert len(prepared.content) < demo_model().stat().st_size


def test_calibrated_on_noise_it_is_refused(monkeypatch: pytest.MonkeyPatch, pictures: Path):
    rng = np.random.default_rng(0)
    noise = [rng.random((1, 3, 416, 416)).astype(np.float32) * 0.01 for _ in range(4)]
    monkeypatch.setattr(accuracy_gate, "calibration_batches", lambda facts, images: iter(noise))
    with pytest.raises(ModelError, match=r"INT8 agrees with FP32 on .*lost, at most 50% allowed"):
        prepare_int8(inspect_model(demo_model()), pictures, max_loss=0.5)


@pytest.fixture(scope="module")
def labels(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP32's detections on the images, as YOLO text files."""
    folder = tmp_path_factory.mktemp("labels")
    files = sorted(pictures.iterdir())
    with load_detector(demo_model(), backend="onnxruntime") as detector:
        for file in files:
            frame = accuracy_gate._frame(file)
            [found] = detector.detect([frame])
            size = np.array([frame.width, frame.height] * 2)
            rows = np.concatenate(
                (found.xyxy[:, :2] + found.xyxy[:, 2:], 2 * (found.xyxy[:, 2:] - found.xyxy[:, :2])), 1
            )
            text = [f"{c} {' '.join(map(str, row))}" for c, row in zip(found.class_id, rows / 2 / size, strict=True)]
            (folder / f"{file.stem}.txt").write_text("\n".join(text))
    return folder


def test_with_labels_the_gate_is_the_average_precision(pictures: Path, labels: Path):
    facts = inspect_model(demo_model())
    accuracy = prepare_int8(facts, pictures, 1.0, labels).accuracy
    assert accuracy["map50_95_fp32"] > 0.9
    assert 0.2 < accuracy["map50_95"] < accuracy["map50_95_fp32"]
    assert accuracy["loss"] == pytest.approx(1 - accuracy["map50_95"] / accuracy["map50_95_fp32"], abs=1e-3)
    assert accuracy["images"] == 10


@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param(
            AveragePrecision(0.45, 0.36, 64),
            r"x.onnx: INT8 has an mAP of 0.360, FP32 of 0.450 \(64 images\): 20.0% lost, at most 5% allowed: use",
            id="precision",
        ),
        pytest.param(
            Agreement(0.5, 10, 60, 40, 25),
            r"agrees with FP32 on 50.0% of the boxes \(25 of 60 found, 40 reported, 10 images\): 50.0% lost.* 10%",
            id="agreement",
        ),
    ],
)
def test_what_loses_too_much_is_refused_with_the_numbers(found: Measure, message: str):
    with pytest.raises(ModelError, match=message):
        check_loss("x.onnx", found.loss, allowed_loss(None, isinstance(found, AveragePrecision)), str(found))
    check_loss("x.onnx", found.loss, 0.6, str(found))


def test_labels_without_an_object_are_refused(pictures: Path, tmp_path: Path):
    facts = inspect_model(demo_model())
    with pytest.raises(ConfigError, match="no objects on any of"):
        prepare_int8(facts, pictures, labels=tmp_path)
    first = min(pictures.iterdir())
    (tmp_path / f"{first.stem}.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(ConfigError, match="no objects on the half of"):
        accuracy_gate._truth_of([], pictures, tmp_path, facts)


@needs_rtx
def test_a_plan_accepted_with_a_larger_loss_is_not_taken_from_the_cache(tmp_path: Path, pictures: Path):
    request = BuildRequest(
        str(demo_model()), precision="int8", images=str(pictures), max_loss=0.6, library="tensorrt_rtx",
        cache_dir=str(tmp_path),
    )  # fmt: skip
    accuracy = build(request).plan.facts
    assert accuracy is not None
    assert 0.01 < accuracy.accuracy["loss"] < 0.6
    with pytest.raises(ModelError, match=r"accepted before with agreement 0\..*at most 1% allowed"):
        build(replace(request, max_loss=0.01))


def test_too_few_pictures_are_refused(tmp_path: Path, pictures: Path):
    (tmp_path / "one.png").write_bytes(next(pictures.iterdir()).read_bytes())
    with pytest.raises(ConfigError, match="contains 1 images: INT8 needs at least 20"):
        prepare_int8(inspect_model(demo_model()), tmp_path)


def test_other_pictures_make_another_plan(tmp_path: Path, pictures: Path):
    (tmp_path / "one.png").write_bytes(next(pictures.iterdir()).read_bytes())
    assert images_id(tmp_path) != images_id(pictures)
    assert images_id(pictures) == images_id(pictures)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"precision": "fp8"}, "expected fp32, fp16, int8", id="precision"),
        pytest.param({"precision": "int8"}, "--images FOLDER", id="int8 without pictures"),
        pytest.param({"batch": "many"}, "MIN:OPTIMAL:MAX", id="batch"),
        pytest.param({"library": "cudnn"}, "expected tensorrt or tensorrt_rtx", id="library"),
    ],
)
def test_a_request_that_cannot_work_is_refused(changes: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        build(BuildRequest(str(demo_model()), **changes))  # type: ignore[arg-type]


@needs_rtx
def test_a_plan_is_built_once_and_found_again(tmp_path: Path):
    request = BuildRequest(str(demo_model()), batch="1:4", library="tensorrt-rtx", cache_dir=str(tmp_path))
    first, second = build(request), build(request)
    assert first.reason.startswith("built now")
    assert second.reason.startswith("built before")
    summary = second.as_dict()
    assert summary["inputs"] == ["images (?, 3, 416, 416) float32"]
    assert (summary["precision"], list(summary["batch"])) == ("fp16", [1, 4, 4])


@needs_rtx
@pytest.mark.parametrize("folder", [None, "plans and more"], ids=["beside the model", "another folder"])
@pytest.mark.parametrize("side", [64, "open"], ids=str)
@pytest.mark.parametrize("rows", [7, 3], ids=["known head", "head that nobody knows"])
def test_the_command_that_a_missing_plan_names_builds_it(
    tmp_path: Path, folder: str | None, side: int | str, rows: int
):
    names = {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
    head = np.zeros((rows, 84), np.float32)
    model = save_constant_model(tmp_path / "m.onnx", [head], side, names)  # type: ignore[arg-type]
    image = ImageInput((64, 64))
    place = tmp_path / folder if folder else None
    options = BackendOptions(image, max_batch=4, cache_dir=place, build_plans=False, precision="fp32")
    missing = find_plan(model, options)
    assert isinstance(missing, MissingPlan)
    with pytest.raises(ModelError) as raised:
        plan_to_run(model, options)
    assert f'build it with "{missing.command}"' in str(raised.value)
    _framewire, _build, path, *flags = shlex.split(missing.command)
    field_by_flag = {"--precision": "precision", "--batch": "batch", "--imgsz": "size", "--cache-dir": "cache_dir"}
    values: dict[str, Any] = {field_by_flag[flag]: value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    if "size" in values:
        values["size"] = int(values["size"])
    built = build(BuildRequest(path, **values)).plan
    assert plan_to_run(model, options).path == built.path


def test_int8_says_which_plan_to_give(tmp_path: Path):
    model = save_pixel_model(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match=r'"framewire build .*m.onnx --precision int8 --images FOLDER", and give the'):
        find_plan(model, BackendOptions(precision="int8"))
