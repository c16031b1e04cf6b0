"""A plan is compared with its ONNX model before it serves; wrong boxes are refused with the numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.assets import demo_model
from engine.backends.files.plan import PlanFile, read_plan_file, write_plan_file
from engine.data import Detections, Frame
from engine.detection.load import _check_plan, load_detector
from engine.detection.plan_check import check_plan, compare, demo_frames
from engine.errors import ModelError
from tests.backends.tensorrt.fake_gpu import PLAN, plan_facts
from tests.backends.tensorrt.gpu_detector import gpu_detector

BOXES = Detections([[0, 0, 10, 20], [30, 0, 40, 20], [60, 0, 70, 20]], [0.9, 0.8, 0.3], [0, 1, 0])


def plan_file(folder: Path, precision: str = "fp16") -> PlanFile:
    path = folder / "yolo.plan"
    write_plan_file(path, PLAN, plan_facts(precision=precision), {})
    return read_plan_file(path)


def always(found: Detections):
    calls: list[int] = []

    def detect(frames: Sequence[Frame]) -> list[Detections]:
        calls.append(len(frames))
        return [found] * len(frames)

    detect.calls = calls
    return detect


def moved(by: float) -> Detections:
    return Detections(BOXES.xyxy + np.float32(by), BOXES.score, BOXES.class_id)


def test_the_demo_frames_are_several_and_differ() -> None:
    frames = demo_frames()
    assert len(frames) == 4
    assert all(frame.image.shape == frames[0].image.shape for frame in frames)
    assert not np.array_equal(frames[0].image, frames[1].image)


@pytest.mark.parametrize(
    ("found", "precision", "share"),
    [
        pytest.param(BOXES, "fp16", 1.0, id="the same"),
        pytest.param(moved(0.2), "fp16", 1.0, id="off by little"),
        pytest.param(moved(605), "fp16", 0.0, id="off by 605 pixels, as reported for GridSample"),
        pytest.param(moved(2), "fp16", 0.0, id="off by more than FP16 explains"),
        pytest.param(moved(2), "int8", 1.0, id="which INT8 may be"),
        pytest.param(Detections.empty(), "fp32", 0.0, id="nothing"),
        pytest.param(Detections(BOXES.xyxy, BOXES.score, [1, 0, 1]), "fp32", 0.0, id="other classes"),
    ],
)
def test_confident_boxes_are_compared(tmp_path: Path, found: Detections, precision: str, share: float) -> None:
    verdict = compare(plan_file(tmp_path, precision), [BOXES], [found])
    assert verdict.boxes == 2
    assert verdict.share == share


def test_a_plan_with_wrong_boxes_is_refused_with_the_numbers_also_at_the_next_start(tmp_path: Path) -> None:
    file, reference = plan_file(tmp_path), always(BOXES)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"finds 0 of the 8 boxes .* 95%.*--precision fp32.*onnxruntime"):
            check_plan(file, always(moved(605)), reference)
    assert reference.calls == [4]


def test_a_good_plan_is_compared_once_and_again_when_it_was_built_again(tmp_path: Path) -> None:
    file, reference = plan_file(tmp_path), always(BOXES)
    for _ in range(2):
        assert check_plan(file, always(BOXES), reference).share == 1
    assert reference.calls == [4]
    assert json.loads((tmp_path / "yolo.plan.check.json").read_text())["boxes"] == 8
    again = replace(file, facts=replace(file.facts, plan_sha256="another"))
    check_plan(again, always(BOXES), reference)
    assert reference.calls == [4, 4]


@pytest.mark.parametrize("wrong", [1, 4], ids=["single frames", "batches"])
def test_a_plan_that_is_wrong_at_one_batch_size_only_is_refused(tmp_path: Path, wrong: int) -> None:
    """NVIDIA/TensorRT 4813: identical images of a batch give different boxes, and single ones others again."""

    def detect(frames: Sequence[Frame]) -> list[Detections]:
        return [moved(605 if len(frames) == wrong else 0)] * len(frames)

    with pytest.raises(ModelError, match="finds 0 of the 8 boxes"):
        check_plan(plan_file(tmp_path), detect, always(BOXES))


def test_where_there_is_nothing_to_compare_a_warning_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert check_plan(plan_file(tmp_path), always(BOXES), always(Detections.empty())).boxes == 0
    assert "finds nothing on the embedded clip" in caplog.text

    def missing(frames: Sequence[Frame]) -> list[Detections]:
        raise ModelError("yolo.onnx: no such model file or folder")

    (tmp_path / "yolo.plan.check.json").unlink()
    assert check_plan(plan_file(tmp_path), always(BOXES), missing) is None
    assert "no such model file" in caplog.text


def test_a_damaged_verdict_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "yolo.plan.check.json").write_text("{")
    assert check_plan(plan_file(tmp_path), always(BOXES), always(BOXES)).share == 1


@pytest.mark.parametrize("shift", [0.0, 90.0], ids=["as the model", "shifted boxes"])
def test_a_detector_on_the_fake_gpu_is_held_to_its_own_model(tmp_path: Path, shift: float) -> None:
    model = tmp_path / demo_model().name
    model.write_bytes(demo_model().read_bytes())

    def check(sized) -> None:
        file = sized.backend.plan_file
        sized.backend.plan_file = replace(file, facts=replace(file.facts, model=model.name))
        if shift:
            decode = sized.decode
            sized.decode = lambda *arguments: [
                Detections(one.xyxy + np.float32(shift), one.score, one.class_id) for one in decode(*arguments)
            ]
        _check_plan(file.path, {}, 0.25, 0.6, sized)

    detector = gpu_detector(model, tmp_path, max_batch=1, check=check)
    if shift:
        with pytest.raises(ModelError, match="boxes that its model finds"):
            detector.open()
    else:
        detector.open()
        verdict = json.loads((tmp_path / f"{model.stem}.plan.check.json").read_text())
        assert verdict["boxes"] > 4
        assert verdict["matched"] >= 0.95 * verdict["boxes"]
    detector.close()


def test_only_tensorrt_plans_are_compared() -> None:
    assert load_detector(demo_model(), backend="onnxruntime")._sizes.main._check is None
