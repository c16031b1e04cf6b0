"""Life-cycle events of tracks: began, vanished, returned and ended, each reported once."""

from __future__ import annotations

from collections import deque

from engine.data import TrackEvent, TrackEventKind
from engine.tracking.table import Rows


class EventLog:
    """Keeps events until they are fetched, the newest `limit` of them; rows become objects only then."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._entries: deque[tuple[TrackEventKind, int, Rows]] = deque()

    def add(self, kind: TrackEventKind, captured_ns: int, rows: Rows) -> None:
        """Record that `kind` happened to the tracks in `rows` (a copy, kept)."""
        if not len(rows):
            return
        self._entries.append((kind, captured_ns, rows))
        self._count += len(rows)
        while self._count > self._limit and len(self._entries) > 1:
            self._count -= len(self._entries.popleft()[2])

    def drain(self) -> list[TrackEvent]:
        """Return the events since the last call, in order, and clear them."""
        if not self._entries:
            return []
        events = [event for entry in self._entries for event in _events_of(*entry)]
        self._entries.clear()
        self._count = 0
        return events


def _events_of(kind: TrackEventKind, captured_ns: int, rows: Rows) -> list[TrackEvent]:
    mean_scores = rows["score_sum"] / rows["hits"]
    columns = (rows["track_id"], rows["class_id"], rows["first_ns"], rows["seen_ns"], mean_scores, rows["hits"])
    return [
        TrackEvent(kind, track_id, captured_ns, class_id, first_ns, seen_ns, score, hits, tuple(xyxy))
        for track_id, class_id, first_ns, seen_ns, score, hits, xyxy in zip(
            *(column.tolist() for column in columns), rows["observed"].tolist(), strict=True
        )
    ]
