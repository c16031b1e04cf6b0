"""Playing faults to a running engine: the harness belongs to the tests, which only a source checkout has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.errors import ConfigError

SCRIPT = Path("tools") / "faults.py"
CATALOGUE = Path("tests") / "faults" / "catalogue.py"


def play_faults(only: str = "", *, as_json: bool = False) -> int:
    """Play the faults of the source checkout, which prints their table, and return its exit code (1: a check failed).

    Args:
        only: play those whose name contains this.
        as_json: print one JSON line in place of the table.

    Raises:
        ConfigError: framewire does not run from a source checkout, nor in one.
    """
    root = checkout()
    line = [sys.executable, str(root / SCRIPT), "--only", only, *(["--json"] if as_json else [])]
    return subprocess.run(line, cwd=root, check=False).returncode


def checkout() -> Path:
    """Return the source checkout that this package belongs to, or else that one is in.

    Raises:
        ConfigError: there is none.
    """
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / SCRIPT).is_file() and (root / CATALOGUE).is_file():
            return root
    raise ConfigError(
        "--faults plays the faults of a source checkout (tools/faults.py, tests/faults), and the installed package has "
        "none: run it in a clone or an unpacked source distribution; what they have shown is in docs/faults.md"
    )
