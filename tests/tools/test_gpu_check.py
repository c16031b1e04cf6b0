"""The GPU check without a GPU: its output, its report, its sections on the fake GPU, and its isolation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.assets import demo_model
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.plan import read_plan_file
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.data import Detections
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.testing.cuda import FakeCuda
from tests.backends.cuda.test_api import driver  # noqa: F401 a fixture
from tests.backends.tensorrt.fake_gpu import FakeMachine
from tests.backends.tensorrt.gpu_detector import gpu_detector
from tests.onnx_models import save_constant_model
from tools import gpu_check
from tools.gpu import gpu_experiments as experiments
from tools.gpu.gpu_sections import (
    batch_exactness,
    frames,
    full_hd,
    overlap,
    same_boxes,
    same_either_way,
    some_frames,
    speed,
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
    assert verdicts[:5] == ["ok"] * 5, found
    assert found["letterbox kernel"]["facts"]["table"][0]["largest difference, levels"] < 0.01
    assert set(verdicts[6:]) == {"skipped"}


@pytest.fixture
def model(data_dir: Path) -> Path:
    return data_dir / "models" / "yolov8n_fp32_dequantised.onnx"


@pytest.fixture
def images(data_dir: Path) -> Path:
    return data_dir / "images" / "assets"


@contextmanager
def fake(model: Path, precision: str, max_batch: int, folder: Path, **options: Any) -> Iterator[ModelDetector]:
    with gpu_detector(model, folder, max_batch=max_batch, **options) as opened:
        yield opened


def test_the_comparisons_hold_on_the_fake_gpu(model: Path, images: Path, tmp_path: Path):
    boxes = same_boxes(model, "fp32", images, tmp_path, fake)
    assert boxes["boxes"] >= 6
    assert (boxes["min_iou"], boxes["failed"]) == (1.0, False)
    either = same_either_way(model, images, tmp_path, fake)
    assert either["candidates and letterbox"] == "2 of 2 images equal to the bit"
    assert not either["failed"]


def test_the_measurements_run_on_the_fake_gpu(tmp_path: Path):
    output = np.zeros((7, 84), np.float32)
    output[:5, 3] = 20, 20, 9, 9, 0.9
    model = save_constant_model(tmp_path / "small.onnx", [output], 64, {"names": "{0: 'a', 1: 'b', 2: 'c'}"})
    rows = speed(model, 8, tmp_path, fake, lambda *_: (2.0, 1.0))["table"]
    assert [(row["letterbox"], row["batch"], row["bare fps"]) for row in rows] == [
        ("cpu", 8, 8000.0),
        ("gpu", 8, 8000.0),
    ]
    assert all(row["ratio"] > 0 and row["p99 ms"] >= row["p50 ms"] for row in rows)
    exactness = batch_exactness(model, None, tmp_path, fake)
    assert exactness == {"images": 8, "boxes": 8, "max_difference_px": 0.0, "failed": False}
    memory = steady_memory(model, 0.0, tmp_path, fake, FakeCuda)
    assert (memory["batches"], memory["grown_mib"], memory["failed"]) == (100, 0.0, False)


def test_a_detector_that_finds_nothing_fails_every_comparison(tmp_path: Path):
    nothing = np.zeros((7, 84), np.float32)
    model = save_constant_model(tmp_path / "small.onnx", [nothing], 64, {"names": "{0: 'a', 1: 'b', 2: 'c'}"})
    for facts in (
        same_boxes(model, "fp32", None, tmp_path, fake),
        same_either_way(model, None, tmp_path, fake),
        batch_exactness(model, None, tmp_path, fake),
    ):
        assert (facts["boxes"], facts["failed"]) == (0, True)


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
    arguments = ["--model", str(demo_model()), "--output", str(tmp_path / "out"), "--budget", "600", "--dry-run"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    chosen = gpu_check.parse(arguments)
    for number, section in enumerate(gpu_check.plan_of_sections(chosen), 1):
        assert any(line.startswith(f"{number:3} {section.name}: at most {section.limit_s:.0f} s") for line in lines)
    assert any(str(demo_model()) in line and "MiB" in line for line in lines)
    assert any("the budget is 600 s" in line for line in lines)
    assert any("may not start within the budget" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_the_experiments_run_on_the_fake_gpu(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    assert set(experiments.waiting(lambda: FakeCuda())) == {"waited ms", "processor share"}
    facts = experiments.graphs_of(read_plan_file(machine.path), open_api=machine._open, load=machine._load, runs=(3, 5))
    assert [row["after runs"] for row in facts["table"]] == [3, 5]
    assert all(row["graph ms"] >= 0 and row["capturable"] for row in facts["table"])
    assert all(gpu.live == 0 for gpu in machine.gpus)


def test_a_gpu_without_memory_is_refused_and_gives_everything_back(tmp_path: Path) -> None:
    model = save_constant_model(
        tmp_path / "small.onnx", [np.zeros((7, 84), np.float32)], 64, {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
    )
    gpu = FakeCuda()

    class Full(TensorRtBackend):
        def open(self) -> None:
            with gpu.current():
                gpu.allocate(gpu.gpu.memory_bytes)

    facts = experiments.out_of_memory(model, tmp_path, open_api=lambda: gpu, make=Full)
    assert "is used up" in facts["error"]
    assert (facts["MiB not given back"], facts["failed"]) == (0.0, False)
    assert gpu.live == 0


def test_a_lost_gpu_reports_the_first_error_and_closes(tmp_path: Path) -> None:
    model = save_constant_model(
        tmp_path / "small.onnx", [np.zeros((7, 84), np.float32)], 64, {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
    )
    machine = FakeMachine(tmp_path, side=64)

    def make(path: Path, options: BackendOptions, parts: object) -> TensorRtBackend:
        return machine.backend(BackendOptions(ImageInput((64, 64))))

    facts = experiments.lost_gpu(model, tmp_path, make=make)
    assert len(facts["errors"]) == 1
    assert "ILLEGAL_ADDRESS" in facts["errors"][0]
    assert not facts["failed"]
