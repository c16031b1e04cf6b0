"""A mailbox for frames between two processes: the newest one wins, and a frame in use is never overwritten.

Anonymous shared memory (`memfd`) of a fixed size: one page with a header and one state per slot, then the slots. The
reader process fills a free slot and makes it the latest; if the previous latest was not taken, its slot becomes free
and the frame counts as `stale`. The engine takes the latest and holds its slot until the frame is no longer used.
A POSIX lock on the file guards the fields that both sides change; the kernel releases it when a process dies.

The reader process parses untrusted data, so the engine trusts nothing that it writes: the engine creates the memory and
knows its layout, the size is sealed (a shorter file would kill the engine with SIGBUS), every number in it is checked,
and waiting for the lock has a limit. Frames of another size get new memory; the old memory is freed with its last
frame. Nothing has a name, so nothing can be left behind. Imports no numpy: the reader process uses it too.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_S, pause
from engine.video.orientation import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE
from engine.video.sizes.limits import MAX_PIXELS

if TYPE_CHECKING:
    from engine.data import CapturedSource

PAGE = mmap.PAGESIZE
MAX_SLOTS = 256
MIN_SLOTS = 4
RING_BYTES = 256_000_000
"""Largest total size: if all slots would need more, there are fewer of them, but at least four."""
LOCK_S = 0.5
"""The lock is held for microseconds; a process that holds it for this long is stopped or hostile."""
SHRINK_SHARE, SHRINK_AFTER = 4, 50
"""After 50 consecutive frames that fill less than a quarter of their slots, the slots shrink."""
_LOCK_POLL_S = 0.0005
_HEADER = struct.Struct("=3q")  # latest + 1, stale, corrupt
_STATES = 64
_FREE, _FILLED, _HELD = 0, 1, 2
_META = struct.Struct("=8q")
_META_BYTES = 128
_NO_PTS = -(1 << 63)
MAX_ORIENTATION = FLIP_COLUMNS | FLIP_ROWS | TRANSPOSE
LIVE_SOURCES: tuple[CapturedSource, ...] = ("arrival", "rtcp", "segment")
_MAX_LOST = 100_000_000
_MAX_AHEAD_NS = 10 * NS_PER_S


class RingError(Exception):
    """The other process holds the lock, or wrote impossible values."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Metadata of the frame in a slot.

    Attributes:
        width: pixels per row.
        height: rows.
        stride: bytes from one row to the next.
        orientation: see `engine.video.orientation`.
        captured_ns: see `Stamp`.
        captured_utc_ns: see `Stamp`.
        pts_ns: see `Stamp`; None is stored as the smallest number.
        captured_source: index in `LIVE_SOURCES` of how the wall clock is known.
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

    def check(self, room: int, max_pixels: int) -> None:
        """Raise `RingError` unless it describes a frame that lies within `room` bytes, captured before now."""
        is_frame = self.width > 0 and self.height > 0 and self.width * self.height <= max_pixels
        is_inside = 3 * self.width <= self.stride and self.height * self.stride <= room
        is_of_now = 0 < self.captured_ns <= time.monotonic_ns() + _MAX_AHEAD_NS and self.captured_utc_ns > 0
        is_known = 0 <= self.orientation <= MAX_ORIENTATION and 0 <= self.captured_source < len(LIVE_SOURCES)
        if not (is_frame and is_inside and is_of_now and is_known):
            raise RingError(f"an impossible frame: {self}")


def meta_from_bytes(data: bytes) -> Meta:
    """Return the metadata that `Meta.pack` has packed."""
    values = list(_META.unpack(data))
    values[6] = None if values[6] == _NO_PTS else values[6]
    return Meta(*values)


@dataclass(frozen=True, slots=True)
class TakenFrame:
    """A frame taken from the ring: its pixels are `memory[offset : offset + height * stride]`."""

    memory: mmap.mmap
    state: int
    offset: int
    meta: Meta

    def release(self) -> None:
        """Release the slot; safe from any thread, even during garbage collection."""
        self.memory[self.state] = _FREE


@dataclass(frozen=True, slots=True)
class Layout:
    """The division of a ring into slots; both sides know it, and neither reads it from the shared memory."""

    slots: int
    slot_size: int

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return PAGE + self.slots * self.slot_size

    @property
    def room(self) -> int:
        """Bytes of the largest frame."""
        return self.slot_size - _META_BYTES


