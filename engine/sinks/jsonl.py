"""Writes the bodies of wire messages to a file, one JSON object per line."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

from engine.clock import SYSTEM_CLOCK, Clock
from engine.data import Packet, Run, SourceStatus
from engine.errors import SinkError
from engine.paths import how_to_write
from engine.protocols import OutputFile, SinkBase
from engine.sinks.claim import claim
from engine.wire import Message, encode, eos_message, frame_message, status_message

BUFFER_BYTES = 256 * 1024
STDOUT = "-"


class JsonlWriter(SinkBase):
    """Writes one line per packet, in the order of publishing; flushes every second and at the end.

    Only whole lines are handed to the system, so that a killed process leaves no partial line.

    Args:
        path: the file, replaced if it exists; `-` is stdout.
        frames_only: leave out the lines for states and ends of streams, so that one line is one frame.
        append: add to the file instead of replacing it; several processes may do so at the same time.
        clock: for tests.
    """

    name = "jsonl"
    blocking = True

    def __init__(
        self, path: str | Path, *, frames_only: bool = True, append: bool = False, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.path = Path(path)
        self._frames_only, self._mode = frames_only, "ab" if append else "wb"
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._lines = bytearray()
        self._frames = 0
        self._is_complete = False
        self._run = Run("", 0)
        self._last_seq: dict[str, int] = {}
        self._status_seq: dict[str, int] = {}

    def open(self, run: Run) -> None:
        """Create the file.

        Raises:
            SinkError: the folder does not exist or is not writable, or another run is writing the file.
        """
        self._run, self._frames, self._is_complete = run, 0, False
        try:
            is_file = str(self.path) != STDOUT
            opened = self._claimed() if is_file and self._mode == "wb" else self.path if is_file else 1
            self._file = open(opened, self._mode, buffering=0, closefd=is_file)  # noqa: SIM115
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}: {how_to_write(error)}") from error

    def _claimed(self) -> int:
        """Return the file, empty and locked. Raises `OSError` if another run is writing it."""
        handle = claim(self.path)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.ftruncate(handle, 0)
        return handle

    def write(self, packet: Packet) -> None:
        """Write one line.

        Raises:
            SinkError: the disk is full or gone.
        """
        self._last_seq[packet.frame.source_id] = packet.seq
        self._line(frame_message(packet))
        self._frames += 1

    def status(self, status: SourceStatus) -> None:
        """Write the state, unless only frames are wanted."""
        if self._frames_only:
            return
        source_id = status.source_id
        seq = self._status_seq.get(source_id, 0)
        self._status_seq[source_id] = seq + 1
        utc_ns = self._clock.utc_ns()
        self._line(status_message(status, self._run, seq=seq, published_utc_ns=utc_ns))
        if status.state == "ended":
            last_seq = self._last_seq.get(source_id)
            self._line(
                eos_message(source_id, self._run, published_utc_ns=utc_ns, last_seq=last_seq, reason=status.reason)
            )

    def tick(self) -> None:
        """Flush the buffer to the system, so that a reader of the file is at most a second behind."""
        if self._file is not None:
            self._flush(self._file)

    def close(self) -> None:
        """Flush and close the file.

        Raises:
            SinkError: the last lines could not be written.
        """
        file, self._file = self._file, None
        if file is None:
            return
        try:
            self._flush(file)
            self._is_complete = True
        finally:
            file.close()

    def outputs(self) -> list[OutputFile]:
        """Return the file with the number of frames written to it; nothing for stdout."""
        if str(self.path) == STDOUT:
            return []
        return [OutputFile(str(self.path), self._frames, self._is_complete)]

    def _line(self, message: Message) -> None:
        if self._file is None:
            raise SinkError(f"{self.path} is not open: call open() before writing")
        self._lines += encode(message) + b"\n"
        if len(self._lines) >= BUFFER_BYTES:
            self._flush(self._file)

    def _flush(self, file: IO[bytes]) -> None:
        try:
            while self._lines:
                del self._lines[: file.write(self._lines)]
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> SinkError:
        if error.errno == errno.EPIPE:
            return SinkError(f"cannot write {self.path}: its reader has exited")
        return SinkError(f"cannot write {self.path}: {error.strerror}: free some space, or write elsewhere")
