"""A camera is opened and closed without a trace; `tools/measure/open_close.py` does it 1,000 times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rtsp_server import missing_server

TOOL = Path(__file__).resolve().parents[2] / "tools" / "measure" / "open_close.py"
COUNT = 25
ALLOWED_KB = 150.0  # a frame of this camera is 230 kB: keeping one per cycle would show


@pytest.mark.rtsp
@pytest.mark.parametrize("reader", ["thread", "process"])
def test_opening_and_closing_leaves_nothing(reader: str) -> None:
    if missing_server():
        pytest.skip(missing_server())
    line = [sys.executable, str(TOOL), "--cycles", str(COUNT), "--reader", reader, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)  # no other test's memory
    found = json.loads(done.stdout.splitlines()[-1])[reader]
    assert found["children"] == 0
    assert found["threads"][1] <= found["threads"][0]
    assert found["descriptors"][1] <= found["descriptors"][0]
    assert found["kb_per_cycle"] < ALLOWED_KB
