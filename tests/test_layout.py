"""The house: no folder becomes a pile, and no file a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
RUN: dict[str, Any] = {"cwd": CHECKOUT, "capture_output": True, "text": True, "check": True}
MAX_FILES = 18
MAX_LINES = 400
PACKAGES = sorted(
    folder for package in ("engine", "pipelines") for folder in [CHECKOUT / package, *(CHECKOUT / package).rglob("*/")]
)


def _modules(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.py") if path.name != "__init__.py"]


def test_the_packages_are_found() -> None:
    assert sum(bool(_modules(folder)) for folder in PACKAGES) > 20


@pytest.mark.parametrize("folder", [pytest.param(f, id=str(f.relative_to(CHECKOUT))) for f in PACKAGES if _modules(f)])
def test_a_folder_holds_few_modules_and_says_what_they_are(folder: Path) -> None:
    assert len(_modules(folder)) <= MAX_FILES
    assert (folder / "__init__.py").read_text().startswith('"""')
    assert [path.name for path in _modules(folder) if len(path.read_text().splitlines()) > MAX_LINES] == []


def test_every_test_file_is_collected_and_every_module_is_linted() -> None:
    """Tools skip folders called `build` by default, and two of our folders have that name."""
    ruff = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files"], **RUN)
    linted = {Path(line).resolve() for line in ruff.stdout.splitlines()}
    assert {path for folder in PACKAGES for path in folder.glob("*.py")} <= linted
    collected = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/pipelines/build"], **RUN)
    files = {line.split("::")[0] for line in collected.stdout.splitlines() if "::" in line}
    assert files == {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "tests/pipelines/build").glob("test_*.py")}
