"""Collects the paths of one source's tracks until they end, or a piece is long enough to be stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from engine.data import Packet, Run, TrackEvent
from engine.events.store.rows import TrackRow
from engine.events.store.writer import StoreWriter
from engine.events.track_paths import LivePath, pack
from engine.events.writing import Job

FORGET_NS = 60 * 1_000_000_000
"""A track not seen for so long has ended, also if the tracker does not say so."""


@dataclass(slots=True)
class _Track:
    class_id: int
    score: float
    hits: int = 0
    path: LivePath = field(default_factory=LivePath)


class TrackCollector:
    """Samples boxes; hands out a job for each piece of a path.

    Args:
        run: the engine and run.
        source_id: the camera or file.
    """

    def __init__(self, run: Run, source_id: str) -> None:
        self._run = run
        self._source_id = source_id
        self._tracks: dict[int, _Track] = {}
        self._knows_detections = False
        self._offset_ns = 0
        self._size_wh = (1, 1)
        self._class_names: tuple[str, ...] = ()

    def add(self, packet: Packet) -> Iterator[Job]:
        """Take a sample; yield jobs for finished pieces."""
        frame = packet.frame
        self._offset_ns = packet.scene_utc_ns - frame.scene_ns
        self._class_names = packet.run.class_names
        if self._size_wh != (frame.width, frame.height):
            if self._size_wh != (1, 1):
                yield from self._pieces(frame.scene_ns)
            self._size_wh = frame.width, frame.height
        if packet.is_detected or packet.is_held:
            self._sample(packet)
        for event in packet.events:
            if event.kind == "ended":
                yield from self._end(event.track_id, event)
        yield from self._pieces(frame.scene_ns)

    def _sample(self, packet: Packet) -> None:
        tracks, scene_ns = packet.tracks, packet.frame.scene_ns
        if not len(tracks):
            return
        observed = tracks.detection_index >= 0
        self._knows_detections = self._knows_detections or bool(observed.any())
        if not self._knows_detections or packet.is_held:
            observed = np.ones(len(tracks), np.bool_)
        width, height = self._size_wh
        x1, y1, x2, y2 = (tracks.xyxy[observed] / np.array([width, height, width, height], np.float32)).T
        boxes = np.stack([(x1 + x2) / 2, y2, x2 - x1, y2 - y1], axis=1).tolist()
        ids, classes = tracks.track_id[observed].tolist(), tracks.class_id[observed].tolist()
        for track_id, class_id, score, box in zip(ids, classes, tracks.score[observed].tolist(), boxes, strict=True):
            track = self._tracks.get(track_id)
            if track is None:
                track = self._tracks[track_id] = _Track(class_id, 0.0)
            track.hits += 1
            track.class_id = class_id
            track.score += (score - track.score) / track.hits
            if box[3] > 0 and (not track.path.times or scene_ns > track.path.times[-1]):
                track.path.add(scene_ns, tuple(box))

    def _pieces(self, scene_ns: int) -> Iterator[Job]:
        """Yield jobs for long pieces, and for tracks that are gone."""
        for track_id, track in list(self._tracks.items()):
            if track.path.times and scene_ns - track.path.times[-1] > FORGET_NS:
                yield from self._end(track_id)
            elif track.path.is_full:
                yield self._job(track_id, track, is_last=False)
                track.path = track.path.next_piece()

    def _end(self, track_id: int, event: TrackEvent | None = None) -> Iterator[Job]:
        track = self._tracks.pop(track_id, None)
        if track is None or not track.path.times:
            return
        if event is not None:
            track.score, track.class_id = event.mean_score, event.class_id
            self._add_last(track, event)
        yield self._job(track_id, track, is_last=True)

    def _add_last(self, track: _Track, event: TrackEvent) -> None:
        """Add the last detection, which samples may have missed."""
        width, height = self._size_wh
        x1, y1, x2, y2 = event.xyxy
        if event.last_seen_ns > track.path.times[-1] and y2 > y1:
            box = ((x1 + x2) / 2 / width, y2 / height, (x2 - x1) / width, (y2 - y1) / height)
            track.path.add(event.last_seen_ns, box)

    def finish(self) -> Iterator[Job]:
        """Yield jobs for all tracks: the source has ended."""
        for track_id in list(self._tracks):
            yield from self._end(track_id)

    def _job(self, track_id: int, track: _Track, *, is_last: bool) -> Job:
        path = track.path
        names = self._class_names
        row = TrackRow(
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            source_id=self._source_id,
            track_id=track_id,
            piece=path.piece,
            class_name=names[track.class_id] if 0 <= track.class_id < len(names) else str(track.class_id),
            began_utc_ns=path.times[0] + self._offset_ns,
            ended_utc_ns=path.times[-1] + self._offset_ns,
            began_scene_ns=path.times[0],
            score=round(track.score, 4),
            width=self._size_wh[0],
            height=self._size_wh[1],
            path=b"",
            is_last=is_last,
        )
        return Job(partial(_store, row=row, path=path), is_droppable=True)


def _store(store: StoreWriter, row: TrackRow, path: LivePath) -> None:
    """Pack a path and write it, on the writing thread."""
    store.put(replace(row, path=pack(path, row.width / row.height)))
