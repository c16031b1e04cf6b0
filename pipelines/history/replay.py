"""Asks rules about the past: runs analytics over the stored paths of tracks."""

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
from engine.events.store.rows import EventRow, TrackRow
from engine.events.track_paths import box_at, unpack
from engine.wire.findings import Moment

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_NS = NS_PER_S // 10
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
        progress: called with the seconds done and the seconds in all.
    """
    by_run: dict[int, list[TrackRow]] = {}
    for row in reader.tracks(source_id, from_utc_ns, to_utc_ns):
        by_run.setdefault(row.run_epoch, []).append(row)
    names = sorted({row.class_name for rows in by_run.values() for row in rows})
    found: list[EventRow] = []
    for run_epoch, rows in sorted(by_run.items()):
        scene = analytics.clone()
        scene.class_names = names
        run = Run(rows[0].engine_id, run_epoch, class_names=tuple(names))
        found += _events(_findings(scene, rows, names, progress), source_id, run)
    return [event for event in found if from_utc_ns <= event.began_utc_ns < to_utc_ns]


def _findings(scene: Analytics, rows: list[TrackRow], names: list[str], progress: Progress) -> Iterator[Finding]:
    """Yield the findings over the paths of one run, in the wall clock of the paths."""
    waiting = sorted((_Path(row, *unpack(row.path)) for row in rows), key=lambda path: -path.row.began_utc_ns)
    now_ns, end_ns = waiting[-1].row.began_utc_ns, max(row.ended_utc_ns for row in rows)
    first_ns = now_ns
    size_wh = rows[0].width, rows[0].height
    alive: list[_Path] = []
    while now_ns <= end_ns + STEP_NS:
        while waiting and waiting[-1].row.began_utc_ns <= now_ns:
            alive.append(waiting.pop())
        gone = [path for path in alive if path.row.ended_utc_ns < now_ns]
        alive = [path for path in alive if path.row.ended_utc_ns >= now_ns]
        if alive:
            size_wh = alive[-1].row.width, alive[-1].row.height
        ended = [path.row.track_id for path in gone if path.row.is_last]
        yield from scene.update(_tracks(alive, names, now_ns), now_ns, size_wh, utc_ns=now_ns, ended=ended).findings
        progress((now_ns - first_ns) // NS_PER_S, max((end_ns - first_ns) // NS_PER_S, 1))
        now_ns += STEP_NS
        if not alive and waiting:  # nothing moves: go on a second before the next object
            now_ns = max(now_ns, min(waiting[-1].row.began_utc_ns, now_ns + NS_PER_S))
    yield from scene.finish()


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
    """Return by rule how many events the new rules would have raised, and how many the run's own rules raised."""
    names = dict.fromkeys([*(event.rule for event in would), *(event.rule for event in did)])
    return {
        name: {
            "would": sum(event.rule == name for event in would),
            "did": sum(event.rule == name for event in did),
        }
        for name in names
    }
