"""The GPU check without a GPU: its output, its report, comparisons on the fake GPU, and its isolation."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from engine.assets import demo_model
from engine.backends.base import TensorSpec
from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.plan import read_plan_file
from engine.backends.tensorrt.api import installed_libraries
from engine.backends.tensorrt.build_plan import BuildOptions
from engine.data import Detections
from engine.detection.load import load_detector
from engine.testing.cuda import FakeCuda
from engine.testing.tensorrt import FakePlan
from tests.backends.cuda.test_api import driver  # noqa: F401 a fixture
from tests.onnx_models import save_constant_model
from tests.tools.fake_device import NAMES, FakeDevice, small_detector
from tools import gpu_check
from tools.gpu import gpu_experiments as experiments
from tools.gpu.device import build, build_halves
from tools.gpu.gpu_families import families, halves
from tools.gpu.gpu_sections import (
    TIME_LEFT,
    bare_context,
    batch_exactness,
    frames,
    full_hd,
    int8_speed,
    overlap,
    same_boxes,
    same_either_way,
    some_frames,
    steady_memory,
)
from tools.gpu_check import Finding, Report, Section, main, run_apart, run_here

CHECKOUT = Path(gpu_check.__file__).resolve().parents[1]
without_gpu = pytest.mark.skipif(probe_cuda().reason is None, reason="there is a GPU here")


@without_gpu
def test_without_a_gpu_it_says_why_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--model", "yolov8n.onnx", "--output", str(tmp_path)]) == 1
    assert f"nothing to check here: {probe_cuda().reason}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_failed_section_does_not_hide_the_others(tmp_path: Path):
    report = Report(tmp_path)
    for name, run in {
        "breaks": lambda: {}["missing"],
        "is wrong": lambda: {"failed": True, "value": 3},
        "misses its aim": lambda: {"missed": True},
        "holds": lambda: {"table": [{"batch": 1, "fps": 100.0}, {"batch": 8, "fps": 700.0}], "note": "n"},
    }.items():
        report.add(run_here(Section(name, run, 60)))
    assert [finding.verdict for finding in report.findings] == ["failed", "failed", "missed", "ok"]
    assert not report.held
    page = (tmp_path / "gpu_check.md").read_text()
    for line in ("## breaks: failed", "- error: KeyError: 'missing'", "| batch | fps |", "| 8 | 700.0 |", "- note: n"):
        assert line in page.splitlines()


def test_the_report_is_there_after_each_section(tmp_path: Path):
    report = Report(tmp_path)
    for count in (1, 2):
        report.add(Finding(f"section {count}"))
        assert len(json.loads((tmp_path / "gpu_check.json").read_text())) == count


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        pytest.param("import os; os.kill(os.getpid(), 11)", "ended with code -11", "Segmentation", id="crash"),
        pytest.param(
            "import time; print('at work', flush=True); time.sleep(9)", "killed after 2 s", "at work", id="hang"
        ),
        pytest.param("raise SystemExit('no such thing')", "ended with code 1", "no such thing", id="end"),
    ],
)
def test_a_section_that_crashes_or_hangs_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, error: str, words: str
):
    script = tmp_path / "script.py"
    script.write_text(body)
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    finding = run_apart(Section("s", dict, 2.0), [])
    assert (finding.verdict, finding.facts["error"]) == ("failed", error)
    assert words in finding.facts["last words"]


def test_facts_that_json_cannot_hold_are_words(tmp_path: Path):
    """A graph that cannot be recorded takes an infinite time, and other programs read the report."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    report = Report(tmp_path)
    report.add(run_here(Section("s", lambda: {"table": [{"graph ms": math.inf, "place": tmp_path}]}, 60)))
    [found] = json.loads((tmp_path / "gpu_check.json").read_text(), parse_constant=refuse)
    assert found["facts"]["table"] == [{"graph ms": "inf", "place": str(tmp_path)}]


def test_a_section_that_is_killed_while_it_answers_leaves_no_half_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = Path.write_text

    def half(path: Path, text: str) -> int:
        write(path, text[:9])
        raise SystemExit("killed")

    monkeypatch.setenv("GPU_CHECK_ANSWER", str(tmp_path / "answer.json"))
    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(SystemExit, match="killed"):
        main(["--model", "yolo.onnx", "--section", "machine"])
    assert not (tmp_path / "answer.json").exists()


def test_a_word_that_chooses_no_section_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--model", "yolo.onnx", "--output", str(tmp_path), "--only", "sped"]) == 1
    assert "--only sped: no section has this in its name; there are machine, " in capsys.readouterr().err


