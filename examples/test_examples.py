"""Runs every example as a user would, and checks that it does what it says: `pytest examples`."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import pytest

from engine.assets import demo_clip

EXAMPLES = Path(__file__).resolve().parent
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem not in ("test_examples", "conftest"))
MAX_LINES = 40
TIMEOUT_S = 110


def run(script: str, folder: Path, *arguments: str) -> str:
    """Run an example in an empty folder, with warnings as errors, and return what it printed."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def address(free_address: str, tmp_path: Path) -> Iterator[str]:
    """Address of an engine that plays the embedded clip like a camera until the test ends."""
    command = [sys.executable, "-m", "pipelines", "run", "--source", f"demo={demo_clip()}", "--publish", free_address]
    command += ["--set", "sources.0.realtime=true", "--set", "sources.0.loop=true"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as engine:
        yield free_address
        engine.terminate()


def people_per_frame(printed: str) -> list[int]:
    return [line.count("person #") for line in printed.splitlines() if line.startswith("frame ")]


def check_minimal(printed: str, folder: Path) -> None:
    assert len(people_per_frame(printed)) == 50
    assert max(people_per_frame(printed)) >= 5


def check_zone(printed: str, folder: Path) -> None:
    now = [int(count) for count in re.findall(r"frame \d+: (\d+) in the zone", printed)]
    total = re.search(r"(\d+) different people", printed)
    assert total is not None
    assert int(total[1]) >= max(now) >= 2


def check_crops(printed: str, folder: Path) -> None:
    import cv2

    crops = [cv2.imread(str(path)) for path in sorted((folder / "crops").glob("person_*.jpg"))]
    assert len(crops) >= 5
    assert all(crop.shape[0] > crop.shape[1] for crop in crops)  # people walk upright


def check_pandas(printed: str, folder: Path) -> None:
    import pandas as pd

    rows = pd.read_csv(folder / "tracks.csv")
    assert set(rows["name"]) == {"person"}
    assert rows["frame"].max() == 99
    assert rows["seconds"].max() == pytest.approx(9.9)
    assert (rows["x2"] > rows["x1"]).all()


def check_sink(printed: str, folder: Path) -> None:
    (frames,) = sqlite3.connect(folder / "tracks.db").execute("SELECT count(DISTINCT frame) FROM tracks").fetchone()
    assert frames >= 45
    assert "'person'" in printed


def check_detector(printed: str, folder: Path) -> None:
    last = printed.splitlines()[-1]
    assert last.startswith("59 {")
    boxes = re.findall(r"\((\d+), (\d+), (\d+), (\d+)\)", last)
    assert any(90 <= int(x1) <= 130 and 500 <= int(y1) <= 540 for x1, y1, *_ in boxes)  # the cloth on the lawn


def check_merged(printed: str, folder: Path) -> None:
    last = printed.splitlines()[-1]
    assert "'person'" in last
    assert "'motion'" in last


def check_two_models(printed: str, folder: Path) -> None:
    gate = [line for line in printed.splitlines() if line.startswith("gate ")]
    yard = [line for line in printed.splitlines() if line.startswith("yard ")]
    assert (len(gate), len(yard)) == (40, 40)
    assert "nanodet-g.onnx: " in gate[-1]
    assert "{'person'}" in gate[-1]
    assert "motion: " in yard[-1]
    assert "{'motion'}" in yard[-1]


def check_analyser(printed: str, folder: Path) -> None:
    found = [line.partition("standing still: ")[2] for line in printed.splitlines()]
    assert len(found) == 80
    assert set(found[:14]) == {"[]"}  # no one has been seen for long enough
    assert any(line != "[]" for line in found)


def check_heat_map(printed: str, folder: Path) -> None:
    import cv2

    image = cv2.imread(str(folder / "heat_map.jpg"))
    assert image.shape == (576, 768, 3)


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "minimal.py": check_minimal,
    "count_in_zone.py": check_zone,
    "crop_objects.py": check_crops,
    "to_pandas.py": check_pandas,
    "custom_sink.py": check_sink,
    "custom_detector.py": check_detector,
    "two_models.py": check_two_models,
    "merge_detectors.py": check_merged,
    "custom_analyser.py": check_analyser,
    "heat_map.py": check_heat_map,
}
ON_A_STREAM = {"subscribe_and_alert.py": "ALERT: ", "async_subscribe.py": "total: {"}


@pytest.mark.parametrize("script", CHECKS)
def test_example_runs_on_the_embedded_clip(script: str, tmp_path: Path) -> None:
    CHECKS[script](run(script, tmp_path), tmp_path)


@pytest.mark.parametrize("script", ON_A_STREAM)
def test_example_reads_the_stream_of_an_engine(script: str, address: str, tmp_path: Path) -> None:
    printed = run(script, tmp_path, address)
    assert ON_A_STREAM[script] in printed
    assert "person" in printed or "people" in printed


def test_notebook_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    packets = names["packets"]
    assert isinstance(packets, list)
    assert len(packets) == 60


def test_every_example_is_run_by_a_test() -> None:
    assert {path.name for path in SCRIPTS} == {*CHECKS, *ON_A_STREAM}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_example_fits_on_a_screen_and_says_how_to_run_it(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert f"python examples/{script.name}" in text.partition('"""\n')[0]