def layout_for(frame_bytes: int, slots: int) -> Layout:
    """Return the layout for frames of `frame_bytes` bytes: with `slots` slots, or fewer if frames are large.

    >>> layout_for(640 * 480 * 3, 8).slots, layout_for(7680 * 4320 * 3, 8).slots
    (8, 4)
    """
    slot_size = -(-(frame_bytes + _META_BYTES) // PAGE) * PAGE
    return Layout(max(MIN_SLOTS, min(slots, RING_BYTES // slot_size, MAX_SLOTS)), slot_size)


def anonymous_file(layout: Layout) -> int:
    """Return a descriptor of new shared memory that has no name and keeps its size. Raises OSError."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(layout.size)
            return os.dup(file.fileno())
    fd = os.memfd_create("framewire-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, layout.size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Ring:
    """One side of the mailbox; each side creates one on the same memory.

    Args:
        fd: from `anonymous_file`; owned from now on.
        layout: of the memory.
        lock_s: how long to wait for the other side's lock; None: no limit.
        max_pixels: `take` refuses larger frames.

    Raises:
        OSError: it cannot be mapped; `fd` is closed.
    """

    def __init__(self, fd: int, layout: Layout, *, lock_s: float | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self._fd = fd
        self._lock_s = lock_s
        self._max_pixels = max_pixels
        self._small = 0
        self.layout = layout
        try:
            self.memory = mmap.mmap(fd, layout.size)
        except (OSError, ValueError):
            os.close(fd)
            raise

    def close(self) -> None:
        """Close the descriptor; the memory lives as long as a frame in it is used. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor, to be sent to the other side."""
        return self._fd

    def fits(self, size: int) -> bool:
        """Return whether frames of `size` bytes still fit: not too large, nor far too small for a while."""
        self._small = self._small + 1 if SHRINK_SHARE * size < self.layout.slot_size - PAGE else 0
        return size <= self.layout.room and self._small < SHRINK_AFTER

    def put(self, meta: Meta, rows: Any) -> bool:
        """Copy a frame (a buffer of `height * stride` bytes) into a free slot and make it the latest.

        Returns:
            Whether the mailbox was empty before, so that the other side must be woken.
        """
        size = meta.height * meta.stride
        slot = self.memory[_STATES : _STATES + self.layout.slots].index(_FREE)
        offset = self._offset(slot)
        start = offset + _META_BYTES
        self.memory[start : start + size] = rows
        self.memory[offset : offset + _META.size] = meta.pack()
        with self._locked():
            previous, stale, corrupt = self._read()
            self.memory[_STATES + slot] = _FILLED
            if previous:
                self.memory[_STATES + previous - 1] = _FREE
            self._write(slot + 1, stale + bool(previous), corrupt)
        return previous == 0

    def add_lost(self, count: int, cause: str) -> None:
        """Count frames that were not decoded, by cause (`stale` or `corrupt`)."""
        with self._locked():
            latest, stale, corrupt = self._read()
            is_stale = cause == "stale"
            self._write(latest, stale + count * is_stale, corrupt + count * (not is_stale))

    @property
    def is_empty(self) -> bool:
        """Whether the latest frame has been taken."""
        return self._read()[0] == 0

    def take(self) -> TakenFrame | None:
        """Take the latest frame; None if there is none. Release it after use.

        Raises:
            RingError: the other side holds the lock, or wrote impossible values.
        """
        with self._locked():
            latest, stale, corrupt = self._read()
            if latest == 0:
                return None
            if not 0 < latest <= self.layout.slots:
                raise RingError(f"slot {latest} of {self.layout.slots}")
            self._write(0, stale, corrupt)
            state = _STATES + latest - 1
            self.memory[state] = _HELD
        offset = self._offset(latest - 1)
        meta = meta_from_bytes(self.memory[offset : offset + _META.size])
        meta.check(self.layout.room, self._max_pixels)
        return TakenFrame(self.memory, state, offset + _META_BYTES, meta)

    def is_scarce(self) -> bool:
        """Return whether slots are so scarce that the caller should copy and release the frame just taken.

        The other side needs three slots: one to write, one for the latest, and one for the next to be taken.
        """
        slots = self.layout.slots
        return self.memory[_STATES : _STATES + slots].count(_HELD) > slots - 3

    def losses(self) -> tuple[int, int]:
        """Return how many frames were stale and corrupt so far. Raises `RingError` like `take`."""
        with self._locked():
            _, stale, corrupt = self._read()
        if not (0 <= stale <= _MAX_LOST and 0 <= corrupt <= _MAX_LOST):
            raise RingError(f"{stale} stale and {corrupt} corrupt frames")
        return stale, corrupt

    def _offset(self, slot: int) -> int:
        return PAGE + slot * self.layout.slot_size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock()
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _lock(self) -> None:
        if self._lock_s is None:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            return
        deadline_ns = time.monotonic_ns() + int(self._lock_s * NS_PER_S)
        while True:
            is_last = time.monotonic_ns() >= deadline_ns  # before trying: this process may have been stopped too
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if is_last:
                    raise RingError(f"the lock was not released within {self._lock_s:g} s") from error
            pause(_LOCK_POLL_S)

    def _read(self) -> tuple[int, int, int]:
        latest, stale, corrupt = _HEADER.unpack_from(self.memory)
        return latest, stale, corrupt

    def _write(self, latest: int, stale: int, corrupt: int) -> None:
        _HEADER.pack_into(self.memory, 0, latest, stale, corrupt)
