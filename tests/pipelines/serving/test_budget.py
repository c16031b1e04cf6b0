"""Large requests leave no memory behind, whether they are answered or refused."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.serving import budget
from pipelines.serving.budget import Budget
from tests.conftest import CHECKOUT
from tests.hostile.lab import wait_until
from tests.hostile.test_models import detector_file
from tests.patience import AT_ONCE_S
from tests.serving import models_of_files, serving
from tests.web_server import ask

KEPT_MB = 25.0
PLAIN = {"answered with 400": bytes(60_000_000), "refused with 413": bytes(90_000_000)}


def held_mb() -> float:
    return float(psutil.Process().memory_full_info().uss) / 1e6


@pytest.mark.parametrize("name", PLAIN)
def test_memory_of_large_requests_is_returned(name: str, tmp_path: Path) -> None:
    """Each thread of the server kept 50 MB. It runs in its own process: earlier tests leave memory in this one."""
    code = f"from tests.pipelines.serving.test_budget import serve_large; serve_large({name!r}, {str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stderr


def serve_large(name: str, folder: str) -> None:
    """Answer large requests, and check that their memory is returned."""
    body = zlib.compress(PLAIN[name])
    with serving(models_of_files(f"m={detector_file(Path(folder) / 'm.onnx')}")) as served:

        def post() -> Any:
            return ask(served.port, "/v2/models/m/infer", "POST", body, {"Content-Encoding": "deflate"})

        ask(served.port, "/v2/models/m/infer", "POST", json.dumps({"inputs": []}).encode())
        before = held_mb()
        assert {post()[0] for _ in range(4)} == {int(name[-3:])}
        assert wait_until(lambda: held_mb() < before + KEPT_MB, AT_ONCE_S, must=False), (before, held_mb())


def test_small_requests_release_nothing_and_a_burst_does_once(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[None] = []
    monkeypatch.setattr(budget, "release_memory", lambda: released.append(None))
    monkeypatch.setattr(budget, "RELEASE_S", 0.2)
    shared = Budget(10**9)
    for count in [1000] * 50 + [budget.RELEASE_BYTES] * 50:
        with shared.share() as share:
            share.take(count)
    assert wait_until(lambda: bool(released), AT_ONCE_S)
    assert len(released) == 1
    assert shared.held == 0
