"""Paths of tracks: small, and true to within three percent of the object's height."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import TrackEvent, Tracks
from engine.events import track_collector
from engine.events.store.rows import TrackRow
from engine.events.track_collector import TrackCollector
from engine.events.track_paths import TOLERANCE, LivePath, box_at, pack, unpack
from tests.events import scenes
from tests.events.scenes import NS

ROUNDING = 3e-5


def path_of(times: np.ndarray, boxes: np.ndarray) -> LivePath:
    path = LivePath()
    path.add(times.astype(np.int64), boxes)
    return path


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(0.5, 2.0))
@settings(max_examples=40, deadline=None)
def test_every_sample_lies_within_the_tolerance_of_the_path(seed: int, count: int, aspect: float) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(20, 900, count)) * 1_000_000
    walk = np.cumsum(rng.normal(0, 0.004, (count, 2)), axis=0) + 0.5
    boxes = np.column_stack([walk, np.full(count, 0.05), np.linspace(0.1, 0.3, count)]).clip(0.001, 1)
    seconds, found = unpack(pack(path_of(times, boxes), aspect))
    for at, box in zip((times - times[0]) / NS, boxes, strict=True):
        there = box_at(seconds, found, at)
        assert there is not None
        off = np.abs(there - box) * (aspect, 1, aspect, 1)
        assert off.max() <= TOLERANCE * box[3] + 2 * ROUNDING + 0.004 * box[3]


def test_a_straight_walk_is_two_points_and_a_winding_one_stays_small() -> None:
    times = np.arange(300) * NS // 5
    straight = np.column_stack([np.linspace(0.1, 0.9, 300), np.full(300, 0.5), np.full(300, 0.05), np.full(300, 0.2)])
    assert len(pack(path_of(times, straight))) == 20
    winding = straight.copy()
    winding[:, 1] += 0.1 * np.sin(np.linspace(0, 12, 300))
    assert 100 < len(pack(path_of(times, winding))) < 700


def test_no_place_is_invented_while_an_object_is_not_seen() -> None:
    times = np.concatenate([np.arange(10), np.arange(400, 410)]) * NS // 5
    boxes = np.column_stack([np.linspace(0.1, 0.9, 20), *np.full((3, 20), 0.2)])
    seconds, found = unpack(pack(path_of(times, boxes)))
    assert box_at(seconds, found, 1.0) is not None
    assert box_at(seconds, found, 40.0) is None
    assert box_at(seconds, found, 81.0) is not None
    assert box_at(seconds, found, -0.1) is None
    assert box_at(seconds, found, 82.0) is None
    assert seconds[-1] == pytest.approx(81.8)  # longer than a step of 16 bits


@pytest.mark.parametrize("path", [b"", b"x", b"x" * 25])
def test_bytes_from_elsewhere_do_no_harm(path: bytes) -> None:
    seconds, found = unpack(path)
    assert len(seconds) == len(found) == len(path) // 10
    box_at(seconds, found, 0.0)


class Keeper:
    def __init__(self) -> None:
        self.rows: list[TrackRow] = []

    def put(self, row: TrackRow) -> None:
        self.rows.append(row)

    def put_all(self, rows: Sequence[object]) -> None:
        self.rows += [row for row in rows if isinstance(row, TrackRow)]

    def heat(self, *_: object) -> None:
        """Nothing was stored before."""


def test_a_long_track_is_kept_in_pieces_that_join() -> None:
    collector, keeper = TrackCollector(scenes.run(), "gate"), Keeper()
    for number in range(0, 30_000, 2):
        made = scenes.packet(number, [(5, 40, 15, 80)])
        for job in collector.add(made):
            job.apply(keeper)  # type: ignore[arg-type]
    for job in collector.finish():
        job.apply(keeper)  # type: ignore[arg-type]
    assert [row.piece for row in keeper.rows] == list(range(len(keeper.rows)))
    assert [row.is_last for row in keeper.rows] == [False] * (len(keeper.rows) - 1) + [True]
    assert all(
        after.began_utc_ns == before.ended_utc_ns
        for before, after in zip(keeper.rows[:-1], keeper.rows[1:], strict=True)
    )
    assert keeper.rows[-1].ended_utc_ns == scenes.UTC + 29_998 * NS // 10
    assert sum(len(row.path) for row in keeper.rows) < 10_000
    assert max(row.ended_utc_ns - row.began_utc_ns for row in keeper.rows) < 200 * NS


def test_a_track_that_nobody_ends_is_stored_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_collector, "BUNDLE", 1)
    collector, keeper = TrackCollector(scenes.run(), "gate"), Keeper()
    list(collector.add(scenes.packet(0, [(5, 40, 15, 80)], ids=[7])))
    for job in collector.add(scenes.packet(700, [(5, 40, 15, 80)], ids=[8])):
        job.apply(keeper)  # type: ignore[arg-type]
    assert [(row.track_id, row.is_last) for row in keeper.rows] == [(7, True)]


def test_the_last_detection_is_part_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_collector, "ENDED_NS", 0)
    collector, keeper = TrackCollector(scenes.run(), "gate"), Keeper()
    list(collector.add(scenes.packet(0, [(5, 40, 15, 80)])))
    event = TrackEvent("ended", 1, 9 * NS // 10, 1, 0, 3 * NS // 10, 0.625, 4, (105, 40, 115, 80))
    for job in collector.add(dataclasses.replace(scenes.packet(9), events=(event,))):
        job.apply(keeper)  # type: ignore[arg-type]
    [row] = keeper.rows
    seconds, boxes = unpack(row.path)
    assert (row.class_name, row.score) == ("car", 0.625)
    assert (seconds[-1], boxes[-1, 0]) == (0.3, pytest.approx(0.55, abs=1e-4))


@pytest.mark.parametrize("bundle", [1, 50])
@pytest.mark.parametrize(
    ("frames", "first", "last"),
    [
        pytest.param([(-1, False)] * 3, 0, 2, id="a tracker that never says what was detected"),
        pytest.param([(-1, False), (0, False), (-1, False)], 0, 1, id="one that says so from its second frame on"),
        pytest.param([(0, False), (-1, False), (-1, True)], 0, 2, id="nothing moved on the last frame"),
        pytest.param([(-1, True), (0, False), (-1, False)], 0, 1, id="nothing moved on the first frame"),
        pytest.param([(0, False), (-1, False), (-1, False)], 0, 0, id="only predicted after the first frame"),
    ],
)
def test_a_path_holds_what_was_observed(
    frames: list[tuple[int, bool]], first: int, last: int, bundle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track_collector, "BUNDLE", bundle)
    collector, keeper = TrackCollector(scenes.run(), "gate"), Keeper()
    jobs = []
    for number, (index, is_held) in enumerate(frames):
        made = scenes.packet(number, [(5, 40, 15, 80)])
        tracks = Tracks(made.tracks.xyxy, made.tracks.score, made.tracks.class_id, [1], None, [index])
        jobs += collector.add(dataclasses.replace(made, tracks=tracks, is_held=is_held, is_detected=not is_held))
    for job in [*jobs, *collector.finish()]:
        job.apply(keeper)  # type: ignore[arg-type]
    [row] = keeper.rows
    found = ((at - scenes.UTC) * scenes.FPS // NS for at in (row.began_utc_ns, row.ended_utc_ns))
    assert tuple(found) == (first, last)
