"""`framewire count`: lines and zones over the tracks of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.errors import ConfigError, SourceError
from pipelines.cli import app
from pipelines.scoring.count import count_mot
from pipelines.scoring.mot import read_mot
from tools.measure.scene_answers import LINES


@pytest.mark.parametrize("sequence", LINES)
def test_ground_truth_is_counted_exactly(data_dir: Path, sequence: str) -> None:
    lines = [Line(f"x{x}", [(x, 480), (x, 0)]) for x in LINES[sequence]]
    counted = count_mot(data_dir / "mot" / sequence / "gt" / "gt.txt", 25, (640, 480), Analytics([], lines))
    assert {int(name[1:]): tuple(directions.values()) for name, directions in counted["lines"].items()} == LINES[
        sequence
    ]


def _crossings(path: Path, ends: np.ndarray, band_px: float) -> tuple[int, int]:
    """Count the crossings of a segment by a plain loop that forgets positions closer than `band_px` to its line."""
    rows = read_mot(path)
    (start, end), counts = ends, [0, 0]
    along = end - start
    for track in np.unique(rows.track_id):
        left, top, width, height = rows.tlwh[(rows.track_id == track) & (rows.score != 0)].T
        feet = np.stack((left + width / 2, top + height), axis=1) - start
        off = (along[0] * feet[:, 1] - along[1] * feet[:, 0]) / np.hypot(*along)  # to the right, y points downwards
        feet, off = feet[np.abs(off) > band_px], off[np.abs(off) > band_px]
        for at in np.flatnonzero(np.sign(off[1:]) != np.sign(off[:-1])):
            share = off[at] / (off[at] - off[at + 1])
            where = (feet[at] + share * (feet[at + 1] - feet[at])) @ along / (along @ along)
            counts[int(off[at] > 0)] += 0 <= where < 1
    return counts[0], counts[1]


@pytest.mark.parametrize("sequence", LINES)
def test_ground_truth_is_counted_exactly_on_any_line(data_dir: Path, sequence: str) -> None:
    """Lines at random, where the truth does not depend on how far somebody must get: 0 to 15 pixels."""
    path, rng = data_dir / "mot" / sequence / "gt" / "gt.txt", np.random.default_rng(7)
    ends = rng.uniform((20, 120), (620, 470), (80, 2, 2)).round()
    ends = ends[np.hypot(*(ends[:, 0] - ends[:, 1]).T) > 100]
    truths = [{_crossings(path, each, band) for band in (0, 5, 10, 15)} for each in ends]
    lines = [Line(f"l{n}", [tuple(point) for point in each]) for n, each in enumerate(ends)]
    found = count_mot(path, 25, (640, 480), Analytics([], lines))["lines"]
    counted = {name: tuple(directions.values()) for name, directions in found.items()}
    expected = {f"l{n}": truth.pop() for n, truth in enumerate(truths) if len(truth) == 1}
    assert len(expected) > 30
    assert sum(map(sum, expected.values())) > 20
    assert {name: counted[name] for name in expected} == expected


def _mot(folder: Path, rows: list[tuple[float, ...]]) -> Path:
    path = folder / "gt.txt"
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def _walk(track_id: int, score: float = 1, frames: range = range(1, 31)) -> list[tuple[float, ...]]:
    return [(frame, track_id, 180 + 10 * frame, 200, 40, 100, score, -1, -1, -1) for frame in frames]


@pytest.mark.parametrize(
    ("rows", "crossings", "visits"),
    [
        pytest.param(_walk(1), 1, 1, id="one object"),
        pytest.param([*_walk(1), *_walk(2, score=0)], 1, 1, id="confidence 0 is ignored"),
        pytest.param(_walk(1, score=-1), 1, 1, id="the output of a tracker has no confidence"),
        pytest.param(_walk(1, score=0.2), 0, 0, id="a mean score that is too low"),
        pytest.param([*_walk(1), *_walk(2, frames=range(12, 14))], 1, 1, id="a ghost of two frames"),
        pytest.param([], 0, 0, id="an empty file"),
    ],
)
def test_rows_that_count(tmp_path: Path, rows: list[tuple[float, ...]], crossings: int, visits: int) -> None:
    analytics = Analytics([Zone("z", [(0, 0), (640, 0), (640, 480), (0, 480)])], [Line("l", [(320, 480), (320, 0)])])
    counted = count_mot(_mot(tmp_path, rows), 10, (640, 480), analytics)
    assert counted["lines"]["l"]["left_to_right"] == crossings
    assert counted["zones"]["z"]["visits"] == visits


@pytest.mark.parametrize(
    ("rows", "fps", "size", "error", "message"),
    [
        pytest.param(_walk(-1), 10, (640, 480), SourceError, "without identity", id="detections"),
        pytest.param([*_walk(1), *_walk(1)], 10, (640, 480), SourceError, "twice on frame 1", id="twice"),
        pytest.param(_walk(1), 0, (640, 480), ConfigError, "fps", id="no frame rate"),
        pytest.param(_walk(1), float("nan"), (640, 480), ConfigError, "fps", id="a frame rate that is NaN"),
        pytest.param(_walk(1), 10, (0, 480), ConfigError, "size", id="no width"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    tmp_path: Path, rows: list[tuple[float, ...]], fps: float, size: tuple[int, int], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        count_mot(_mot(tmp_path, rows), fps, size, Analytics([], [Line("l", [(320, 480), (320, 0)])]))


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["count", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_json_on_the_command_line(tmp_path: Path) -> None:
    path = str(_mot(tmp_path, _walk(1)))
    places = ["--line", "door=320,480,320,0", "--line", "f=0.5,1,0.5,0", "--zone", "all=0,0,1,0,1,1,0,1"]
    output = _run("--mot", path, "--fps", "10", "--size", "640x480", *places, "--json")
    counted = json.loads(output.splitlines()[-1])
    assert counted == {
        "lines": {"door": {"left_to_right": 1, "right_to_left": 0}, "f": {"left_to_right": 1, "right_to_left": 0}},
        "zones": {"all": {"visits": 1, "now": 1, "dwell_s": {"p50": 2.9, "max": 2.9, "sum": 2.9}}},
    }


def test_an_identity_that_comes_back_after_a_long_gap_has_crossed(tmp_path: Path) -> None:
    before, after = (
        _walk(1, frames=range(1, 10)),
        [(300 + frame, *rest) for frame, *rest in _walk(1, frames=range(20, 31))],
    )
    path = str(_mot(tmp_path, [*before, *after]))
    output = _run("--mot", path, "--fps", "10", "--size", "640x480", "--line", "door=320,480,320,0")
    assert output == "door: left_to_right 1, right_to_left 0\n"


def test_text_on_the_command_line(tmp_path: Path) -> None:
    path = str(_mot(tmp_path, _walk(1)))
    output = _run("--mot", path, "--fps", "10", "--size", "640X480", "--line", "door=320,480,320,0")
    assert output == "door: left_to_right 1, right_to_left 0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing to count"),
        pytest.param(["--line", "door=320,480,320"], id="half a point"),
        pytest.param(["--line", "320,480,320,0"], id="no name"),
        pytest.param(["--line", "door=a,b,c,d"], id="no numbers"),
        pytest.param(["--line", "door=320,480,320,0", "--line", "door=320,480,320,0"], id="twice"),
        pytest.param(["--zone", "z=0,0,1,1,1,0,0,1"], id="bow tie"),
    ],
)
def test_bad_places_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    path = str(_mot(tmp_path, _walk(1)))
    with pytest.raises(ConfigError, match="give|expected"):
        CliRunner().invoke(
            app, ["count", "--mot", path, "--fps", "10", "--size", "640x480", *arguments], catch_exceptions=False
        )
