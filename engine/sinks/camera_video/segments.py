"""Writes a stream unchanged into files of bounded length, and deletes old ones. Decodes nothing.

MP4 is written in fragments, each complete on disk, and converted to a plain MP4 when a file is finished: a file
truncated by a crash or a full disk plays to its last second.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.clock import NS_PER_S
from engine.paths import FILE_MODE, make_folder
from engine.sinks.camera_video.keyframe_index import (
    NS_PER_US,
    US_PER_S,
    IndexWriter,
    Keyframe,
    Sync,
    index_path,
    is_recording_name,
)
from engine.video.explain import video_errors

SECOND_US = "1000000"
MAX_JUMP_S = 10.0
LEAST_FREE_BYTES = 256 * 1024  # with less space, do not start a file: it would end at once, and so would the next
STUB_BYTES = 4096  # a file that failed with fewer bytes contains nothing worth keeping
GRACE_S = 600.0
"""Time after boot by which the clock should be set; until then, never treat all files as too old."""
MAX_OWN_FILES = 100_000
TIDY_S = 60.0  # interval between searches for files that are too old
LARGEST_SHARE = 4  # a file takes at most this fraction of the total limit, so that deleting whole files is enough
_INTERLEAVE = {"max_interleave_delta": SECOND_US}
"""With sound, video waits at most this long for the sound that precedes it, because a camera may send none."""
_OPTIONS = {
    "mp4": {
        "movflags": "hybrid_fragmented+frag_keyframe+empty_moov+default_base_moof",
        "frag_duration": "250000",
        "flush_packets": "1",
        **_INTERLEAVE,
    },
    "mkv": {"flush_packets": "1", "cluster_time_limit": "250", **_INTERLEAVE},
}
FORMATS = {"mp4": "mp4", "mkv": "matroska"}
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check the folder's owner and mode"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EIO), "check that the folder and its disk are there"),
}


class SegmentError(Exception):
    """A file cannot be written; the message says which one, why, and what to do."""


@dataclass(frozen=True, slots=True)
class SegmentFolder:
    """The folder of one recording's files, and how much of them to keep.

    Attributes:
        folder: contains only the files of this recording.
        container: `mp4` or `mkv`.
        segment_s: a file ends at the first keyframe after this time.
        max_bytes: delete the oldest files when all together exceed this; None: no limit.
        keep_s: delete files older than this; None: never.
        sound: copy the camera's sound as well.
    """

    folder: str
    container: str = "mp4"
    segment_s: float = 60.0
    max_bytes: int | None = None
    keep_s: float | None = None
    sound: bool = True

    def new_path(self, utc_ns: int | None = None) -> Path:
        """Return a new, empty file named after the time (UTC), creating the folder; other users can read neither.

        Args:
            utc_ns: when its first frame was captured; None: now.

        Raises:
            OSError: the folder cannot be created, or the disk is full.
        """
        folder = Path(self.folder)
        make_folder(folder)
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stem = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(None if utc_ns is None else utc_ns // NS_PER_S))
        names = [stem, *(f"{stem}_{number}" for number in range(1, 1000))]
        return next(path for name in names if _is_made(path := folder / f"{name}.{self.container}"))

    def tidy(self, now: float | None = None, newest: Sequence[str] = (), *, spare_all: bool = False) -> int:
        """Delete files that are too old or too many, oldest first, leaving room for a new one; return how many.

        Args:
            now: seconds since 1970 from which ages are counted; None: the clock's.
            newest: names of the newest files, in order, regardless of the times in their names.
            spare_all: delete no file for its age if all are too old, because then the clock is probably wrong.
        """
        found = []
        rank = {name: place for place, name in enumerate(newest)}
        with suppress(OSError):
            for entry in os.scandir(self.folder):
                if is_recording_name(entry.name):
                    with suppress(OSError):
                        facts = entry.stat(follow_symlinks=False)
                        place = (rank.get(entry.name, -1), entry.name)
                        found.append((place, facts.st_size, facts.st_mtime, entry.path))
        total, deleted, now = sum(size for _, size, _, _ in found), 0, time.time() if now is None else now
        keep_s = float("inf") if self.keep_s is None else self.keep_s
        if spare_all and all(now - written > keep_s for _, _, written, _ in found):
            keep_s = float("inf")
        for _, size, written, path in sorted(found):
            is_much = self.max_bytes is not None and total > self.max_bytes - self.largest_bytes
            if is_much or now - written > keep_s:
                with suppress(OSError):
                    delete_recording(Path(path))
                    total, deleted = total - size, deleted + 1
        return deleted

    @property
    def largest_bytes(self) -> float:
        """Size at which a file ends early."""
        return self.max_bytes / LARGEST_SHARE if self.max_bytes is not None else float("inf")


def delete_recording(path: Path) -> None:
    """Delete a recording with its index. Raises `OSError` if the recording itself cannot be deleted."""
    path.unlink()
    with suppress(OSError):
        index_path(path).unlink()


def _is_made(path: Path) -> bool:
    """Create an empty file that other users cannot read; return False if the name is already taken."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
    except FileExistsError:
        return False
    return True


