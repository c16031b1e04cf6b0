"""The layout of the project: limits on the size of folders, files and functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
RUN: dict[str, Any] = {"cwd": CHECKOUT, "capture_output": True, "text": True, "check": True}
MAX_FILES = 18
MAX_LINES = 399
MAX_FUNCTION = 60
PACKAGES = sorted(
    folder for package in ("engine", "pipelines") for folder in [CHECKOUT / package, *(CHECKOUT / package).rglob("*/")]
)


TREES = [  # all folders of the checkout with Python files
    folder
    for tree in ("engine", "pipelines", "tools", "tests", "examples", "docs")
    for folder in [CHECKOUT / tree, *(CHECKOUT / tree).rglob("*/")]
    if folder.name != "__pycache__"
]


def _modules(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.py") if path.name != "__init__.py"]


def test_the_packages_are_found() -> None:
    assert sum(bool(_modules(folder)) for folder in PACKAGES) > 20


def test_every_folder_holds_few_modules() -> None:
    """Of code, tools, tests and examples alike."""
    counts = {str(folder.relative_to(CHECKOUT)): len(_modules(folder)) for folder in TREES}
    assert {name: count for name, count in counts.items() if count > MAX_FILES} == {}


@pytest.mark.parametrize("folder", [pytest.param(f, id=str(f.relative_to(CHECKOUT))) for f in PACKAGES if _modules(f)])
def test_a_folder_says_what_its_short_modules_are(folder: Path) -> None:
    assert (folder / "__init__.py").read_text().startswith('"""')
    assert [path.name for path in _modules(folder) if len(path.read_text().splitlines()) > MAX_LINES] == []


def test_tools_are_as_short_as_modules() -> None:
    tools = sorted((CHECKOUT / "tools").rglob("*.py"))
    assert [path.name for path in tools if len(path.read_text().splitlines()) > MAX_LINES] == []


@pytest.mark.parametrize("folder", ["engine", "pipelines", "tools"])
def test_functions_are_short(folder: str) -> None:
    """Without docstrings: at most 60 lines, half of them at most 7, nine of ten at most 20."""
    lengths = {}
    for path in sorted((CHECKOUT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{path.relative_to(CHECKOUT)}:{node.lineno} {node.name}"] = _lines(node)
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}
    in_order = sorted(lengths.values())
    assert in_order[len(in_order) // 2] <= 7
    assert in_order[int(0.9 * len(in_order))] <= 20


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring."""
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str
    without = (first.end_lineno or 0) - first.lineno + 1 if is_text else 0
    return (node.end_lineno or 0) - node.lineno + 1 - without


def test_every_test_file_is_collected_and_every_module_is_linted() -> None:
    """Tools skip folders called `build` by default, and two of our folders have that name."""
    ruff = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files"], **RUN)
    linted = {Path(line).resolve() for line in ruff.stdout.splitlines()}
    assert {path for folder in PACKAGES for path in folder.glob("*.py")} <= linted
    collected = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/pipelines/build"], **RUN)
    files = {line.split("::")[0] for line in collected.stdout.splitlines() if "::" in line}
    assert files == {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "tests/pipelines/build").glob("test_*.py")}
