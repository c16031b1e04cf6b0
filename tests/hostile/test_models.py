"""Model files that crash, hang or use up memory: reported as errors of the model, at the start and during a run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import engine.backends.trial as trial_module
from engine.backends.base import BackendOptions
from engine.backends.trial import Trial
from engine.detection.load import load_detector
from engine.errors import ModelError
from tests.hostile.lab import CHECKOUT, Engine, Lab, played, wait_until
from tests.onnx_models import save_model

HEAD = (1, 84, 64)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trial_module, "_passed", set())
    return tmp_path / "cache" / "framewire" / "models-tried"


def detector_file(path: Path, *, conv_inputs: tuple[str, ...] = ("images", "w")) -> Path:
    """Write a detector of 84 rows; a Conv without its image (found by fuzzing) is a null pointer to OpenVINO."""
    nodes = [
        helper.make_node("Conv", list(conv_inputs), ["c"], strides=[8, 8]),
        helper.make_node("Reshape", ["c", "shape"], ["o"]),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((84, 3, 8, 8), np.float32), "shape": np.array(HEAD, np.int64)}
    return save_model(path, nodes, {"images": (1, 3, 64, 64)}, {"o": HEAD}, weights)


def memory_bomb(path: Path) -> Path:
    """Write a model of a few bytes that makes a tensor of 40 GB."""
    nodes = [
        helper.make_node("Expand", ["images", "huge"], ["e"]),
        helper.make_node("ReduceMax", ["e"], ["m"], axes=[0, 1], keepdims=0),
        helper.make_node("ReduceMax", ["m"], ["r"], keepdims=1),
        helper.make_node("Expand", ["r", "shape"], ["o"]),
    ]
    weights = {"huge": np.array([800_000, 3, 64, 64], np.int64), "shape": np.array(HEAD, np.int64)}
    return save_model(path, nodes, {"images": (1, 3, 64, 64)}, {"o": HEAD}, weights)


def test_a_model_that_crashes_its_library_is_a_model_error(tmp_path: Path) -> None:
    path = detector_file(tmp_path / "crash.onnx", conv_inputs=("w",))
    with pytest.raises(ModelError, match=r"crashes the process that loads it \(SIG.*damaged or malicious"):
        load_detector(path, backend="openvino", try_first=True).open()


def test_a_model_that_is_sound_passes_once_and_is_remembered(tmp_path: Path, own_cache: Path) -> None:
    path = detector_file(tmp_path / "good.onnx")
    for _ in range(2):
        with load_detector(path, backend="onnxruntime", try_first=True) as detector:
            assert detector.backend == "onnxruntime"
    marks = list(own_cache.iterdir())
    assert len(marks) == 1
    trial_module._passed.clear()
    other_way = Trial("onnxruntime", path, BackendOptions())
    assert not other_way.poll(), "loaded in another way, it is tried again"
    other_way.close()
    path.write_bytes(path.read_bytes() + b"\x1a\x00")  # an empty field, which changes the content
    with load_detector(path, backend="onnxruntime", try_first=True):
        assert len(list(own_cache.iterdir())) == 2


def test_a_model_that_hangs_is_a_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "TRIAL_S", 0.05)  # no model hangs on demand; this one cannot load that fast
    path = detector_file(tmp_path / "slow.onnx")
    with pytest.raises(ModelError, match="has not loaded within"):
        load_detector(path, backend="openvino", try_first=True).open()


def test_a_model_that_eats_memory_does_not_eat_that_of_the_engine(tmp_path: Path) -> None:
    path = memory_bomb(tmp_path / "bomb.onnx")
    program = f"""
from engine.errors import ModelError
from engine.detection.load import load_detector
try:
    load_detector({str(path)!r}, backend="onnxruntime", try_first=True).open()
except ModelError as error:
    print(error)
from engine.process import peak_memory_mb
print(peak_memory_mb())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1000


@pytest.mark.parametrize(
    "words", [["inspect"], ["run", "--publish", "none", "--source", "synthetic://?count=2", "--model"]]
)
def test_a_start_with_a_crashing_model_ends_with_a_message(words: list[str], tmp_path: Path) -> None:
    path = detector_file(tmp_path / "crash.onnx", conv_inputs=("w",))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words, str(path)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=CHECKOUT,
    )
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr
    if words[0] == "run":
        assert done.returncode != 0
        assert "crash.onnx" in done.stderr


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_ctl_set_of_a_crashing_model_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    """Attack 30: the library took the whole engine down."""
    path = detector_file(tmp_path / "crash.onnx", conv_inputs=("w",))

    def exchange(engine: Engine) -> None:
        before = engine.ask({"command": "status"})["model"]
        engine.ask({"command": "set", "key": "detector.model", "value": str(path)})
        wait_until(lambda: "the model stays" in engine.errors(), 60)
        time.sleep(1)
        assert engine.ask({"command": "status"})["model"] == before

    verdict = played(exchange, lambda: Lab({}), memory_mb=20)
    print(verdict)
    assert not verdict.faults(memory_mb=20)
    assert "malicious" in verdict.errors
