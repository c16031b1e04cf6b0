"""The examples of a model's life cycle, each in a reduced form."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent
MAX_LINES = 80


def run(script: str, folder: Path, *arguments: str) -> str:
    """Run an example in an empty folder and return what it printed."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(*names: str, extra: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is missing: pip install "framewire[{extra}]"')


def test_scratched_parts_are_told_from_good_ones(tmp_path: Path) -> None:
    needs("sklearn", extra="classic")
    printed = run("part_defects.py", tmp_path, "--parts", "30")
    [(found, of, right)] = re.findall(r"(\d+) of (\d+) found, (\d+) judged right", printed)
    assert int(found) == int(of) == 18
    assert int(right) >= 16


def test_products_are_counted_as_planned(tmp_path: Path) -> None:
    needs("sklearn", extra="classic")
    printed = run("shelf_products.py", tmp_path, "--pictures", "16")
    pairs = re.findall(r"(\d+) on the shelf, (\d+) planned", printed)
    assert len(pairs) == 4
    assert sum(abs(int(counted) - int(planned)) for counted, planned in pairs) <= 2


def test_a_hundred_pictures_per_class_are_enough(tmp_path: Path) -> None:
    needs("sklearn", extra="classic")
    printed = run("hundred_pictures.py", tmp_path)
    accuracies = [float(value) for value in re.findall(r"accuracy: ([0-9.]+)", printed)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.8
    assert (tmp_path / "digits.html").is_file()


@pytest.mark.timeout(600)
def test_a_detector_is_specialised_on_one_camera(tmp_path: Path) -> None:
    needs("torch", "torchvision", "libreyolo", "onnxsim", extra="train")
    data = Path(os.environ.get("FRAMEWIRE_DATA", EXAMPLES.parents[2] / "shared" / "data"))
    base = data / "models" / "more" / "deimv2_hgnetv2_femto_coco.onnx"
    if not base.is_file():
        pytest.skip(f"no {base}: set FRAMEWIRE_DATA")
    printed = run("one_camera.py", tmp_path, str(base), "--budget", "0.5e", "--size", "224")
    assert float(printed.rsplit(maxsplit=1)[-1]) > 0.2


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("[!ct]*.py")), ids=lambda path: path.name)
def test_example_is_short_and_says_how_to_run_it(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert f"python examples/learning/{script.name}" in text.partition('"""\n')[0]
