"""Which recordings cover a span of time, and the frames in them by wall clock. Imports no numpy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engine.clock import NS_PER_S
from engine.sinks.camera_video.keyframe_index import (
    NS_PER_US,
    US_PER_S,
    Keyframe,
    load_index,
    read_index,
    utc_ns_from_name,
)
from engine.video.explain import video_errors

NAME_ERROR_NS = 30 * NS_PER_S  # names have whole seconds, and the clock may have been set before the index was written
SEEK_TOLERANCE_US = 2000  # Matroska rounds times to 1 ms


@dataclass(frozen=True, slots=True)
class Segment:
    """One recording with its index."""

    path: Path
    rows: tuple[Keyframe, ...]

    @property
    def began_ns(self) -> int:
        """Wall clock of the first frame."""
        return self.rows[0].utc_ns

    @property
    def keyframes(self) -> list[Keyframe]:
        """Its keyframes, without the other rows."""
        return [row for row in self.rows if row.kind == "keyframe"]

    def keyframe_before(self, utc_ns: int) -> Keyframe:
        """Return the last keyframe at or before a time, or the first one."""
        return max((row for row in self.keyframes if row.utc_ns <= utc_ns), key=_time, default=self.rows[0])

    def utc_ns(self, time_us: int) -> int:
        """Return the wall clock of a frame by its time in the file."""
        before = max((row for row in self.keyframes if row.time_us <= time_us), key=_time, default=self.rows[0])
        return before.utc_ns + (time_us - before.time_us) * NS_PER_US


def _time(row: Keyframe) -> int:
    return row.time_us


class Coverage(NamedTuple):
    """The recordings of a span of time, in order, and whether anything was recorded after it."""

    segments: list[Segment]
    goes_on: bool


def segments_between(folder: Path, start_ns: int, end_ns: int) -> Coverage:
    """Return the recordings in a folder that may contain frames of a span of wall clock.

    Unreadable files are left out, as is a file so new that none of its frames is on disk.
    """
    try:
        names = sorted((utc_ns, name) for name in os.listdir(folder) if (utc_ns := utc_ns_from_name(name)) is not None)
    except OSError:
        return Coverage([], False)
    first = max((at for at, (utc_ns, _) in enumerate(names) if utc_ns <= start_ns - NAME_ERROR_NS), default=0)
    chosen = [name for utc_ns, name in names[first:] if utc_ns <= end_ns + NAME_ERROR_NS]
    found = [segment for name in chosen if (segment := _segment(folder / name)) is not None]
    found.sort(key=lambda segment: segment.began_ns)
    if not found:
        return Coverage([], False)
    followers: list[int | None] = [*(segment.began_ns for segment in found[1:]), None]
    segments = [
        segment
        for segment, next_ns in zip(found, followers, strict=True)
        if segment.began_ns < end_ns and (next_ns is None or next_ns > start_ns) and _end_ns(segment) > start_ns
    ]
    goes_on = first + len(chosen) < len(names) or any(segment.began_ns >= end_ns for segment in found)
    return Coverage(segments, goes_on)


def _segment(path: Path) -> Segment | None:
    try:
        rows = read_index(path) or load_index(path)
    except video_errors():
        return None
    return Segment(path, tuple(rows)) if rows and rows[0].kind == "keyframe" else None


def _end_ns(segment: Segment) -> float:
    return segment.rows[-1].utc_ns if segment.rows[-1].kind == "end" else float("inf")


class SegmentReader:
    """Reads the packets of one recording from a keyframe on.

    Raises:
        av.error.FFmpegError, OSError: it cannot be read.
    """

    def __init__(self, segment: Segment) -> None:
        import av

        self.segment = segment
        self._container = av.open(str(segment.path))
        try:
            self.stream: Any = self._container.streams.video[0]
            first = next((packet for packet in self._container.demux(self.stream) if packet.pts is not None), None)
            if first is None:
                raise EOFError(f"{segment.path} contains no frame yet")
        except BaseException:
            self._container.close()
            raise
        self._first_us = self._us(first)  # offset that the muxer added to all times

    def _us(self, packet: Any) -> int:
        return int(packet.pts * packet.time_base * US_PER_S)

    def packets_from(self, keyframe: Keyframe) -> Iterator[tuple[Any, int]]:
        """Yield each packet from a keyframe on with its time since the file's first keyframe, in us.

        A seek compares decoding times: with B-frames it may land on a later keyframe, so it is checked and repeated.
        """
        candidates: Sequence[Keyframe] = [row for row in self.segment.keyframes if row.time_us <= keyframe.time_us]
        for row in reversed(candidates):
            target = int((row.time_us + self._first_us) / US_PER_S / self.stream.time_base)
            self._container.seek(max(target, 0), stream=self.stream, backward=True)
            packets = self._timed()
            landed = next(packets, None)
            if landed is not None and landed[1] <= keyframe.time_us + SEEK_TOLERANCE_US:
                break
        else:
            self._container.seek(0, stream=self.stream, backward=True)
            packets = self._timed()
            landed = next(packets, None)
        if landed is None:
            return
        has_begun = False
        while landed is not None:
            has_begun = has_begun or (landed[0].is_keyframe and landed[1] >= keyframe.time_us - SEEK_TOLERANCE_US)
            if has_begun:
                yield landed
            landed = next(packets, None)

    def _timed(self) -> Iterator[tuple[Any, int]]:
        for packet in self._container.demux(self.stream):
            if packet.pts is not None and packet.size:
                yield packet, self._us(packet) - self._first_us

    def close(self) -> None:
        """Close the recording; harmless when repeated."""
        self._container.close()

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
