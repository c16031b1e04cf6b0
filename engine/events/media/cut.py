"""Cuts clips out of recordings without re-encoding, starting exactly at the wanted frame. Imports no numpy.

A player can begin to decode only at a keyframe. So the packets from the keyframe before the wanted frame are copied
with negative times, which the MP4's edit list hides: every player shows the wanted frame first. Players that ignore
edit lists begin at the keyframe.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engine.clock import NS_PER_S
from engine.events.media.edit_list import show_only
from engine.events.media.timeline import Segment, SegmentReader, segments_between
from engine.paths import FILE_MODE, make_folder
from engine.sinks.camera_video.keyframe_index import Sync
from engine.video.explain import explain, video_errors

CutState = Literal["exact", "keyframe", "partial", "none"]
TIME_BASE = Fraction(1, 90_000)
MIN_GAP_NS = NS_PER_S  # so that a camera at 1 fps has no gaps
GAP_FRAMES = 4
PART = ".part"
LEAST_FREE_BYTES = 2_000_000
MP4_OPTIONS = {
    "movflags": "faststart",
    "use_editlist": "1",
    "avoid_negative_ts": "disabled",
    "movie_timescale": "90000",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a clip should contain.

    Attributes:
        folder: recordings of the source.
        start_ns: wall clock of the first frame to show.
        end_ns: wall clock at which it ends.
        path: the clip without suffix; further parts get `_2`, `_3`.
        facts: comment to store in the clip.
        waits: write nothing until the recording has reached the end; `Clip.is_final` says whether it has.
    """

    folder: Path
    start_ns: int
    end_ns: int
    path: Path
    facts: str = ""
    waits: bool = False


@dataclass(slots=True)
class Clip:
    """The outcome.

    Attributes:
        state: `exact`, `keyframe` (it begins earlier, at a keyframe), `partial` (something is missing) or `none`.
        reason: why it is not exact.
        paths: files, in order.
        sizes: of the files, in bytes.
        began_ns: wall clock of the first frame shown; 0 if there is none.
        ended_ns: wall clock of the last one.
        sync: how these times are known, the least accurate of all.
        is_final: something was recorded at or after the wanted end; if not, the recording may still grow.
    """

    state: CutState = "none"
    reason: str = ""
    paths: list[Path] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    began_ns: int = 0
    ended_ns: int = 0
    sync: Sync = "rtcp"
    is_final: bool = False


class Coded(NamedTuple):
    """One coded frame: the packet, when it was captured, when it is due to be decoded, and where it comes from."""

    packet: Any
    utc_ns: int
    decode_ns: int
    stream: Any


def cut(wanted: Wanted) -> Clip:
    """Write the clip and return the outcome; never raises for the state of files on disk."""
    segments, goes_on = segments_between(wanted.folder, wanted.start_ns, wanted.end_ns)
    clip = Clip(sync=_worst_sync(segments), is_final=goes_on)
    if wanted.waits and not (goes_on or any(row.utc_ns >= wanted.end_ns for each in segments for row in each.rows)):
        clip.reason = "the recording has not reached the end yet"
        return clip
    if not segments:
        clip.reason = "there is no recording of this time"
        return clip
    cutter = _Cutter(wanted, clip)
    try:
        for coded in _frames(segments, wanted, cutter.problems):
            cutter.take(coded)
        cutter.finish()
    except video_errors() as error:
        cutter.abandon()
        clip.reason = f"cannot write {wanted.path.name}: {getattr(error, 'strerror', None) or explain(error)}"
    return clip


def _worst_sync(segments: list[Segment]) -> Sync:
    found = {row.sync for segment in segments for row in segment.rows}
    order: tuple[Sync, ...] = ("name", "arrival", "rtcp")
    return next((sync for sync in order if sync in found), "arrival")


def _frames(segments: list[Segment], wanted: Wanted, problems: list[str]) -> Iterator[Coded]:
    """Yield the coded frames from the keyframe before the start up to the end, in decoding order."""
    for segment in segments:
        try:
            with SegmentReader(segment) as reader:
                yield from _frames_of(reader, wanted)
        except EOFError:
            continue  # the file is so new that it is still empty
        except video_errors() as error:
            problems.append(f"{segment.path.name} cannot be read: {explain(error)}")