class SteadyTime:
    """Seconds since 1970, ignoring forward jumps of the clock, because deleting files by age cannot be undone.

    A clock that jumps ahead by days would make every file too old. A clock that was wrong from the start is believed.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the clock's time without its forward jumps."""
        return min(time.time(), time.monotonic() + self._offset)


class Timeline:
    """Timestamps of one file: they start at 0 and increase, whatever the camera sends.

    Packets without a time continue at the last interval; a jump of more than `MAX_JUMP_S` is removed.
    """

    def __init__(self, time_base: Any) -> None:
        self._max_jump = int(MAX_JUMP_S / time_base)
        self._time_base = time_base
        self._offset: int | None = None
        self._last: int | None = None
        self._step = 1

    def place(self, packet: Any) -> None:
        """Set `dts` and `pts` of a packet."""
        due = 0 if self._last is None else self._last + (packet.duration or self._step)
        dts = packet.dts if packet.dts is not None else packet.pts
        delay = max((packet.pts or 0) - dts, 0) if dts is not None else 0
        time = due
        if dts is not None:
            if self._offset is None or abs(dts - self._offset - due) > self._max_jump:
                self._offset = dts - due
            time = dts - self._offset
        if self._last is not None:
            time = max(time, self._last + 1)
            self._step = time - self._last
        packet.dts, packet.pts, self._last = time, time + delay, time

    @property
    def origin_s(self) -> float | None:
        """The stream's time, in seconds, at which the file is at 0; None before a packet with a time."""
        return None if self._offset is None else float(self._offset * self._time_base)

    @property
    def reached_s(self) -> float:
        """Seconds of the file written so far."""
        return 0.0 if self._last is None else float(self._last * self._time_base)


class SoundLine:
    """Timestamps of the sound in one file: increasing, on the same timeline as its video."""

    def __init__(self) -> None:
        self._last: int | None = None

    def place(self, packet: Any, video: Timeline) -> bool:
        """Set `dts` and `pts` of a packet; return whether it belongs in the file.

        It does not if it precedes the first frame, has no time, or is more than `MAX_JUMP_S` away from the video.
        """
        time, origin_s = packet.pts if packet.pts is not None else packet.dts, video.origin_s
        if time is None or origin_s is None or not packet.size:
            return False
        at_s = float(time * packet.time_base) - origin_s
        if at_s < 0 or abs(at_s - video.reached_s) > MAX_JUMP_S:
            return False
        ticks = round(at_s / packet.time_base)
        self._last = ticks if self._last is None else max(ticks, self._last + 1)
        packet.pts = packet.dts = self._last
        return True


@dataclass(frozen=True, slots=True)
class Captured:
    """When a packet's frame was captured, by the wall clock, and how that is known."""

    utc_ns: int
    sync: Sync = "arrival"


