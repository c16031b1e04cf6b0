"""What runs leave in the runtime folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.running.control_access import leave_card


def test_cards_and_sockets_of_runs_that_are_over_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    over = subprocess.Popen([sys.executable, "-c", ""])
    over.wait()
    folder = tmp_path / "framewire"
    folder.mkdir(0o700)
    mine, other = folder / f"control-{os.getpid()}.sock", folder / "control-of-somebody.sock"
    for path in (folder / f"control-{over.pid}.sock", mine, other):
        path.touch()
    (folder / f"control-{over.pid}-0.json").write_text(f'{{"address": "ipc:///x", "pid": {over.pid}}}')
    card = leave_card(f"ipc://{mine}")
    assert set(folder.iterdir()) == {card, mine, other}
