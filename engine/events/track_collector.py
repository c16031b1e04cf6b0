"""Collects the paths of one source's tracks until they end or a piece is long enough to store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

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
Piece = tuple[TrackRow, LivePath]


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
        self._samples: list[tuple[int, Tracks]] = []
        self._ended: list[TrackEvent] = []
        self._due_ns = 0  # when to store the tracks that have ended
        self._knows_detections = False
        self._offset_ns = 0
        self._size_wh = (1, 1)
        self._class_names: tuple[str, ...] = ()
        self._heat = HourHeat(source_id, run.run_epoch)

    def add(self, packet: Packet) -> Iterator[Job]:
        """Take a sample; yield jobs for finished pieces."""
        frame = packet.frame
        self._offset_ns = packet.scene_utc_ns - frame.scene_ns
        self._class_names = packet.run.class_names
        if self._size_wh != (frame.width, frame.height):
            yield from self._finished(frame.scene_ns)
            self._size_wh = frame.width, frame.height
        if len(packet.tracks) and (packet.is_detected or packet.is_held):
            tracks = packet.tracks if packet.is_held else self._observed(packet.tracks)
            if len(tracks) and (not self._samples or frame.scene_ns > self._samples[-1][0]):
                self._samples.append((frame.scene_ns, tracks))
        if packet.events:
            self._note(packet.events, frame.scene_ns)
        if self._is_due(frame.scene_ns):
            yield from self._finished(frame.scene_ns)

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

    def _observed(self, tracks: Tracks) -> Tracks:
        """Return the detected rows; all rows, if the tracker never says which were detected."""
        observed = tracks.detection_index >= 0
        count = int(np.count_nonzero(observed))
        self._knows_detections = self._knows_detections or count > 0
        return tracks if count == len(tracks) or not self._knows_detections else tracks[observed]

    def _sort_in(self) -> None:
        """Add the samples to the paths of their tracks."""
        samples, self._samples = self._samples, []
        if not samples:
            return
        ids = np.concatenate([tracks.track_id for _, tracks in samples])
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        times = np.repeat([at for at, _ in samples], [len(tracks) for _, tracks in samples])[order]
        boxes = self._shares(np.concatenate([tracks.xyxy for _, tracks in samples]))[order]
        scores = np.concatenate([tracks.score for _, tracks in samples])[order].astype(np.float64)
        classes = np.concatenate([tracks.class_id for _, tracks in samples])[order]
        begins = np.append(0, np.diff(ids).nonzero()[0] + 1)
        sums, ends = np.add.reduceat(scores, begins).tolist(), np.append(begins[1:], len(ids)).tolist()
        for begin, end, score in zip(begins.tolist(), ends, sums, strict=True):
            track = self._tracks.setdefault(int(ids[begin]), _Track())
            track.class_id = int(classes[end - 1])
            track.score_sum += score
            track.hits += end - begin
            track.path.add(times[begin:end], boxes[begin:end])

    def _shares(self, xyxy: NDArray[np.float32]) -> Floats:
        """Return x and y of the middle of the lower edge, width and height in shares of the frame."""
        x1, y1, x2, y2 = (xyxy.astype(np.float64) / (*self._size_wh, *self._size_wh)).T
        return np.stack(((x1 + x2) / 2, y2, x2 - x1, np.maximum(y2 - y1, 0.0)), axis=1)

    def _finished(self, scene_ns: int) -> Iterator[Job]:
        """Yield a job for the tracks that have ended, or are gone, and for long pieces."""
        self._sort_in()
        ended, self._ended = self._ended, []
        pieces = [piece for event in ended for piece in self._end(event.track_id, event)]
        for track_id, track in list(self._tracks.items()):
            if scene_ns - track.path.last_ns > FORGET_NS:
                pieces += self._end(track_id)
            elif track.path.is_full:
                pieces.append(self._piece(track_id, track, is_last=False))
                track.path = track.path.next_piece()
        if pieces:
            yield Job(_Storing(pieces, self._heat), is_droppable=True)

    def _end(self, track_id: int, event: TrackEvent | None = None) -> list[Piece]:
        """Return the last piece of a track, or nothing if it has no samples."""
        track = self._tracks.pop(track_id, None)
        if track is None:
            return []
        if event is not None:
            track.score_sum, track.hits, track.class_id = event.mean_score, 1, event.class_id
            if event.last_seen_ns > track.path.last_ns:  # samples missed the last detection
                last = self._shares(np.array([event.xyxy], np.float32))
                track.path.add(np.array([event.last_seen_ns], np.int64), last)
        return [self._piece(track_id, track, is_last=True)]

    def finish(self) -> Iterator[Job]:
        """Yield jobs for all tracks: the source has ended."""
        yield from self._finished(0)
        pieces = [piece for track_id in list(self._tracks) for piece in self._end(track_id)]
        if pieces:
            yield Job(_Storing(pieces, self._heat), is_droppable=True)

    def _piece(self, track_id: int, track: _Track, *, is_last: bool) -> Piece:
        path, names = track.path, self._class_names
        row = TrackRow(
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
            path=b"",
            is_last=is_last,
        )
        return row, path


class _Storing:
    """Packs paths and writes them with the heat maps that they add to, on the writing thread.

    The rows are built once, so that nothing is added twice if writing has to be repeated.
    """

    def __init__(self, pieces: Sequence[Piece], heat: HourHeat) -> None:
        self._pieces = pieces
        self._heat = heat
        self._rows: list[TrackRow | HeatRow] = []

    def __call__(self, store: StoreWriter) -> None:
        if not self._rows:
            shapes = [row.width / row.height for row, _ in self._pieces]
            packed = pack_all([path for _, path in self._pieces], shapes)
            rows = [replace(row, path=data) for (row, _), data in zip(self._pieces, packed, strict=True)]
            self._rows = [*rows, *self._heat.add(rows, store)]
        store.put_all(self._rows)
