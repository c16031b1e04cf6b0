"""Zones agree with a plain state machine on the output of trackers and on random walks, visit by visit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.analytics import scene
from engine.analytics.analytics import Analytics
from engine.analytics.geometry import crosses_itself
from engine.analytics.places import Zone
from engine.data import Tracks
from pipelines.scoring.mot import read_mot
from tests.analytics.plain_zones import Observation, visits
from tests.analytics.scripted import NS
from tests.analytics.wild import SIZE, _Sight, _walkers

Frames = list[tuple[int, Tracks, list[int]]]
"""Time in ns, tracks, and the tracks that ended before."""
SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")


def _not_stitched(_rows: Any, _seen: Any, _box: Any, class_id: np.ndarray[Any, Any], _now_s: float) -> list[int]:
    return [-1] * len(class_id)


def _zones(rng: np.random.Generator, number: int) -> list[Zone]:
    """Return polygons of three to seven corners, some of them on the border of the frame."""
    width, height = SIZE
    zones: list[Zone] = []
    for at in count():
        middle, corners = rng.uniform((0.1 * width, 0.35 * height), (0.9 * width, 0.95 * height)), rng.integers(3, 8)
        angle, radius = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.06, 0.25, corners) * width
        points = np.stack((np.cos(angle), np.sin(angle)), axis=1) * radius[:, None] + middle
        inside = [(float(x), float(y)) for x, y in np.clip(points, 0, (width - 1, height - 1)).round()]
        if not crosses_itself(inside):
            zones.append(Zone(f"z{at}", inside))
        if len(zones) == number:
            break
    return zones


def _of_tracker(path: Path, fps: float) -> Frames:
    rows = read_mot(path)
    last = dict(zip(rows.track_id.tolist(), rows.frame.tolist(), strict=True))
    frames, ended = [], list[int]()
    for frame in np.unique(rows.frame).tolist():
        at = rows.at(frame)
        score = np.where(rows.score[at] < 0, 1.0, rows.score[at])  # trackers write -1 if they have none
        seen = np.arange(len(score))
        tracks = Tracks(rows.xyxy[at], score, np.zeros(len(score)), rows.track_id[at], None, seen)
        frames.append((round((frame - 1) * NS / fps), tracks, ended))
        ended = [track_id for track_id, final in last.items() if final == frame]
    return frames


def _of_walkers(seed: int) -> Frames:
    rng = np.random.default_rng(seed)
    fps, count_of = float(rng.choice([1, 5, 10, 15, 25])), int(rng.choice([3, 8, 20]))
    sight = _Sight(rng, _walkers(rng, count_of, 300 / fps))
    sight._never_tells = False
    times_ns = np.cumsum(rng.choice([1, 1, 1, 2], 300)) * round(NS / fps)
    return [(at_ns, *sight.frame(number / fps, 1.0)) for number, at_ns in enumerate(times_ns.tolist())]


def _observed(tracks: Tracks, identity_of: dict[int, int]) -> Iterator[Observation]:
    columns = (tracks.track_id, tracks.xyxy.astype(float), tracks.score.astype(float), tracks.class_id)
    for index, track_id, box, score, class_id in zip(
        tracks.detection_index.tolist(), *(column.tolist() for column in columns), strict=True
    ):
        if index >= 0:
            x1, y1, x2, y2 = box
            yield Observation(identity_of[track_id], track_id, (x1, y1, x2, y2), score, class_id)


def _compared(frames: Frames, zones: list[Zone]) -> Iterable[tuple[list[float], list[float]]]:
    """Return, for each zone, visits and seconds as analytics counts them and as the plain machine does."""
    analytics, seen = Analytics(zones), []
    for at_ns, tracks, ended in frames:
        objects = analytics.update(tracks, at_ns, SIZE, ended=ended).objects
        identity_of = dict(zip(objects.track_id.tolist(), objects.identity.tolist(), strict=True))
        seen.append(((at_ns - frames[0][0]) / NS, list(_observed(tracks, identity_of))))
    summary = analytics.summary()["zones"]
    for zone in zones:
        told, total_s = visits(seen, zone.points, SIZE)
        found = summary[zone.name]
        yield [found["visits"], found["dwell_s"]["sum"]], [len(told), pytest.approx(total_s, abs=0.002)]


@pytest.mark.parametrize("is_stitching", [False, True])
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_zones_over_the_output_of_a_tracker_agree_with_a_plain_state_machine(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, sequence: str, is_stitching: bool
) -> None:
    if not is_stitching:
        monkeypatch.setattr(scene, "stitched", _not_stitched)
    frames = _of_tracker(data_dir / "mot" / sequence / "example_tracker_output.txt", 25)
    pairs = list(_compared(frames, _zones(np.random.default_rng(3), 40)))
    assert sum(found[0] for found, _ in pairs) > 25
    assert [found for found, _ in pairs] == [plain for _, plain in pairs]


@pytest.mark.parametrize("is_stitching", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_zones_over_random_walks_agree_with_a_plain_state_machine(
    monkeypatch: pytest.MonkeyPatch, seed: int, is_stitching: bool
) -> None:
    if not is_stitching:
        monkeypatch.setattr(scene, "stitched", _not_stitched)
    pairs = list(_compared(_of_walkers(seed), _zones(np.random.default_rng(seed), 12)))
    assert [found for found, _ in pairs] == [plain for _, plain in pairs]
