"""The short form of `tools/attack.py`: every surface for a few seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "attack.py"
SURFACES = (
    *("wire", "config", "images", "models", "labels"),
    *("control", "snapshot", "publish", "streams", "push", "fleet", "serve", "mqtt"),
)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.timeout(240)
def test_a_few_seconds_of_damage_end_nothing(surface: str) -> None:
    command = [sys.executable, str(TOOL), "--only", surface, "--minutes", "0.05", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    [result] = json.loads(done.stdout.splitlines()[-1])
    print(result)
    assert result["tries"] > 0
    assert (result["ends"], result["leaks"], result["stalls"]) == (0, 0, 0), result