def test_two_models_need_two_names(capsys: pytest.CaptureFixture[str]):
    """Both would have the same sections, and the first would be measured twice."""
    with pytest.raises(SystemExit):
        gpu_check.parse(["--model", "a/yolo.onnx", "--model", "b/yolo.onnx"])
    assert "two files are called yolo: rename one" in capsys.readouterr().err


@pytest.mark.timeout(400)
def test_on_a_driver_made_for_tests_all_but_tensorrt_runs(driver: Path, tmp_path: Path):  # noqa: F811
    """The whole command, in separate processes: the kernels run, TensorRT does not, and the report says so."""
    pytest.importorskip("cuda.bindings", reason="pip install cuda-bindings nvidia-cuda-nvrtc")
    command = [sys.executable, "tools/gpu_check.py", "--model", "nothing.onnx", "--output", str(tmp_path / "out")]
    command += ["--cache", str(tmp_path / "plans"), "--minutes", "0"]
    wheels = tmp_path / "wheels"  # found first, so that the fake driver gets the fake compiler's output
    (wheels / "nvidia" / "lib").mkdir(parents=True)
    (wheels / "nvidia" / "lib" / "libnvrtc.so.13").symlink_to(driver / "libnvrtc.so.13")
    path = os.pathsep.join([str(wheels), str(CHECKOUT)])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, env=environment, check=False)
    found = {one["name"]: one for one in json.loads((tmp_path / "out" / "gpu_check.json").read_text())}
    assert done.returncode == 1
    verdicts = [one["verdict"] for one in found.values()]
    assert verdicts[:6] == ["ok"] * 6, found
    assert found["letterbox kernel"]["facts"]["table"][0]["largest difference, levels"] < 0.01
    assert set(verdicts[7:]) == {"skipped"}


@pytest.fixture
def model(data_dir: Path) -> Path:
    return data_dir / "models" / "yolov8n_fp32_dequantised.onnx"


@pytest.fixture
def images(data_dir: Path) -> Path:
    return data_dir / "images" / "assets"


def test_the_comparisons_hold_on_the_fake_gpu(model: Path, images: Path, tmp_path: Path):
    device = FakeDevice().device()
    boxes = same_boxes(device, model, "fp32", images, tmp_path)
    assert boxes["boxes"] >= 6
    assert (boxes["min_iou"], boxes["failed"]) == (1.0, False)
    either = same_either_way(device, model, images, tmp_path)
    assert either["candidates and letterbox"] == "2 of 2 images equal to the bit"
    assert not either["failed"]


def test_a_detector_that_finds_nothing_fails_every_comparison(tmp_path: Path):
    nothing = np.zeros((7, 84), np.float32)
    model = save_constant_model(tmp_path / "small.onnx", [nothing], 64, NAMES)
    device = FakeDevice().device()
    for facts in (
        same_boxes(device, model, "fp32", None, tmp_path),
        same_either_way(device, model, None, tmp_path),
        batch_exactness(device, model, None, tmp_path),
    ):
        assert (facts["boxes"], facts["failed"]) == (0, True)


def test_the_made_up_models_have_no_near_ties(tmp_path: Path):
    """The end-to-end model sorts its scores: an FP16 plan must not change their order."""
    families(FakeDevice().device(), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "end-to-end_head.onnx"))
    images = np.random.default_rng(5).random((1, 3, 64, 64), np.float32)
    top = np.asarray(session.run(["top"], {"images": images})[0])[0]
    assert np.diff(top).max() < -0.004 * np.abs(top).max()


@pytest.mark.skipif("tensorrt_rtx" not in installed_libraries(), reason="not installed: pip install tensorrt-rtx")
def test_the_made_up_models_can_be_built_with_tensorrt_rtx(tmp_path: Path):
    families(FakeDevice().device(), tmp_path)
    halves(replace(FakeDevice().device(), build_halves=lambda model, output: model), tmp_path)
    models = sorted(path for path in tmp_path.glob("*.onnx") if path.stem != "halves")
    assert len(models) == 4
    for model in models:
        for precision in ("fp32", "fp16"):
            assert build(model, BuildOptions(precision, (1, 4, 4)), tmp_path / "built").plan()
    file = read_plan_file(build_halves(tmp_path / "halves.onnx", tmp_path / "halves.plan"))
    assert file.facts is not None
    assert [spec.dtype for spec in (*file.facts.inputs, *file.facts.outputs)] == ["float16"] * 3


def test_without_pictures_the_boxes_are_compared_on_the_demo_clip():
    chosen = gpu_check.parse(["--model", "yolo.onnx"])
    names = [section.name for section in gpu_check.plan_of_sections(chosen)]
    assert {"yolo: boxes, fp32", "yolo: boxes, fp16"} <= set(names)
    pictures = some_frames(None)
    assert len(pictures) == 8
    with load_detector(demo_model(), backend="onnxruntime") as detector:
        assert sum(map(len, detector.detect(pictures))) > 8