def _frames_of(reader: SegmentReader, wanted: Wanted) -> Iterator[Coded]:
    segment = reader.segment
    for packet, time_us in reader.packets_from(segment.keyframe_before(wanted.start_ns)):
        utc_ns = segment.utc_ns(time_us)
        delay = (packet.pts - packet.dts) * packet.time_base if packet.dts is not None else 0
        decode_ns = utc_ns - int(delay * NS_PER_S)
        if decode_ns >= wanted.end_ns or (delay == 0 and utc_ns >= wanted.end_ns):
            return
        yield Coded(packet, utc_ns, decode_ns, reader.stream)


class _Cutter:
    """Writes the frames it is given, and records what is missing."""

    def __init__(self, wanted: Wanted, clip: Clip) -> None:
        self._wanted = wanted
        self._clip = clip
        self._waiting: list[Coded] = []  # up to the first frame to show
        self._output: _Output | None = None
        self._count = self._covered_ns = self._newest_ns = 0
        self.problems: list[str] = []

    def take(self, coded: Coded) -> None:
        """Take the next frame in decoding order."""
        if self._output is not None and not self._output.accepts(coded):
            self._close()
        if self._output is None:
            self._waiting.append(coded)
            if coded.decode_ns >= self._wanted.start_ns and coded.utc_ns >= self._wanted.start_ns:
                self._begin()
            return
        self._write(coded)

    def finish(self) -> None:
        """Finish the file, and judge the result."""
        clip, wanted = self._clip, self._wanted
        if self._output is None and any(coded.utc_ns >= wanted.start_ns for coded in self._waiting):
            self._begin()
        self._close()
        interval_ns = self._interval_ns()
        reaches_end = bool(clip.paths) and self._newest_ns + 1.5 * interval_ns >= wanted.end_ns
        clip.is_final = clip.is_final or reaches_end
        if not clip.paths:
            clip.reason = "; ".join(self.problems) or "there is no recording of this time"
            return
        clip.ended_ns = self._newest_ns
        late_ns = clip.began_ns - wanted.start_ns
        if late_ns > max(1.5 * interval_ns, 1):
            self.problems.insert(0, f"the recording begins {late_ns / NS_PER_S:.1f} s after the wanted start")
        if not reaches_end:
            missing_s = (wanted.end_ns - self._newest_ns - interval_ns) / NS_PER_S
            self.problems.append(f"the recording ends {missing_s:.1f} s before the wanted end")
        if self.problems:
            clip.state, clip.reason = "partial", "; ".join(self.problems)

    def abandon(self) -> None:
        """Remove what was written."""
        if self._output is not None:
            self._output.abandon()
            self._output = None
        for path in self._clip.paths:
            with suppress(OSError):
                path.unlink()
        self._clip.paths, self._clip.sizes = [], []

    def _begin(self) -> None:
        """Open a file whose first frame shown is the first one at or after the start, and write the waiting frames."""
        waiting, self._waiting = self._waiting, []
        stream = waiting[-1].stream
        waiting = [coded for coded in waiting if coded.stream is stream]
        shown_ns = min(coded.utc_ns for coded in waiting if coded.utc_ns >= self._wanted.start_ns)
        number = len(self._clip.paths) + 1
        base = self._wanted.path
        path = base if number == 1 else base.with_name(f"{base.name}_{number}")
        self._output = _Output(path, stream, shown_ns, waiting[0], self._wanted.facts)
        clip = self._clip
        if number == 1:
            clip.began_ns, clip.state = shown_ns, "exact"
        else:
            self.problems.append(f"the camera's video format changed: part {number} follows in its own file")
        if not self._output.hides and waiting[0].utc_ns < shown_ns:
            early_s = (shown_ns - waiting[0].utc_ns) / NS_PER_S
            clip.state, clip.reason = "keyframe", f"this codec has no edit list: it begins {early_s:.1f} s earlier"
        for coded in waiting:
            self._write(coded)

    def _write(self, coded: Coded) -> None:
        if self._output is None:
            return
        threshold_ns = max(MIN_GAP_NS, GAP_FRAMES * self._interval_ns())
        if self._newest_ns and coded.utc_ns - self._newest_ns > threshold_ns and coded.utc_ns > self._wanted.start_ns:
            gap_s = (coded.utc_ns - self._newest_ns - self._interval_ns()) / NS_PER_S
            self.problems.append(f"no video for {gap_s:.1f} s from {_clock_text(self._newest_ns)} UTC")
        else:
            self._count += self._newest_ns > 0
            self._covered_ns += max(coded.utc_ns - self._newest_ns, 0) if self._newest_ns else 0
        if coded.utc_ns < self._wanted.end_ns:
            self._newest_ns = max(self._newest_ns, coded.utc_ns)
        self._output.write(coded)

    def _interval_ns(self) -> float:
        """Return the mean time between two frames, without gaps."""
        return self._covered_ns / self._count if self._count else 0.0

    def _close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            path = output.close(self._wanted.end_ns)
            self._clip.paths.append(path)
            self._clip.sizes.append(path.stat().st_size)


