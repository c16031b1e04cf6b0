"""A real Triton, from `nvidia-pytriton`: the same boxes, and reconnected after it was killed.

It needs Debian's python3.11 and numpy < 2, hence a separate environment:

    /usr/bin/python3.11 -m venv triton && triton/bin/pip install nvidia-pytriton "numpy<2" onnxruntime
    FRAMEWIRE_TRITON_PYTHON=triton/bin/python python -m pytest -m soak tests/backends/remote/test_real_triton.py
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from engine.data import Frame
from engine.detection.load import load_detector
from engine.errors import LostInferenceError
from engine.video.read_image import read_image
from tests.backends.remote.restart import free_ports, restart_under_a_run, serving

PYTHON = os.environ.get("FRAMEWIRE_TRITON_PYTHON")
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


def start_triton(model: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start Triton with the model named `yolo`; it serves HTTP at the port, and gRPC at the next one."""
    with log.open("ab") as out:
        words = [str(PYTHON), "-c", SERVER, str(model), str(port)]
        return subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)


def _regions(port: int) -> list[str]:
    """Return the regions of shared memory that the server knows."""
    address = f"http://127.0.0.1:{port}/v2/systemsharedmemory/status"
    with urllib.request.urlopen(urllib.request.Request(address, headers={"triton-access-token": "open-sesame"})) as got:
        return [row["name"] for row in json.load(got)]


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
    frame, port = Frame(read_image(data_dir / "images/assets/bus.jpg")), free_ports()
    with load_detector(model, backend="onnxruntime") as local:
        [expected] = local.detect([frame])
    assert len(expected) > 3
    with serving(start_triton, model, port, tmp_path / "first.log"):
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
    with serving(start_triton, model, port, tmp_path / "second.log"):
        [again] = remote.detect([frame])
    remote.close()
    np.testing.assert_allclose(again.xyxy, expected.xyxy, atol=1e-3)


def test_a_run_counts_what_it_loses_and_is_back_by_itself(data_dir: Path) -> None:
    found = restart_under_a_run(start_triton, data_dir / "models/yolov8n_fp32_dequantised.onnx", 3.0)
    print(json.dumps(found))
    assert found["unaccounted"] == 0
    assert found["dropped"].get("remote_away", 0) + found["dropped"].get("remote_late", 0) > 0
