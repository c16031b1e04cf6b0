"""The recording process: copies one stream into files unchanged, until it is stopped.

It is a separate process because FFmpeg and disks can both hang in calls that no thread can interrupt.
Protocol, in whole messages: the engine sends `{"target": {...}, "shelf": {...}, "options": {...}}`, later `stop`;
the process sends `{"state", "reason", "segments", "packets", "bytes", "deleted", "reconnects", "write_errors"}` on
each change and about once a second, and exits after the last one. Nothing here imports numpy.
"""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import suppress
from typing import Any

from engine.process import Messages, die_with
from engine.process_log import LogToEngine
from engine.sinks.camera_video.segments import SegmentError, SegmentFolder, SegmentWriter
from engine.video.address import VideoAddress, knock, video_address_from_request
from engine.video.backoff import Backoff
from engine.video.decode import open_container, packets_in_time
from engine.video.explain import explain, video_errors
from engine.video.options import SourceOptions

REPORT_S = 1.0
DISK_WAIT_S = 5.0


def main() -> None:
    """Record until the engine sends `stop`. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    with Messages(connection_fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        request = json.loads(connection.recv_bytes())
        LogToEngine(connection, request["log_level"])
        target = video_address_from_request(request["target"])
        Recorder(target, SegmentFolder(**request["shelf"]), SourceOptions(**request["options"]), connection).run()


class Recorder:
    """Connects, copies, and reconnects, reporting to the engine."""

    def __init__(
        self, target: VideoAddress, shelf: SegmentFolder, options: SourceOptions, connection: Messages
    ) -> None:
        self._target = target
        self._connection = connection
        self._writer = SegmentWriter(shelf)
        self._backoff = Backoff(options, random.Random())
        self._figures: dict[str, Any] = {"state": "connecting", "reason": "", "reconnects": 0, "write_errors": 0}
        self._reported = time.monotonic()
        self._has_recorded = False

    def run(self) -> None:
        """Record until the engine sends `stop` or has exited."""
        while True:
            self._report("connecting", self._figures["reason"])
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
        try:
            state, reason = self._copied()
            self._writer.close()
        except SegmentError as error:
            self._figures["write_errors"] += 1
            with suppress(SegmentError):
                self._writer.close()
            return "failed", str(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the engine has exited
            raise
        except Exception as error:  # noqa: BLE001 - a bug here ends one connection, and is reported, not printed
            return "failed", f"the recorder failed ({type(error).__name__}: {error})"
        return state, reason

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
            packets = packets_in_time(container, stream, self._target)
            while True:
                try:
                    packet = next(packets, None)
                except video_errors() as error:
                    return "offline", explain(error)
                if packet is None:
                    return "offline", "the camera ended the stream"
                if packet.size:
                    self._writer.write(packet, stream)
                    self._note_written()
                if self._is_stopped(0):
                    return "ended", ""

    def _note_written(self) -> None:
        """Report progress, at once for the first packet."""
        if self._figures["state"] != "recording" and self._writer.is_open:
            self._figures["reconnects"] += self._has_recorded
            self._has_recorded = True
            self._backoff.reset()
            self._report("recording", "")
        elif time.monotonic() - self._reported >= REPORT_S:
            self._report(self._figures["state"], self._figures["reason"])

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
        self._reported = time.monotonic()
        self._connection.send_bytes(json.dumps(self._figures).encode())

    def _is_stopped(self, wait_s: float) -> bool:
        """Return whether the engine sent `stop` within `wait_s`. Raises `EOFError` if it has exited."""
        return self._connection.poll(wait_s) and bool(self._connection.recv_bytes())
