"""A mailbox for pictures between two processes: the newest one wins, and a picture in use is never overwritten.

Anonymous shared memory (`memfd`): a header, then a page with one state per slot, then the slots. The reader process
fills a free slot and makes it the latest; if the previous latest was not taken, its slot is free again and the picture
counts as `stale`. The engine takes the latest and holds its slot until nobody uses the picture any more. The fields
that both sides change are guarded by a POSIX lock on the file, which the kernel releases when a process dies. Nothing
has a name, so nothing can be left behind. Imports no numpy: the reader process uses it too.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.data import CapturedSource

PAGE = mmap.PAGESIZE
_HEADER = struct.Struct("=7q")  # size of the file, base, slot size, slots, latest + 1, stale, corrupt
_FREE, _FILLED, _HELD = 0, 1, 2
_META = struct.Struct("=8q")
_META_BYTES = 128
_NO_PTS = -(1 << 63)
LIVE_SOURCES: tuple[CapturedSource, ...] = ("arrival", "rtcp", "segment")


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of the picture in a slot.

    Attributes:
        width: pixels per row.
        height: rows.
        stride: bytes from one row to the next.
        orientation: see `engine.video.orientation`.
        captured_ns: see `Stamp`.
        captured_utc_ns: see `Stamp`.
        pts_ns: see `Stamp`; None is stored as the smallest number.
        captured_source: place in `LIVE_SOURCES` of how the wall clock is known.
    """

    width: int
    height: int
    stride: int
    orientation: int
    captured_ns: int
    captured_utc_ns: int
    pts_ns: int | None
    captured_source: int

    def pack(self) -> bytes:
        """Return it as bytes."""
        values = list(astuple(self))
        values[6] = _NO_PTS if self.pts_ns is None else self.pts_ns
        return _META.pack(*values)


def meta_from_bytes(data: bytes) -> Meta:
    """Return what `Meta.pack` has packed."""
    values = list(_META.unpack(data))
    values[6] = None if values[6] == _NO_PTS else values[6]
    return Meta(*values)


@dataclass(slots=True)
class _Header:
    size: int
    base: int
    slot_size: int
    slots: int
    latest: int
    stale: int
    corrupt: int


@dataclass(frozen=True, slots=True)
class TakenFrame:
    """A picture that was taken: its pixels are `memory[offset : offset + height * stride]`."""

    memory: mmap.mmap
    state: int
    offset: int
    meta: Meta

    def release(self) -> None:
        """Give the slot back; safe from any thread, also while garbage is collected."""
        self.memory[self.state] = _FREE


def _slot_offset(header: _Header, slot: int) -> int:
    return header.base + PAGE + slot * header.slot_size


def anonymous_file() -> int:
    """Return a descriptor of new shared memory that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("framewire-frames", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Ring:
    """One side of the mailbox; both sides make one on the same descriptor, which they own from then on.

    Args:
        fd: from `anonymous_file`.
        slots: number of slots, given by the side that creates the ring; None to join one.
    """

    def __init__(self, fd: int, slots: int | None = None) -> None:
        self._fd = fd
        if slots is not None:
            os.ftruncate(fd, PAGE)
        self.memory = mmap.mmap(fd, os.fstat(fd).st_size)
        if slots is not None:
            self._write(_Header(PAGE, PAGE, 0, slots, 0, 0, 0))

    def close(self) -> None:
        """Close the descriptor; the memory lives on as long as a picture in it is used."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def put(self, meta: Meta, rows: Any) -> bool:
        """Copy a picture (a buffer of `height * stride` bytes) into a free slot and make it the latest.

        Returns:
            Whether the mailbox was empty before, so that the other side has to be woken.
        """
        size = meta.height * meta.stride
        self._grow(size)
        header = self._read()
        states = header.base
        slot = self.memory[states : states + header.slots].index(_FREE)
        offset = _slot_offset(header, slot)
        start = offset + _META_BYTES
        self.memory[start : start + size] = rows
        self.memory[offset : offset + _META.size] = meta.pack()
        with self._locked() as header:
            previous, header.latest = header.latest, slot + 1
            self.memory[states + slot] = _FILLED
            if previous:
                self.memory[states + previous - 1] = _FREE
                header.stale += 1
        return previous == 0

    def add_lost(self, count: int, cause: str) -> None:
        """Count pictures that were not decoded, by cause (`stale` or `corrupt`)."""
        with self._locked() as header:
            if cause == "stale":
                header.stale += count
            else:
                header.corrupt += count

    @property
    def is_empty(self) -> bool:
        """Whether the latest picture has been taken."""
        with self._locked() as header:
            return header.latest == 0

    def take(self) -> TakenFrame | None:
        """Take the latest picture; None if there is none. Release it when nobody uses it any more."""
        with self._locked() as header:
            slot, header.latest = header.latest - 1, 0
            if slot < 0:
                return None
            if header.size != len(self.memory):
                self.memory = mmap.mmap(self._fd, header.size)
            self.memory[header.base + slot] = _HELD
        offset = _slot_offset(header, slot)
        meta = meta_from_bytes(self.memory[offset : offset + _META.size])
        return TakenFrame(self.memory, header.base + slot, offset + _META_BYTES, meta)

    def is_scarce(self) -> bool:
        """Return whether so many pictures are in use that the one just taken should be copied and released.

        The other side needs three slots: one to write, one for the latest, and one for the next to be taken.
        """
        header = self._read()
        return self.memory[header.base : header.base + header.slots].count(_HELD) > header.slots - 3

    def losses(self) -> tuple[int, int]:
        """Return how many pictures were stale and corrupt so far."""
        with self._locked() as header:
            return header.stale, header.corrupt

    def _grow(self, size: int) -> None:
        """Make room for pictures of `size` bytes; slots in use stay where they are, new ones come behind."""
        header = self._read()
        if header.slot_size >= size + _META_BYTES:
            return
        with self._locked() as header:
            header.slot_size = -(-(size + _META_BYTES) // PAGE) * PAGE
            header.base = header.size
            header.size = _slot_offset(header, header.slots)
            if header.latest:
                header.latest = 0
                header.stale += 1
            os.ftruncate(self._fd, header.size)
            self.memory = mmap.mmap(self._fd, header.size)

    @contextmanager
    def _locked(self) -> Iterator[_Header]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            header = self._read()
            before = astuple(header)
            yield header
            if astuple(header) != before:
                self._write(header)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _read(self) -> _Header:
        return _Header(*_HEADER.unpack_from(self.memory))

    def _write(self, header: _Header) -> None:
        _HEADER.pack_into(self.memory, 0, *astuple(header))
