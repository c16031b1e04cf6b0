"""Per-camera state and per-camera steps of a joint update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import TrackEventKind
from engine.tracking.table import Rows, rank_in_groups
from engine.tracking.track_events import EventLog

Index = NDArray[np.intp]
Times = int | NDArray[np.int64]
"""Nanoseconds: of one camera, or (K,) of those that are updated together."""


@dataclass(slots=True)
class Fleet:
    """K cameras; the column `camera` of a table gives the camera of each row.

    Attributes:
        now_ns: (K,) time of this frame.
        seconds: (K,) since the frame before, 0 on the first.
        detected_ns: (K,) time of the detector's last run, 0 if it never ran.
        is_first: (K,) bool, the detector never ran.
        interval_ns: (K,) between its last two runs, 0 before the second run.
        next_id: (K,) id of the next track; incremented here.
        logs: events of each camera.
        table: the joined rows that the step began with.
        parts: the rows of each camera, views of the table, once the step is over.
    """

    now_ns: NDArray[np.int64]
    seconds: NDArray[np.float64]
    detected_ns: NDArray[np.int64]
    is_first: NDArray[np.bool_]
    interval_ns: NDArray[np.int64]
    next_id: NDArray[np.int64]
    logs: Sequence[EventLog]
    table: Rows
    parts: Sequence[Rows] = ()

    def limits_ns(self, lost_s: float, slow_stream: int) -> NDArray[np.float64]:
        """Return the (K,) maximum age of a track; infinite while the interval is unknown."""
        limits = np.maximum(lost_s * NS_PER_S, (slow_stream * self.interval_ns).astype(np.float64))
        return np.where(self.interval_ns > 0, limits, np.inf)

    def numbers(self, camera: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the (N,) next ids for (N,) cameras, one per row; rows of one camera are contiguous."""
        numbers: NDArray[np.int64] = self.next_id.take(camera) + rank_in_groups(camera)
        self.next_id += np.bincount(camera, minlength=len(self.next_id))
        return numbers

    def excess(self, rows: Rows, births: Rows, limit: int) -> Index:
        """Return the (K,) rows to evict for new tracks: for each camera, those unseen longest."""
        count = np.bincount(rows["camera"], minlength=len(self.now_ns))
        count += np.bincount(births["camera"], minlength=len(self.now_ns))
        gone = [np.zeros(0, np.intp)]
        for camera in (count > limit).nonzero()[0].tolist():
            of_it = (rows["camera"] == camera).nonzero()[0]
            if births["camera"].searchsorted(camera, "right") > births["camera"].searchsorted(camera, "left"):
                oldest = np.argsort(rows["seen_ns"].take(of_it), kind="stable")[: count[camera] - limit]
                gone.append(of_it.take(oldest))
        return np.concatenate(gone)

    def note(self, kind: TrackEventKind, captured_ns: Times, rows: Rows) -> None:
        """Record track events in the log of each camera."""
        for camera in sorted(set(rows["camera"].tolist())):
            at_ns = captured_ns if isinstance(captured_ns, int) else int(captured_ns[camera])
            self.logs[camera].add(kind, at_ns, rows.compress(rows["camera"] == camera))
