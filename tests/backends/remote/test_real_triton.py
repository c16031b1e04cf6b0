"""A real Triton, out of `nvidia-pytriton`: the same boxes, and back after it was killed.

It needs Debian's python3.11 and numpy < 2, so an environment of its own:

    /usr/bin/python3.11 -m venv triton && triton/bin/pip install nvidia-pytriton "numpy<2" onnxruntime
    FRAMEWIRE_TRITON_PYTHON=triton/bin/python python -m pytest -m soak tests/backends/remote/test_real_triton.py
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.data import Frame
from engine.detection.load import load_detector
from engine.errors import LostInferenceError
from engine.video.read_image import read_image

PYTHON = os.environ.get("FRAMEWIRE_TRITON_PYTHON")
READY_S = 120.0
SERVER = """
import sys, numpy as np, onnxruntime
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig
path, port, security = sys.argv[1], int(sys.argv[2]), TritonSecurityConfig(access_token="open-sesame")
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
[first], outputs = session.get_inputs(), session.get_outputs()
def infer(requests):
    runs = [session.run(None, {first.name: request.data[first.name]}) for request in requests]
    return [{output.name: value for output, value in zip(outputs, run)} for run in runs]
ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
config = TritonConfig(http_address="127.0.0.1", grpc_address="127.0.0.1", **ports)
with Triton(config=config, security_config=security) as triton:
    tensors = [Tensor(name=output.name, dtype=np.float32, shape=tuple(output.shape)) for output in outputs]
    images = [Tensor(name=first.name, dtype=np.float32, shape=tuple(first.shape))]
    triton.bind("yolo", infer_func=infer, inputs=images, outputs=tensors, config=ModelConfig(batching=False))
    triton.serve()
"""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PYTHON is None, reason="set FRAMEWIRE_TRITON_PYTHON to a Python with nvidia-pytriton"),
]


@contextmanager
def _triton(model: Path, port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(PYTHON), "-c", SERVER, str(model), str(port)], stdout=out, stderr=out, start_new_session=True
        )
    try:
        until = time.monotonic() + READY_S
        while not _is_ready(port):
            assert time.monotonic() < until, log.read_text()[-2000:]
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/yolo/ready", timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _regions(port: int) -> list[str]:
    """Return the regions of shared memory that the server knows."""
    address = f"http://127.0.0.1:{port}/v2/systemsharedmemory/status"
    with urllib.request.urlopen(urllib.request.Request(address, headers={"triton-access-token": "open-sesame"})) as got:
        return [row["name"] for row in json.load(got)]


def _three_free_ports() -> int:
    for port in range(21000, 60000, 17):
        try:
            for offset in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    pytest.skip("no three free ports in a row")


@pytest.mark.parametrize(("protocol", "offset"), [("http", 0), ("grpc", 1), ("shared", 0)])
def test_boxes_are_those_of_the_local_model_also_after_it_was_killed(
    protocol: str, offset: int, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = "triton-access-token=open-sesame" if protocol == "shared" else "off"
    monkeypatch.setenv("FRAMEWIRE_KSERVE_SHARED_MEMORY", sharing)
    if protocol == "grpc":
        pytest.importorskip("grpc", reason='pip install "tritonclient[grpc]"')
        pytest.importorskip("tritonclient.grpc", reason='pip install "tritonclient[grpc]"')
    model = data_dir / "models/yolov8n_fp32_dequantised.onnx"
    frame, port = Frame(read_image(data_dir / "images/assets/bus.jpg")), _three_free_ports()
    with load_detector(model, backend="onnxruntime") as local:
        [expected] = local.detect([frame])
    assert len(expected) > 3
    with _triton(model, port, tmp_path / "first.log"):
        remote = load_detector(
            f"kserve+{protocol.replace('shared', 'http')}://127.0.0.1:{port + offset}/yolo", deadline_ms=20_000
        )
        remote.open()
        [found] = remote.detect([frame])
        assert (protocol == "shared") == bool(_regions(port))
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    with pytest.raises(LostInferenceError) as lost:
        remote.detect([frame])
    assert lost.value.cause == "remote_away"
    with _triton(model, port, tmp_path / "second.log"):
        [again] = remote.detect([frame])
    remote.close()
    np.testing.assert_allclose(again.xyxy, expected.xyxy, atol=1e-3)
