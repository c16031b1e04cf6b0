"""The recording process: copies one stream into files unchanged, until it is stopped.

It is a separate process because FFmpeg and disks can both hang in calls that no thread can interrupt, and because it
parses untrusted data: before it connects, it drops all privileges that it does not need (`engine.video.sandbox`).
Protocol, in whole messages: the engine sends `{"target", "files", "options", "ring", "log_level"}`, later any number of
`{"hold_s": seconds}` and finally `stop`; the process sends `{"state", "reason", "segments", "packets", "bytes",
"deleted", "reconnects", "write_errors"}` (with a ring also `ring_s` and `ring_bytes`) on each change and about once a
second, and exits after the last one. With `"ring": {"before_s", "after_s"}` it keeps the newest packets in memory and
writes them, and what follows, only on request. Nothing here imports numpy.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine.paths import make_folder
from engine.process import Messages, die_with
from engine.process_log import LogToEngine
from engine.sinks.camera_video.packet_ring import Held, PacketRing, detached
from engine.sinks.camera_video.segments import (
    FORMATS,
    Captured,
    SegmentError,
    SegmentFolder,
    SegmentWriter,
)
from engine.video.address import VideoAddress, knock, video_address_from_request
from engine.video.backoff import Backoff
from engine.video.decode import open_container, packets_in_time
from engine.video.explain import explain, video_errors
from engine.video.options import SourceOptions
from engine.video.sandbox.confine import confine
from engine.video.timing.access_units import CODECS
from engine.video.timing.arrivals import Arrivals

logger = logging.getLogger(__name__)
REPORT_S = 1.0
STOP = b"stop"
DISK_WAIT_S = 5.0
MAX_HOLD_S = 3600.0


@dataclass(frozen=True, slots=True)
class RingOptions:
    """Options for recording only on request.

    Attributes:
        before_s: minimum seconds kept in memory, starting at a keyframe.
        after_s: seconds written after the last request has expired.
    """

    before_s: float = 8.0
    after_s: float = 5.0


def main() -> None:
    """Record until the engine sends `stop`. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    with Messages(connection_fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        request = json.loads(connection.recv_bytes())
        LogToEngine(connection, request["log_level"])
        target = video_address_from_request(request["target"])
        files, options, ring = SegmentFolder(**request["files"]), SourceOptions(**request["options"]), request["ring"]
        Recorder(target, files, options, connection, RingOptions(**ring) if ring else None, confine).run()


class PacketTimes:
    """Capture times of the packets of one connection.

    FFmpeg's parser hands out a frame of RTP when the next one begins, so the frame arrived when the previous one was
    handed out. The camera's own clock is not affected.
    """

    def __init__(self, stream: Any, target: VideoAddress) -> None:
        codec = stream.codec_context.name if stream.codec_context is not None else ""
        self._is_held_back = target.host_port is not None and codec in CODECS
        self._arrivals = Arrivals(Fraction(stream.time_base))
        self._asked_ns = time.monotonic_ns()
        self._before_ns: int | None = None

    def of(self, packet: Any) -> Captured:
        """Return when the frame of the packet just read was captured."""
        now_ns = time.monotonic_ns()
        arrived_ns = self._before_ns if self._is_held_back and self._before_ns is not None else now_ns
        self._arrivals.note(packet, max(now_ns - self._asked_ns, 0), arrived_ns)
        self._before_ns, self._asked_ns = now_ns, time.monotonic_ns()
        stamp = self._arrivals.stamp(packet.pts)
        return Captured(stamp.captured_utc_ns, "rtcp" if stamp.captured_source == "rtcp" else "arrival")


class Recorder:
    """Connects, copies, and reconnects, reporting to the engine."""

    def __init__(
        self,
        target: VideoAddress,
        files: SegmentFolder,
        options: SourceOptions,
        connection: Messages,
        ring: RingOptions | None = None,
        confine: Callable[[VideoAddress, str], None] | None = None,
    ) -> None:
        self._target = target
        self._connection = connection
        self._folder = files.folder
        self._confine = confine
        self._is_confined = False
        self._writer = SegmentWriter(files)
        self._container = files.container
        self._copies_sound = files.sound
        self._backoff = Backoff(options, random.Random())
        self._figures: dict[str, Any] = {"state": "connecting", "reason": "", "reconnects": 0, "write_errors": 0}
        self._reported = time.monotonic()
        self._has_recorded = False
        self._is_asked_to_stop = False
        self._after_s = ring.after_s if ring is not None else 0.0
        self._ring = PacketRing(ring.before_s) if ring is not None else None
        self._held_until: float | None = None
        self._template: Any = None  # stream of the file being written

    def run(self) -> None:
        """Record until the engine sends `stop` or has exited."""
        while True:
            self._report("connecting", self._figures["reason"])
            with suppress(SegmentError):
                self._writer.close()  # opened by a request while the camera was away
            state, reason = self._recorded()
            if state == "ended":
                break
            wait_s = self._backoff.next_s(reason)
            self._report(state, reason)
            if self._is_stopped(wait_s if state == "offline" else DISK_WAIT_S):
                break
        self._report("ended", "")

    def _recorded(self) -> tuple[str, str]:
        """Record one connection and return the resulting state with its reason."""
        self._drop_permissions()
        try:
            state, reason = self._copied()
            self._writer.close()
        except SegmentError as error:
            if self._is_confined and isinstance(error.__cause__, PermissionError):
                raise EOFError from error  # the folder or disk was replaced: a new process may write there
            self._figures["write_errors"] += 1
            with suppress(SegmentError):
                self._writer.close()
            return "failed", str(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the engine has exited
            raise
        except Exception as error:  # noqa: BLE001 - a bug here ends one connection, and is reported, not printed
            return "failed", f"the recorder failed ({type(error).__name__}: {error})"
        return state, reason

    def _drop_permissions(self) -> None:
        """Once the folder exists, drop every permission that recording does not need.

        Only this folder stays writable.
        """
        if self._is_confined or self._confine is None:
            return
        with suppress(OSError):
            make_folder(Path(self._folder))
            if os.access(self._folder, os.W_OK | os.X_OK):
                self._confine(self._target, self._folder)
                self._is_confined = True

    def _copied(self) -> tuple[str, str]:
        try:
            knock(self._target)
            container = open_container(self._target)
        except video_errors() as error:
            return "offline", explain(error)
        with container:
            if not container.streams.video:
                return "offline", "it has no video stream"
            stream = container.streams.video[0]
            template = stream if self._ring is None else detached(stream, FORMATS[self._container])
            times = PacketTimes(stream, self._target)
            sound = self._sound_of(container)
            packets = packets_in_time(container, stream, self._target, sound)
            while True:
                try:
                    packet = next(packets, None)
                except video_errors() as error:
                    return "offline", explain(error)
                if packet is None:
                    return "offline", "the camera ended the stream"
                if sound is not None and packet.stream is sound:
                    self._writer.write_sound(packet)
                elif packet.size:
                    self._take(Held(packet, template, times.of(packet), time.monotonic_ns()))
                    self._note_taken()
                if self._is_stopped(0):
                    return "ended", ""

    def _sound_of(self, container: Any) -> Any:
        """Return the audio stream to copy, and prepare files for it.

        None if there is none, or the files cannot hold it.
        """
        self._writer.sound = None
        if not (self._copies_sound and container.streams.audio):
            return None
        sound = container.streams.audio[0]
        try:
            self._writer.sound = detached(sound, FORMATS[self._container])
        except video_errors() as error:
            logger.warning("the sound is not recorded (%s): set the camera to AAC, or record.sound: false", error)
            return None
        return sound

    def _take(self, held: Held) -> None:
        """Write a packet, or keep it in the ring if no recording was requested. Raises `SegmentError`."""
        is_over = self._held_until is None or time.monotonic() >= self._held_until
        if self._ring is None or not (is_over and (held.packet.is_keyframe or not self._writer.is_open)):
            self._write(held)  # a recording ends before a keyframe, so that the next one continues it
            return
        if self._writer.is_open:
            self._writer.close()
        self._ring.add(held)

    def _hold(self, seconds: float) -> None:
        """Write what the ring holds, and everything that follows for at least `seconds`."""
        if self._ring is None:
            return
        until = time.monotonic() + min(max(seconds, 0.0), MAX_HOLD_S) + self._after_s
        self._held_until = max(self._held_until or until, until)
        try:
            for held in self._ring.drain():
                self._write(held)
        except SegmentError as error:
            for _ in self._ring.drain():  # later packets would not continue it
                pass
            self._figures["write_errors"] += 1
            self._report(self._figures["state"], str(error))

    def _write(self, held: Held) -> None:
        """Write a packet, beginning a file for each connection. Raises `SegmentError`."""
        if held.template is not self._template:
            self._writer.close()
            self._template = held.template
        self._writer.write(held.packet, held.template, held.captured)

    def _note_taken(self) -> None:
        """Report progress, and at once when packets begin to be written or kept."""
        before, state = self._figures["state"], self._figures["state"]
        if self._writer.is_open:
            state = "recording"
        elif self._ring is not None:
            state = "ready"
        if state != before:
            if before not in ("recording", "ready"):
                self._figures["reconnects"] += self._has_recorded
                self._has_recorded = True
                self._backoff.reset()
            self._report(state, "")
        elif time.monotonic() - self._reported >= REPORT_S:
            self._report(state, self._figures["reason"])

    def _report(self, state: str, reason: str) -> None:
        writer = self._writer
        writer.tidy()
        self._figures |= {
            "state": state,
            "reason": reason,
            "segments": writer.segments,
            "packets": writer.packets,
            "bytes": writer.bytes,
            "deleted": writer.deleted,
        }
        if self._ring is not None:
            ring_s = round(self._ring.seconds(time.monotonic_ns()), 1)
            self._figures |= {"ring_s": ring_s, "ring_bytes": self._ring.bytes}
        self._reported = time.monotonic()
        self._connection.send_bytes(json.dumps(self._figures).encode())

    def _is_stopped(self, wait_s: float) -> bool:
        """Return whether the engine sent `stop` within `wait_s`, handling its other requests.

        Raises:
            EOFError: the engine has exited.
        """
        deadline = time.monotonic() + wait_s
        while not self._is_asked_to_stop and self._connection.poll(max(deadline - time.monotonic(), 0)):
            message = self._connection.recv_bytes()
            if message == STOP:
                self._is_asked_to_stop = True
            else:
                self._hold(float(json.loads(message)["hold_s"]))
        return self._is_asked_to_stop
