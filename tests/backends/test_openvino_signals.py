"""OpenVINO's signal stack: a signal after a model is gone must reach its handler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="pip install onnx")
pytest.importorskip("openvino", reason="pip install openvino")

SCRIPT = """
import gc, os, signal, sys, threading
from pathlib import Path
from engine.backends.openvino import OpenVinoBackend

models = [OpenVinoBackend(Path(sys.argv[1]))]
models[0].open()

def drop():
    models.pop().close()
    gc.collect()

thread = threading.Thread(target=drop)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_model_that_another_thread_drops_leaves_signals_working(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, (1, 3)) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "m.onnx"))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr
