"""The index beside each recording: where its keyframes are, and when they were captured. Imports no numpy.

`2026-05-01T08-00-00Z.mp4.idx` is appended to as the recording grows. It has a row of 24 bytes per keyframe, one for the
end of the recording, and one wherever the capture time became known more accurately. Times in the file count from its
first keyframe, because a muxer may shift all times of a file. A damaged or missing index is rebuilt from the recording,
whose name is then the only information about its time.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zlib
from calendar import timegm
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.clock import NS_PER_S
from engine.paths import FILE_MODE
from engine.video.explain import video_errors

SUFFIX = ".idx"
US_PER_S = 1_000_000
NS_PER_US = 1000
STEADY_NS = 2 * NS_PER_S  # a larger change in the difference between file time and wall clock is a jump in one of them
GROWING_S = 30.0
START_NS, START_US = 6 * NS_PER_S, 10 * US_PER_S  # frames may wait longer while a connection is being opened
BETTER_NS = 20_000_000  # a frame that arrives this much earlier, relative to its time in the file, is recorded
Sync = Literal["rtcp", "arrival", "name"]
"""How a time is known: from the camera's clock, from the arrival at this machine, or from the file's name."""
_MAGIC = b"FWINDEX1"
_ROW = struct.Struct("<qqII")  # file time in us, wall clock in ns, flags, CRC-32 of what precedes
_BODY = _ROW.size - 4
_SYNCS: tuple[Sync, ...] = ("arrival", "rtcp", "name")
_KINDS: tuple[RowKind, ...] = ("keyframe", "end", "clock")
_NAME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d)-(\d\d)-(\d\d)Z(_\d{1,6})?\.(mp4|mkv)")


RowKind = Literal["keyframe", "clock", "end"]


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A keyframe, a frame whose capture time is known well, or the end of a recording.

    Attributes:
        time_us: time since the first keyframe of the file.
        utc_ns: wall clock of its capture.
        sync: how `utc_ns` is known.
        kind: `keyframe`; `clock`: a frame that only provides the time; `end`: the end of the last frame.
    """

    time_us: int
    utc_ns: int
    sync: Sync = "arrival"
    kind: RowKind = "keyframe"

    @property
    def offset_ns(self) -> int:
        """Wall clock at the file's first keyframe, as this row shows it."""
        return self.utc_ns - self.time_us * NS_PER_US


def index_path(recording: Path) -> Path:
    """Return the path of a recording's index."""
    return recording.with_name(recording.name + SUFFIX)


def is_recording_name(name: str) -> bool:
    """Return whether a file name is one that recordings get."""
    return _NAME.fullmatch(name) is not None


def utc_ns_from_name(name: str) -> int | None:
    """Return the time in a recording's name; None if it is not such a name.

    >>> utc_ns_from_name("1970-01-01T00-01-00Z_2.mp4"), utc_ns_from_name("holiday.mp4")
    (60000000000, None)
    """
    found = _NAME.fullmatch(name)
    return timegm(tuple(int(part) for part in found.groups()[:6])) * NS_PER_S if found else None


