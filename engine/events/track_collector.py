"""Collects the paths of one source's tracks until they end or a piece is long enough to store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.data import Packet, Run, TrackEvent, Tracks
from engine.events.path_heat import HourHeat
from engine.events.store.rows import HeatRow, TrackRow
from engine.events.store.writer import StoreWriter
from engine.events.track_paths import Floats, LivePath, pack_all
from engine.events.writing import Job

FORGET_NS = 60 * 1_000_000_000
"""A track not seen for this long has ended, even if the tracker does not report it."""
BUNDLE = 50
"""Number of samples sorted by track, and of paths packed, in one go, which is cheaper than one by one."""
ENDED_NS = 5 * 1_000_000_000
"""How long the path of an ended track may wait for others."""


class _Piece(NamedTuple):
    """A piece of a path to store: makes its row from the packed `path`; `aspect` is width by height of the frame."""

    row: Callable[..., TrackRow]
    live: LivePath
    aspect: float


class _Sample(NamedTuple):
    """The tracks of a frame; `is_held` says that nothing moved, so that all were seen."""

    scene_ns: int
    tracks: Tracks
    is_held: bool


@dataclass(slots=True)
class _Track:
    class_id: int = 0
    score_sum: float = 0.0
    path: LivePath = field(default_factory=LivePath)
    hits: int = 0

    @property
    def score(self) -> float:
        return self.score_sum / max(self.hits, 1)


class TrackCollector:
    """Samples boxes; hands out jobs that store pieces of paths.

    Args:
        run: the engine and run.
        source_id: the camera or file.
    """

    def __init__(self, run: Run, source_id: str) -> None:
        self._run = run
        self._source_id = source_id
        self._tracks: dict[int, _Track] = {}
        self._samples: list[_Sample] = []
        self._ended: list[TrackEvent] = []
        self._due_ns = 0  # when to store the tracks that have ended
        self._knows_detections = False
        self._offset_ns = 0
        self._size_wh = (1, 1)
        self._class_names: tuple[str, ...] = ()
        self._heat = HourHeat(source_id, run.run_epoch)

    def add(self, packet: Packet) -> list[Job]:
        """Take a sample; return jobs for finished pieces."""
        jobs: list[Job] = []
        frame, tracks, scene_ns = packet.frame, packet.tracks, packet.frame.scene_ns
        self._offset_ns = packet.scene_utc_ns - scene_ns
        self._class_names = packet.run.class_names
        size_wh = frame.width, frame.height
        if self._size_wh != size_wh:
            jobs += self._finished(scene_ns)
            self._size_wh = size_wh
        is_later = not self._samples or scene_ns > self._samples[-1].scene_ns
        if is_later and (packet.is_detected or packet.is_held) and len(tracks):
            self._samples.append(_Sample(scene_ns, tracks, packet.is_held))
        if packet.events:
            self._note(packet.events, scene_ns)
        if self._is_due(scene_ns):
            jobs += self._finished(scene_ns)
        return jobs

    def _note(self, events: Sequence[TrackEvent], scene_ns: int) -> None:
        """Remember the tracks that ended."""
        ended = [event for event in events if event.kind == "ended"]
        if ended and not self._ended:
            self._due_ns = scene_ns + ENDED_NS
        self._ended += ended

    def _is_due(self, scene_ns: int) -> bool:
        """Return whether it is time to sort and store the collected samples."""
        if len(self._samples) >= BUNDLE or len(self._ended) >= BUNDLE:
            return True
        return bool(self._ended) and not self._due_ns - ENDED_NS <= scene_ns < self._due_ns

    def _observed(self, samples: Sequence[_Sample], counts: Sequence[int]) -> NDArray[np.bool_]:
        """Return which rows of the samples were seen; all rows, as long as the tracker does not say which."""
        is_held = np.repeat([sample.is_held for sample in samples], counts)
        is_detected = np.concatenate([sample.tracks.detection_index for sample in samples]) >= 0
        observed: NDArray[np.bool_] = is_detected | is_held
        if not self._knows_detections:
            told = (is_detected & ~is_held).nonzero()[0]
            self._knows_detections = len(told) > 0
            begins = np.cumsum([0, *counts])
            observed[: begins[np.searchsorted(begins, told[0], side="right") - 1] if len(told) else None] = True
        return observed

    def _sort_in(self) -> None:
        """Add the samples to the paths of their tracks."""
        samples, self._samples = self._samples, []
        if not samples:
            return
        all_tracks = [sample.tracks for sample in samples]
        counts = [len(tracks) for tracks in all_tracks]
        ids = np.concatenate([tracks.track_id for tracks in all_tracks])
        order = np.argsort(ids, kind="stable")
        order = order[self._observed(samples, counts)[order]]
        if not len(order):
            return
        ids = ids[order]
        times = np.repeat([sample.scene_ns for sample in samples], counts)[order]
        boxes = self._shares(np.concatenate([tracks.xyxy for tracks in all_tracks])[order])
        scores = np.concatenate([tracks.score for tracks in all_tracks])[order].astype(np.float64)
        begins = np.append(0, np.diff(ids).nonzero()[0] + 1)
        ends = np.append(begins[1:], len(ids))
        classes = np.concatenate([tracks.class_id for tracks in all_tracks])[order[ends - 1]].tolist()
        columns = ids[begins].tolist(), begins.tolist(), ends.tolist(), np.add.reduceat(scores, begins).tolist()
        for track_id, begin, end, score, class_id in zip(*columns, classes, strict=True):
            track = self._tracks.get(track_id)
            if track is None:
                track = self._tracks[track_id] = _Track()
            track.class_id = class_id
            track.score_sum += score
            track.hits += end - begin
            track.path.add(times[begin:end], boxes[begin:end])

    def _shares(self, xyxy: NDArray[np.float32]) -> Floats:
        """Return x and y of the middle of the lower edge, width and height in shares of the frame."""
        x1, y1, x2, y2 = (xyxy.astype(np.float64) / (*self._size_wh, *self._size_wh)).T
        return np.stack(((x1 + x2) / 2, y2, x2 - x1, np.maximum(y2 - y1, 0.0)), axis=1)

    def _finished(self, scene_ns: int) -> list[Job]:
        """Return a job for the tracks that have ended, or are gone, and for long pieces."""
        self._sort_in()
        ended, self._ended = self._ended, []
        lasts = self._shares(np.array([event.xyxy for event in ended], np.float32).reshape(-1, 4))
        pieces = [
            piece for at, event in enumerate(ended) for piece in self._end(event.track_id, event, lasts[at : at + 1])
        ]
        for track_id, track in list(self._tracks.items()):
            if scene_ns - track.path.last_ns > FORGET_NS:
                pieces += self._end(track_id)
            elif track.path.is_full:
                pieces.append(self._piece(track_id, track, is_last=False))
                track.path = track.path.next_piece()
        return self._jobs(pieces)

    def _jobs(self, pieces: Sequence[_Piece]) -> list[Job]:
        return [Job(_Storing(pieces, self._heat), is_droppable=True)] if pieces else []

    def _end(self, track_id: int, event: TrackEvent | None = None, last: Floats | None = None) -> list[_Piece]:
        """Return the last piece of a track, or nothing if it has no samples; `last` is the (1, 4) box of the event."""
        track = self._tracks.pop(track_id, None)
        if track is None:
            return []
        if event is not None and last is not None:
            track.score_sum, track.hits, track.class_id = event.mean_score, 1, event.class_id
            if event.last_seen_ns > track.path.last_ns:  # samples missed the last detection
                track.path.add(np.array([event.last_seen_ns], np.int64), last)
        return [self._piece(track_id, track, is_last=True)]

    def finish(self) -> list[Job]:
        """Return jobs for all tracks: the source has ended."""
        jobs = self._finished(0)
        return jobs + self._jobs([piece for track_id in list(self._tracks) for piece in self._end(track_id)])

    def _piece(self, track_id: int, track: _Track, *, is_last: bool) -> _Piece:
        path, names = track.path, self._class_names
        row = partial(
            TrackRow,
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            source_id=self._source_id,
            track_id=track_id,
            piece=path.piece,
            class_name=names[track.class_id] if 0 <= track.class_id < len(names) else str(track.class_id),
            began_utc_ns=path.first_ns + self._offset_ns,
            ended_utc_ns=path.last_ns + self._offset_ns,
            began_scene_ns=path.first_ns,
            score=round(track.score, 4),
            width=self._size_wh[0],
            height=self._size_wh[1],
            is_last=is_last,
        )
        return _Piece(row, path, self._size_wh[0] / self._size_wh[1])


class _Storing:
    """Packs paths and writes them with the heat maps that they add to, on the writing thread.

    The rows are built once, so that nothing is added twice if writing has to be repeated.
    """

    def __init__(self, pieces: Sequence[_Piece], heat: HourHeat) -> None:
        self._pieces = pieces
        self._heat = heat
        self._rows: list[TrackRow | HeatRow] = []

    def __call__(self, store: StoreWriter) -> None:
        if not self._rows:
            packed = pack_all([piece.live for piece in self._pieces], [piece.aspect for piece in self._pieces])
            rows = [piece.row(path=data) for piece, data in zip(self._pieces, packed, strict=True)]
            self._rows = [*rows, *self._heat.add(rows, store)]
        store.put_all(self._rows)
