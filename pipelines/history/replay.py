"""Applies rules to the past: runs analytics over the stored paths of tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.clock import NS_PER_S
from engine.data import Run, Tracks
from engine.events.row_maker import RowMaker
from engine.events.store.reader import EventReader
from engine.events.store.rows import EventRow, GapRow, TrackRow
from engine.events.track_paths import box_at, unpack
from engine.wire.findings import Moment

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_NS = NS_PER_S // 10
UNSEEING = ("stalled", "offline", "connecting")
SIZE_WH = (1920, 1080)
"""For a run in which nothing was seen."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Path:
    """A piece of a path, unpacked."""

    row: TrackRow
    seconds: NDArray[np.float64]
    boxes: NDArray[np.float64]

    def xyxy(self, utc_ns: int) -> list[float] | None:
        """Return the box in pixels at a time; None where the object was not seen."""
        box = box_at(self.seconds, self.boxes, (utc_ns - self.row.began_utc_ns) / NS_PER_S)
        if box is None:
            return None
        x, y, width, height = (box * (self.row.width, self.row.height, self.row.width, self.row.height)).tolist()
        return [x - width / 2, y - height, x + width / 2, y]


def replay(
    reader: EventReader,
    source_id: str,
    analytics: Analytics,
    from_utc_ns: int,
    to_utc_ns: int,
    progress: Progress = lambda done, total: None,
) -> list[EventRow]:
    """Return the events that rules would have raised on a source in a span of time.

    Every run of an engine is its own stream, because identities end with it.

    Args:
        reader: of the log.
        source_id: the source.
        analytics: places and rules, without state.
        from_utc_ns: begin of the span.
        to_utc_ns: end of the span.
        progress: called with the seconds done and the total seconds.
    """
    by_run: dict[int, list[TrackRow]] = {}
    for row in reader.tracks(source_id, from_utc_ns, to_utc_ns):
        by_run.setdefault(row.run_epoch, []).append(row)
    names = sorted({row.class_name for rows in by_run.values() for row in rows})
    gaps = reader.gaps(source_id, from_utc_ns, to_utc_ns)
    found: list[EventRow] = []
    for watched in reader.source_runs(source_id):
        if watched.seen_utc_ns <= from_utc_ns or watched.began_utc_ns >= to_utc_ns:
            continue
        scene = analytics.clone()
        scene.class_names = names
        own = [gap for gap in gaps if gap.run_epoch == watched.run_epoch and gap.cause in UNSEEING]
        past = _Past(by_run.get(watched.run_epoch, []), own, names)
        span = max(watched.began_utc_ns, from_utc_ns), min(watched.seen_utc_ns, to_utc_ns)
        run = Run(watched.engine_id, watched.run_epoch, class_names=tuple(names))
        found += _events(past.findings(scene, *span, progress), source_id, run)
    return [event for event in found if from_utc_ns <= event.began_utc_ns < to_utc_ns]


class _Past:
    """The observations of one run: paths, and times in which nothing was seen.

    Args:
        rows: pieces of paths.
        gaps: times in which the camera was not seen.
        names: of all classes.
    """

    def __init__(self, rows: list[TrackRow], gaps: list[GapRow], names: list[str]) -> None:
        self._waiting = sorted((_Path(row, *unpack(row.path)) for row in rows), key=lambda path: -path.row.began_utc_ns)
        self._gaps = sorted(gaps, key=lambda gap: -gap.from_utc_ns)
        self._names = names
        self._size_wh = (rows[0].width, rows[0].height) if rows else SIZE_WH
        self._alive: list[_Path] = []

    def findings(self, scene: Analytics, now_ns: int, end_ns: int, progress: Progress) -> Iterator[Finding]:
        """Yield the findings between two times, in the wall clock of the paths."""
        first_ns = now_ns
        while now_ns <= end_ns:
            if self._gaps and self._gaps[-1].from_utc_ns < now_ns:
                gap = self._gaps.pop()
                scene.source_is(live=False, captured_ns=gap.from_utc_ns)
                now_ns = max(now_ns, min(gap.to_utc_ns or end_ns, end_ns))
                view = scene.tick(now_ns, now_ns)
                yield from view.findings if view is not None else ()
            yield from self._step(scene, now_ns)
            progress((now_ns - first_ns) // NS_PER_S, max((end_ns - first_ns) // NS_PER_S, 1))
            next_ns = now_ns + STEP_NS
            if not self._alive:  # nothing moves: advance a second at a time, up to the next object
                begin_ns = self._waiting[-1].row.began_utc_ns if self._waiting else end_ns + 1
                next_ns = max(next_ns, min(begin_ns, now_ns + NS_PER_S))
            now_ns = next_ns
        yield from scene.finish()

    def _step(self, scene: Analytics, now_ns: int) -> Iterator[Finding]:
        while self._waiting and self._waiting[-1].row.began_utc_ns <= now_ns:
            self._alive.append(self._waiting.pop())
        gone = [path for path in self._alive if path.row.ended_utc_ns < now_ns]
        self._alive = [path for path in self._alive if path.row.ended_utc_ns >= now_ns]
        if self._alive:
            self._size_wh = self._alive[-1].row.width, self._alive[-1].row.height
        ended = [path.row.track_id for path in gone if path.row.is_last]
        tracks = _tracks(self._alive, self._names, now_ns)
        yield from scene.update(tracks, now_ns, self._size_wh, utc_ns=now_ns, ended=ended).findings


def _tracks(alive: list[_Path], names: list[str], utc_ns: int) -> Tracks:
    seen: dict[int, tuple[list[float], float, int]] = {}
    for path in alive:
        xyxy = path.xyxy(utc_ns)
        if xyxy is not None:
            seen[path.row.track_id] = xyxy, path.row.score, names.index(path.row.class_name)
    if not seen:
        return Tracks.empty()
    ids = sorted(seen)
    boxes, scores, classes = zip(*(seen[track_id] for track_id in ids), strict=True)
    return Tracks(np.array(boxes), scores, classes, ids, None, np.arange(len(ids)))


def _events(findings: Iterator[Finding], source_id: str, run: Run) -> list[EventRow]:
    """Return the last row of each episode of a rule."""
    maker, rows = RowMaker(run), {}
    moment = Moment(source_id, 0, 0, None)
    for finding in findings:
        if finding.rule:
            row = maker.row(finding, moment)
            if isinstance(row, EventRow):
                rows[row.event_id] = row
    return list(rows.values())


def compared(would: list[EventRow], did: list[EventRow]) -> dict[str, dict[str, Any]]:
    """Return, by rule, how many events the new rules would have raised, and how many the run's own rules raised."""
    names = dict.fromkeys([*(event.rule for event in would), *(event.rule for event in did)])
    return {
        name: {
            "would": sum(event.rule == name for event in would),
            "did": sum(event.rule == name for event in did),
        }
        for name in names
    }
