"""The edit list of an MP4 file: which part of the video is shown."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_CONTAINERS = (b"moov", b"trak", b"edts")
_MAX_BOXES = 10_000


class _Box(NamedTuple):
    kind: bytes
    at: int
    end: int


def show_only(path: Path, seconds: float) -> bool:
    """Let players end the first track of a file after `seconds`; return whether the file has an edit list.

    Frames shown later may have to stay in the file because others refer to them.
    """
    with open(path, "r+b") as file:
        boxes = {box.kind: box for box in _boxes(file, 0, path.stat().st_size)}
        if b"elst" not in boxes or b"mvhd" not in boxes:
            return False
        timescale = _timescale(file, boxes[b"mvhd"])
        file.seek(boxes[b"elst"].at)
        version, count = file.read(4)[0], int.from_bytes(file.read(4), "big")
        entry = struct.Struct(">QqI" if version == 1 else ">IiI")
        first_ticks = 0  # length of the empty edit, if one comes first
        for _ in range(count - 1):
            first_ticks += entry.unpack(file.read(entry.size))[0]
        place = file.tell()
        duration, media_time, rate = entry.unpack(file.read(entry.size))
        wanted = max(round(seconds * timescale) - first_ticks, 0)
        if wanted < duration:
            file.seek(place)
            file.write(entry.pack(wanted, media_time, rate))
    return True


def _timescale(file: BinaryIO, box: _Box) -> int:
    """Return the ticks per second of the movie header."""
    file.seek(box.at)
    version = file.read(4)[0]
    file.seek(16 if version == 1 else 8, 1)
    return int.from_bytes(file.read(4), "big")


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[_Box]:
    """Yield the boxes of a file, and those inside the movie's first track."""
    stack, seen = [(at, end)], 0
    while stack and seen < _MAX_BOXES:
        at, end = stack.pop()
        if at + 8 > end:
            continue
        seen += 1
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = int.from_bytes(file.read(8), "big"), 16
        size = end - at if size == 0 else size
        if size < head:
            return
        yield _Box(kind, at + head, at + size)
        stack.append((at + size, end))
        if kind in _CONTAINERS:
            stack.append((at + head, at + size))
