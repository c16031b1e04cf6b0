from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.tracking.registry import tracker_by_name
from pipelines.scoring.mot import track_mot
from pipelines.scoring.track import evaluate_mot

pytest.importorskip("trackers", reason="trackers is not installed: pip install trackers")

FRAMES = range(1, 41)


def write(path: Path, rows: list[tuple[float, ...]]) -> Path:
    path.write_text("\n".join(",".join(str(value) for value in row) for row in rows), encoding="utf-8")
    return path


def two_walkers(ids: tuple[int, int] = (1, 2), swap_at: int = 1000) -> list[tuple[float, ...]]:
    rows: list[tuple[float, ...]] = []
    for f in FRAMES:
        a, b = ids if f < swap_at else ids[::-1]
        rows += [(f, a, 10 + 2 * f, 20, 40, 100, 1, -1, -1, -1), (f, b, 300 - 2 * f, 300, 40, 100, 1, -1, -1, -1)]
    return rows


def test_the_truth_itself_is_perfect(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt.txt", two_walkers())
    scores = evaluate_mot(gt, write(tmp_path / "pred.txt", two_walkers((8, 5))))
    assert (scores.hota, scores.mota, scores.idf1) == pytest.approx((1, 1, 1))
    assert (scores.id_switches, scores.fragments, scores.objects, scores.true_ids, scores.ids) == (0, 0, 80, 2, 2)


def test_a_swap_costs_identity_and_not_detection(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt.txt", two_walkers())
    scores = evaluate_mot(gt, write(tmp_path / "pred.txt", two_walkers(swap_at=21)))
    assert scores.id_switches == 2
    assert scores.idf1 == pytest.approx(0.5)
    assert scores.deta == pytest.approx(1)
    assert scores.mota == pytest.approx(1 - 2 / 80)


def test_distractors_and_ignored_rows_do_not_count(tmp_path: Path) -> None:
    rows = [(*row[:6], 1, 1, 1.0) for row in two_walkers()]
    extra = [(f, 9, 500, 500, 40, 100, 0, 8, 1.0) for f in FRAMES]
    pred = two_walkers() + [(f, 7, 500, 500, 40, 100, 1, -1, -1, -1) for f in FRAMES]
    scores = evaluate_mot(write(tmp_path / "gt.txt", rows + extra), write(tmp_path / "pred.txt", pred))
    assert (scores.mota, scores.precision) == pytest.approx((1, 1))


def test_nothing_tracked_is_a_score_of_nothing(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt.txt", two_walkers())
    scores = evaluate_mot(gt, write(tmp_path / "pred.txt", []))
    assert (scores.hota, scores.idf1, scores.recall, scores.ids) == (0, 0, 0, 0)


def test_detections_given_for_tracks_are_refused(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt.txt", two_walkers())
    pred = write(tmp_path / "pred.txt", [(f, -1, 1, 2, 3, 4, 1) for f in FRAMES])
    with pytest.raises(ConfigError, match="has no ids"):
        evaluate_mot(gt, pred)


def test_an_id_twice_on_a_frame_is_refused(tmp_path: Path) -> None:
    gt = write(tmp_path / "gt.txt", two_walkers())
    with pytest.raises(ConfigError, match="has the same id twice on one frame"):
        evaluate_mot(gt, write(tmp_path / "pred.txt", two_walkers((3, 3))))


@pytest.mark.parametrize("sequence", ["TUD-Campus", "TUD-Stadtmitte"])
@pytest.mark.parametrize("name", ["steady", "bytetrack", "ocsort", "sort", "botsort"])
def test_real_pedestrians_are_tracked_better_than_by_the_reference_code(
    data_dir: Path, tmp_path: Path, name: str, sequence: str
) -> None:
    """`example_tracker_output.txt` comes with the sequences."""
    folder = data_dir / "mot" / sequence
    track_mot(folder / "det" / "det.txt", 25.0, tracker_by_name(name), tmp_path / "out.txt")
    scores = evaluate_mot(folder / "gt" / "gt.txt", tmp_path / "out.txt")
    reference = evaluate_mot(folder / "gt" / "gt.txt", folder / "example_tracker_output.txt")
    assert scores.hota > reference.hota
    assert scores.idf1 > reference.idf1
    assert scores.mota > reference.mota