def check_room(folder: Path) -> None:
    """Raise `OSError` if a disk has no room for media; the remaining space is reserved for events, which are small."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _clock_text(utc_ns: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(utc_ns // NS_PER_S)) + f".{utc_ns % NS_PER_S // 10**8}"


class _Output:
    """One file being written; it has its name only once it is complete."""

    def __init__(self, base: Path, stream: Any, shown_ns: int, first: Coded, facts: str) -> None:
        self._source = stream
        self._key = _format_of(stream)
        self.hides, self._container, self._track, self._path = self._opened(base, stream)
        if facts:
            self._container.metadata["comment"] = facts
        self._zero_ns = shown_ns if self.hides else first.decode_ns
        self._last_dts: int | None = None
        self._newest_ns = 0

    def _opened(self, base: Path, stream: Any) -> tuple[bool, Any, Any, Path]:
        """Open an MP4, or a Matroska file for codecs that MP4 cannot hold."""
        make_folder(base.parent)
        check_room(base.parent)
        try:
            return True, *_open_file(base.with_name(base.name + ".mp4"), "mp4", MP4_OPTIONS, stream)
        except ValueError:
            return False, *_open_file(base.with_name(base.name + ".mkv"), "matroska", {}, stream)

    def accepts(self, coded: Coded) -> bool:
        """Return whether the file can hold this frame."""
        return coded.stream is self._source or _format_of(coded.stream) == self._key

    def write(self, coded: Coded) -> None:
        """Write a frame, timed from the first frame shown."""
        packet = coded.packet
        self._newest_ns = max(self._newest_ns, coded.utc_ns)
        pts, dts = self._ticks(coded.utc_ns), self._ticks(coded.decode_ns)
        if self._last_dts is not None and dts <= self._last_dts:
            dts = self._last_dts + 1
        self._last_dts = dts
        duration = int((packet.duration or 0) * packet.time_base / TIME_BASE)
        packet.time_base = TIME_BASE
        packet.pts, packet.dts, packet.duration = max(pts, dts), dts, duration
        packet.stream = self._track
        self._container.mux(packet)

    def close(self, end_ns: int) -> Path:
        """Complete the file, hide everything after `end_ns`, and return its path."""
        self._container.close()
        part = self._path.with_name(self._path.name + PART)
        if self.hides and self._newest_ns >= end_ns:
            show_only(part, (end_ns - self._zero_ns) / NS_PER_S)
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, self._path)
        return self._path

    def abandon(self) -> None:
        """Remove the incomplete file."""
        with suppress(*video_errors()):
            self._container.close()
        with suppress(OSError):
            self._path.with_name(self._path.name + PART).unlink()

    def _ticks(self, utc_ns: int) -> int:
        return round((utc_ns - self._zero_ns) / NS_PER_S / TIME_BASE)


def _open_file(path: Path, container: str, options: dict[str, str], stream: Any) -> tuple[Any, Any, Path]:
    import av

    part = path.with_name(path.name + PART)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE))
    output = av.open(str(part), "w", format=container, options=options)
    try:
        track = output.add_stream_from_template(stream)
        track.time_base = TIME_BASE
        if stream.codec_context.name == "hevc" and container == "mp4":
            track.codec_context.codec_tag = "hvc1"  # the only tag that Apple's players accept
    except ValueError:
        output.close()
        part.unlink()
        raise
    return output, track, path


def _format_of(stream: Any) -> tuple[Any, ...]:
    context = stream.codec_context
    return context.name, context.width, context.height, bytes(context.extradata or b"")
