from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.data import Tracks
from engine.errors import ConfigError, SinkError, SourceError
from engine.tracking.registry import tracker_by_name
from pipelines.scoring.mot import read_mot, track_mot, write_mot

DETECTIONS = "\n".join(f"{f},-1,{10 + 2 * f},20,40,100,0.9,-1,-1,-1" for f in range(1, 31))


@pytest.fixture
def det(tmp_path: Path) -> Path:
    path = tmp_path / "det.txt"
    path.write_text(DETECTIONS, encoding="utf-8")
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    tracks = Tracks([[1, 2, 11, 22], [3, 4, 8, 9]], [0.5, 0.75], [0, 0], [3, 7])
    assert write_mot(tmp_path / "out.txt", [4, 6], [tracks, tracks[:1]]) == 3
    rows = read_mot(tmp_path / "out.txt")
    assert rows.frame.tolist() == [4, 4, 6]
    assert rows.track_id.tolist() == [3, 7, 3]
    assert rows.xyxy[0].tolist() == [1, 2, 11, 22]
    assert rows.score.tolist() == [0.5, 0.75, 0.5]


@pytest.mark.parametrize(
    ("text", "class_id"),
    [
        pytest.param("1,5,1,2,3,4,1,1,0.8\n", 1, id="MOT16 with class and visibility"),
        pytest.param("1,5,1,2,3,4,1,4.48,5.5,0\n", -1, id="MOT15 with world coordinates"),
        pytest.param("1 5 1 2 3 4 1\n", -1, id="blanks"),
        pytest.param("1,5,1,2,3,4\n", -1, id="no score"),
        pytest.param("1,5,1,2,3,4,1,\n\n", -1, id="comma and empty line at the end"),
    ],
)
def test_every_form_is_read(tmp_path: Path, text: str, class_id: int) -> None:
    path = tmp_path / "gt.txt"
    path.write_text(text, encoding="utf-8")
    rows = read_mot(path)
    assert (rows.track_id[0], rows.score[0], rows.class_id[0]) == (5, 1.0, class_id)
    assert rows.tlwh.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "text", ["hello\n", "1,2,3\n", "0,1,1,2,3,4,1\n", "1,1,nan,2,3,4,1\n", "1,1,1,2,3,4,1\n1,1\n"], ids=repr
)
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "det.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match="is not a MOTChallenge file"):
        read_mot(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere.txt: cannot be read"):
        read_mot(tmp_path / "nowhere.txt")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text("", encoding="utf-8")
    assert len(read_mot(tmp_path / "det.txt")) == 0


def test_a_tracker_runs_over_a_file(det: Path, tmp_path: Path) -> None:
    summary = track_mot(det, 25.0, tracker_by_name("bytetrack"), tmp_path / "out.txt")
    assert (summary.frames, summary.detected, summary.rows, summary.ids) == (30, 30, 30, 1)
    np.testing.assert_allclose(read_mot(tmp_path / "out.txt").tlwh[-1], [70, 20, 40, 100], atol=3)


def test_skipped_frames_are_predicted(det: Path, tmp_path: Path) -> None:
    summary = track_mot(det, 25.0, tracker_by_name("bytetrack"), tmp_path / "out.txt", detect_every=3)
    assert (summary.frames, summary.detected, summary.rows, summary.ids) == (30, 10, 30, 1)


def test_an_impossible_rate_is_refused(det: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fps is 0"):
        track_mot(det, 0, tracker_by_name("sort"), tmp_path / "out.txt")


def test_an_output_that_cannot_be_written_is_named(det: Path, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be written"):
        track_mot(det, 25.0, tracker_by_name("sort"), tmp_path / "no" / "out.txt")