class IndexWriter:
    """Appends rows to the index of a recording being written; gives up silently, because an index can be rebuilt."""

    def __init__(self, recording: Path) -> None:
        self._file: Any = None
        self._best: Keyframe | None = None
        with suppress(OSError):
            handle = os.open(index_path(recording), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            self._file = os.fdopen(handle, "wb", buffering=0)
            self._put(_MAGIC.ljust(_ROW.size, b"\0"))

    def add(self, row: Keyframe) -> None:
        """Append a keyframe, or another frame if it gives a more accurate time than those before it."""
        if row.kind == "keyframe" or self._tells_more(row):
            self._put(_packed(row))
            self._best = row if self._best is None or self._tells_more(row) else self._best

    def _tells_more(self, row: Keyframe) -> bool:
        if self._best is None or self._best.sync == "rtcp":
            return False
        return row.sync == "rtcp" or self._best.offset_ns - row.offset_ns > BETTER_NS

    def close(self, end: Keyframe | None = None) -> None:
        """Append the end, if given, and close the file; harmless when repeated."""
        if end is not None:
            self._put(_packed(replace(end, kind="end")))
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _put(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            if self._file.write(data) == len(data):
                return
        except OSError:
            pass
        self._file.close()  # full disk: a torn row ends the index, and its reader ignores it
        self._file = None


def _packed(row: Keyframe) -> bytes:
    body = _ROW.pack(row.time_us, row.utc_ns, _SYNCS.index(row.sync) | _KINDS.index(row.kind) << 8, 0)[:_BODY]
    return body + zlib.crc32(body).to_bytes(4, "little")


def read_index(recording: Path) -> list[Keyframe]:
    """Return the rows of a recording's index up to the first damaged one; none if there is no index.

    Arrival times are corrected using the rest of the file; see `settled`.
    """
    try:
        data = index_path(recording).read_bytes()
    except OSError:
        return []
    if not data.startswith(_MAGIC):
        return []
    rows = []
    for at in range(_ROW.size, len(data) - _ROW.size + 1, _ROW.size):
        time_us, utc_ns, flags, crc = _ROW.unpack_from(data, at)
        if zlib.crc32(data[at : at + _BODY]) != crc or flags & 0xFF >= len(_SYNCS) or flags >> 8 >= len(_KINDS):
            break
        rows.append(Keyframe(time_us, utc_ns, _SYNCS[flags & 0xFF], _KINDS[flags >> 8]))
    return settled(rows)


def settled(rows: Sequence[Keyframe]) -> list[Keyframe]:
    """Return rows with arrival times replaced by the best estimate from the whole recording.

    A camera reports its clock only after some seconds, and the first frames of a connection may have waited before they
    were read. File time and capture time advance together, so one accurate row corrects all. Where the two drift apart
    by more than `STEADY_NS`, the camera or the clock has jumped, and rows beyond that point do not count.

    >>> rows = [Keyframe(0, 5_000_000_000), Keyframe(2_000_000, 6_000_000_000, "rtcp")]
    >>> [row.utc_ns for row in settled(rows)]
    [4000000000, 6000000000]
    """
    groups: list[list[Keyframe]] = []
    for row in rows:
        is_start = row.time_us < START_US
        if groups and -(START_NS if is_start else STEADY_NS) < row.offset_ns - groups[-1][-1].offset_ns < STEADY_NS:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [row for group in groups for row in _settled_group(group)]


def _settled_group(group: list[Keyframe]) -> list[Keyframe]:
    sure = [row for row in group if row.sync != "arrival"]
    earliest_ns = min(row.offset_ns for row in group)  # the row that waited least is right
    result = []
    for row in group:
        if row.sync == "arrival":
            near = min(sure, key=lambda other: abs(other.time_us - row.time_us), default=None)
            offset_ns, sync = (earliest_ns, row.sync) if near is None else (near.offset_ns, near.sync)
            row = replace(row, utc_ns=row.time_us * NS_PER_US + offset_ns, sync=sync)
        result.append(row)
    return result


def load_index(recording: Path) -> list[Keyframe]:
    """Return the rows of a recording, rebuilding and storing its index if it is missing.

    Raises:
        av.error.FFmpegError, OSError: the recording cannot be read.
    """
    rows = read_index(recording)
    if rows:
        return rows
    rows = rebuilt(recording)
    if time.time() - recording.stat().st_mtime < GROWING_S:
        return rows  # the recording is still being written
    path = index_path(recording)
    part = path.with_name(path.name + ".part")
    with suppress(OSError):  # a full or read-only disk: it will be rebuilt again next time
        part.write_bytes(b"".join([_MAGIC.ljust(_ROW.size, b"\0"), *map(_packed, rows)]))
        part.chmod(FILE_MODE)
        part.replace(path)
    return rows


def rebuilt(recording: Path) -> list[Keyframe]:
    """Return the rows that can be read from a recording itself; its name says when it began, to the second.

    Raises:
        av.error.FFmpegError, OSError: it cannot be read.
    """
    import av

    began_ns = utc_ns_from_name(recording.name)
    if began_ns is None:
        began_ns = int(recording.stat().st_mtime * NS_PER_S)
    rows: list[Keyframe] = []
    first_us: int | None = None
    end_us = 0
    with av.open(str(recording)) as container, suppress(*video_errors()):
        for packet in container.demux(container.streams.video[0]):  # a file cut short ends with an error
            if packet.pts is None or not packet.size:
                continue
            at_us = int(packet.pts * packet.time_base * US_PER_S)
            first_us = at_us if first_us is None else first_us
            end_us = max(end_us, at_us - first_us + int((packet.duration or 0) * packet.time_base * US_PER_S))
            if packet.is_keyframe:
                rows.append(Keyframe(at_us - first_us, began_ns + (at_us - first_us) * NS_PER_US, "name"))
    return [*rows, Keyframe(end_us, began_ns + end_us * NS_PER_US, "name", "end")] if rows else []
