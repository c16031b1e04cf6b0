"""Runs the fault tests against a running engine. The harness belongs to the tests, so this needs a source checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.errors import ConfigError

SCRIPT = Path("tools") / "faults.py"
CATALOGUE = Path("tests") / "faults" / "catalogue.py"


def play_faults(only: str = "", *, as_json: bool = False) -> int:
    """Run the source checkout's fault tests, which print their table, and return the exit code (1: a check failed).

    Args:
        only: run those whose name contains this.
        as_json: print one JSON line instead of the table.

    Raises:
        ConfigError: framewire was not started from a source checkout, nor inside one.
    """
    root = checkout()
    line = [sys.executable, str(root / SCRIPT), "--only", only, *(["--json"] if as_json else [])]
    return subprocess.run(line, cwd=root, check=False).returncode


def checkout() -> Path:
    """Return the source checkout that this package belongs to, or the one that contains the working directory.

    Raises:
        ConfigError: there is none.
    """
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / SCRIPT).is_file() and (root / CATALOGUE).is_file():
            return root
    raise ConfigError(
        "--faults runs the fault tests of a source checkout (tools/faults.py, tests/faults), and the installed "
        "package has none: run it in a clone or an unpacked source distribution; docs/faults.md has their results"
    )
