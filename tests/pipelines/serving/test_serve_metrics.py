"""Metrics and health of `framewire serve`, in its own process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.pipelines.metrics.scenes import check_metrics, samples
from tests.pipelines.metrics.test_run import PATIENCE_S, address_in, status, until
from tests.serving import encoded
from tests.web_server import ask

for package in ("uvicorn", "prometheus_client"):
    pytest.importorskip(package, reason='pip install "framewire[web,metrics]"')


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[int, str]]:
    """A server: its port, and the address of its metrics."""
    words = "serve", "--model", "demo", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        port = int(re.findall(r"serving demo at http://127.0.0.1:(\d+)", process.stderr.readline())[0])
        address = address_in(process.stderr)
        until(address, "/readyz", 200)
        yield port, address
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_images_requests_and_batches_are_counted(served: tuple[int, str]) -> None:
    port, address = served
    for _ in range(3):
        assert ask(port, "/v1/detect", "POST", encoded())[0] == 200
    assert ask(port, "/v1/detect", "POST", b"no image")[0] == 415
    ask(port, "/v2/models/no-such-model/ready")
    text = status(address, "/metrics")[1]
    found = samples(text)
    assert found['framewire_serve_images_total{model="demo"}'] == 3
    assert found['framewire_serve_batch_frames_sum{model="demo"}'] == 3
    assert found['framewire_serve_requests_total{route="/v1/detect",status="200"}'] == 3
    assert found['framewire_serve_requests_total{route="/v1/detect",status="415"}'] == 1
    assert found['framewire_serve_requests_total{route="/v2/models/{name}/ready",status="404"}'] == 1
    assert found['framewire_serve_request_duration_seconds_count{route="/v1/detect"}'] == 4
    assert found['framewire_serve_model_loaded{model="demo"}'] == 1
    assert "no-such-model" not in text
    check_metrics(text)