def test_the_overlap_is_of_confident_boxes_of_one_class():
    reference = Detections([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 5, 5]], [0.9, 0.9, 0.3], [0, 1, 0])
    found = Detections([[0, 0, 10, 5], [20, 0, 30, 10]], [0.9, 0.9], [0, 0])
    assert overlap(reference, found) == [0.5, 0.0]
    assert overlap(reference, Detections.empty()) == [0.0, 0.0]


def test_frames_are_full_hd_or_pictures_of_a_folder(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), full_hd(1)[0].image[:48, :64])
    (tmp_path / "notes.txt").write_text("no picture")
    assert [(frame.width, frame.height) for frame in (*full_hd(1), *frames(tmp_path))] == [(1920, 1080), (64, 48)]


def test_a_dry_run_prints_plan_budget_and_luggage_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(demo_model()), "--output", str(tmp_path / "out"), "--budget", "300", "--dry-run"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    chosen = gpu_check.parse(arguments)
    for number, section in enumerate(gpu_check.plan_of_sections(chosen), 1):
        [line] = [line for line in lines if line.startswith(f"{number:3} ")]
        assert f" {section.name}: about {section.usual_s:.0f} s, at most {section.limit_s:.0f} s, " in line
    assert any(str(demo_model()) in line and "MiB" in line for line in lines)
    assert any("this checkout" in line and "MiB" in line for line in lines)
    assert any("the budget is 300 s: what does not fit is reported as skipped" in line for line in lines)
    assert any("may not start within the budget" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_what_matters_comes_within_fifteen_minutes() -> None:
    """By our estimates, everything except the rest of the memory loop, which uses the time that remains."""
    chosen = gpu_check.parse(["--model", "yolo.onnx"])
    *others, last = gpu_check.plan_of_sections(chosen)
    assert last.name == "memory"
    assert sum(section.usual_s for section in others) < 14 * 60


def test_the_sections_come_in_the_order_of_what_they_tell() -> None:
    names = [section.name for section in gpu_check.plan_of_sections(gpu_check.parse(["--model", "yolo.onnx"]))]
    wanted = ["machine", "kernels, graphs, memory", "compute-sanitizer", gpu_check.ANSWER, "kinds of models"]
    wanted += ["yolo: boxes, fp32", "starts", "graphs, early and late", "yolo: speed, batch 1", "faults: lost GPU"]
    assert [name for name in names if name in wanted] == wanted


def test_the_budget_ends_a_section_which_is_not_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    finding = run_apart(Section("s", dict, 60.0), [], left_s=1.0)
    assert (finding.verdict, finding.facts) == ("skipped", {"reason": "the budget ran out after 1 s of it"})


def test_the_memory_loop_takes_what_is_left_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIME_LEFT, "30")
    facts = steady_memory(FakeDevice().device(), small_detector(tmp_path), 10.0, tmp_path)
    assert (facts["minutes"], facts["batches"], facts["failed"]) == (0.0, 2, False)


def test_bare_memory_has_room_for_wide_numbers() -> None:
    """Labels of D-FINE are int64: eight bytes each."""
    cuda = FakeCuda()
    inputs = (TensorSpec("images", (1, 3, 4, 4), "float16"),)
    outputs = (TensorSpec("labels", (1, 300), "int64"),)
    plan = FakePlan(cuda, inputs, outputs, lambda feeds: [np.arange(300)[None]])
    with cuda.current(), bare_context(cuda, plan) as (context, stream):
        context.enqueue(stream)
        cuda.synchronize(stream)
        assert sorted(len(block) for block in cuda._memory.values()) == [96, 2400]
    assert cuda.live == 0


def test_graphs_are_timed_on_an_open_batch_also_where_the_model_fixes_it(tmp_path: Path) -> None:
    output = np.zeros((7, 84), np.float32)
    fixed = save_constant_model(tmp_path / "fixed.onnx", [output], 64, NAMES, batch=1)
    facts = experiments.graphs(FakeDevice().device(), fixed, tmp_path, runs=(1,))
    assert facts["model"] == demo_model().name
    assert [row["kernels"] for row in facts["table"]] == ["eager"]


def test_a_model_that_is_quantised_already_has_no_int8_to_measure(data_dir: Path, tmp_path: Path) -> None:
    model = data_dir / "models" / "yolo11n_int8_320.onnx"
    assert "quantised already" in int8_speed(FakeDevice().device(), model, None, tmp_path)["note"]