class SegmentWriter:
    """Writes the packets of a stream into successive files, each starting at a keyframe.

    Attributes:
        segments: files started.
        packets: frames written.
        bytes: bytes written.
        deleted: files deleted to keep the limits.
        sound: template of the audio stream that files get from now on; None: none.
    """

    def __init__(self, folder: SegmentFolder) -> None:
        self._folder = folder
        self._output: Any = None
        self._timeline = Timeline(1)
        self._track: Any = None
        self.sound: Any = None
        self._sound_track: Any = None
        self._sound_line = SoundLine()
        self._path: Path | None = None
        self._index: IndexWriter | None = None
        self._first_us: int | None = None
        self._end: Keyframe | None = None
        self._size, self._begun = 0, 0.0
        self._tidied: float | None = None
        self._time, self._started = SteadyTime(), time.monotonic()
        self._made: deque[str] = deque(maxlen=MAX_OWN_FILES)
        self.segments = self.packets = self.bytes = self.deleted = 0

    @property
    def is_open(self) -> bool:
        """Whether a file is being written."""
        return self._output is not None

    def write_sound(self, packet: Any) -> None:
        """Write one packet of `sound` at its time beside the video; nothing while no file is open.

        Raises:
            SegmentError: the disk is full, or the folder is not writable.
        """
        if self._output is None or self._sound_track is None or not self._sound_line.place(packet, self._timeline):
            return
        size, packet.stream = packet.size, self._sound_track
        try:
            self._output.mux(packet)
        except video_errors() as error:
            raise self._failed(error) from error
        self.bytes, self._size = self.bytes + size, self._size + size

    @property
    def _is_early(self) -> bool:
        """Whether the machine may not have set its clock yet."""
        return time.monotonic() - self._started < GRACE_S

    def write(self, packet: Any, stream: Any, captured: Captured | None = None) -> None:
        """Write one packet of `stream`; packets before the first keyframe are skipped.

        Args:
            packet: coded frame; its times are changed.
            stream: template of its file.
            captured: when it was captured; None: now.

        Raises:
            SegmentError: the disk is full, or the folder is not writable.
        """
        if packet.is_keyframe and (self._output is None or self._is_full()):
            self.close()
            self._begin(packet, stream, captured)
        if self._output is None:
            return
        size = packet.size
        self._timeline.place(packet)
        row = self._row(packet, captured or Captured(time.time_ns()))
        packet.stream = self._track
        try:
            self._output.mux(packet)
        except video_errors() as error:
            raise self._failed(error) from error
        if self._index is not None:
            self._index.add(row)
        self.packets, self.bytes, self._size = self.packets + 1, self.bytes + size, self._size + size

    def tidy(self) -> None:
        """Delete files that are too old, about once a minute, even while the camera is away and no file is started."""
        now = time.monotonic()
        if self._folder.keep_s is not None and (self._tidied is None or now - self._tidied >= TIDY_S):
            self._tidied = now
            self.deleted += replace(self._folder, max_bytes=None).tidy(
                self._time.now(), self._made, spare_all=self._is_early
            )

    def close(self) -> None:
        """Finish the file; harmless when repeated.

        Raises:
            SegmentError: its end cannot be written.
        """
        output, self._output = self._output, None
        if self._index is not None:
            self._index.close(self._end)
            self._index = self._end = None
        if output is not None:
            try:
                output.close()
            except video_errors() as error:
                raise self._failed(error) from error

    def _row(self, packet: Any, captured: Captured) -> Keyframe:
        """Return the packet's index row, and record where the recording ends with it."""
        at_us = int(packet.pts * packet.time_base * US_PER_S)
        self._first_us = at_us if self._first_us is None else self._first_us
        row = Keyframe(
            at_us - self._first_us, captured.utc_ns, captured.sync, "keyframe" if packet.is_keyframe else "clock"
        )
        duration_us = int((packet.duration or 0) * packet.time_base * US_PER_S)
        if self._end is None or self._end.time_us < row.time_us + duration_us:
            self._end = replace(
                row, time_us=row.time_us + duration_us, utc_ns=captured.utc_ns + duration_us * NS_PER_US
            )
        return row

    def _begin(self, packet: Any, stream: Any, captured: Captured | None) -> None:
        import av

        container = self._folder.container
        self._path, self._size, self._begun = None, 0, time.monotonic()
        try:
            self.deleted += self._folder.tidy(self._time.now(), self._made, spare_all=self._is_early)
            self._path = self._folder.new_path(None if captured is None else captured.utc_ns)
            self._made.append(self._path.name)
            self._output = av.open(str(self._path), "w", format=FORMATS[container], options=_OPTIONS[container])
            self._track = self._output.add_stream_from_template(stream)
            self._sound_track = None if self.sound is None else self._output.add_stream_from_template(self.sound)
        except video_errors() as error:
            self._output = None
            raise self._failed(error) from error
        self._timeline, self._sound_line = Timeline(packet.time_base), SoundLine()
        self._index, self._first_us, self._end = IndexWriter(self._path), None, None
        self.segments += 1

    def _is_full(self) -> bool:
        return time.monotonic() - self._begun >= self._folder.segment_s or self._size >= self._folder.largest_bytes

    def _failed(self, error: Exception) -> SegmentError:
        reason = getattr(error, "strerror", None) or str(error)
        with suppress(OSError):
            if self._output is None and self._path is not None and self._path.stat().st_size < STUB_BYTES:
                delete_recording(self._path)  # each further attempt would leave another stub
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, "container mkv holds more codecs than mp4")
        return SegmentError(f"cannot write {self._path or self._folder.folder}: {reason}: {remedy}")
