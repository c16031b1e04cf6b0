"""Writes to stdout and stderr without waiting for the reader, and removes secrets.

A terminal after Ctrl-S, a hung log collector or `2>&1 | less` stops reading, and a write to it then blocks until
reading resumes. So text goes into a bounded queue that a separate thread empties. Text that does not fit is dropped and
counted; the count is written when the reader resumes.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from engine.clock import pause
from engine.errors import SinkError
from engine.redaction import redact

MAX_WAITING_CHARS = 256 * 1024
DRAIN_S = 0.5
STUCK_S = 1.0
PIECE_BYTES = 4096  # a pipe writes up to this many atomically
POLL_S = 0.01


class SteadyStream(io.TextIOBase):
    """A text stream whose writes return at once; secrets are removed on the way.

    Args:
        stream: the stream that it replaces; text is written to its descriptor.

    Attributes:
        dropped: characters that were not written because the reader had stopped.
        failure: why the last write failed, if it did: no space, or the reader is gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self.dropped = 0
        self.failure: OSError | None = None
        self._stream = stream
        self._descriptor = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        self._waiting: deque[str] = deque()
        self._chars = 0
        self._changed = threading.Condition()
        self._is_writing = False
        self._progress_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has it as a plain attribute
        """Encoding of the stream that it replaces."""
        return self._encoding

    def writable(self) -> bool:
        """Return True: the stream is writable."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream writes to a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Queue text; drop it if the queue is full."""
        shown = redact(text)
        with self._changed:
            if self._chars + len(shown) > MAX_WAITING_CHARS:
                self.dropped += len(shown)
            else:
                self._waiting.append(shown)
                self._chars += len(shown)
                self._changed.notify()
        return len(text)

    def flush(self) -> None:
        """Return at once: the thread writes as fast as the reader reads. See `drain`."""

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Wait for all text to be written, up to the limit; return whether it was. Call before the process ends."""
        end = time.monotonic() + (0.0 if self._is_stuck() else timeout_s)
        while time.monotonic() < end:
            with self._changed:
                if not self._waiting and not self._is_writing:
                    return True
                self._changed.wait(POLL_S)
        return False

    def _is_stuck(self) -> bool:
        """Return whether the reader stopped some time ago, so that waiting is pointless."""
        return self._is_writing and time.monotonic() - self._progress_s > STUCK_S

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                text = self._waiting.popleft()
                self._chars -= len(text)
                self._is_writing = True
                self._progress_s = time.monotonic()
                missed, self.dropped = (self.dropped, 0) if not self._waiting else (0, self.dropped)
            if missed:
                text += f"... {missed} characters were not shown, because the output was not being read\n"
            self._write(text.encode(self._encoding, "backslashreplace"))

    def _write(self, data: bytes) -> None:
        """Write everything, however long it takes; give up if the reader is gone."""
        while data:
            try:
                data = data[os.write(self._descriptor, data[:PIECE_BYTES]) :]
                self._progress_s = time.monotonic()
            except BlockingIOError:
                pause(POLL_S)  # another program made the descriptor non-blocking
            except OSError as error:
                self.failure = error
                return


@contextmanager
def steady_stderr() -> Iterator[None]:
    """Make writes to stderr non-blocking; at exit, wait up to half a second for pending text."""
    before = sys.stderr
    try:
        before.fileno()
    except (AttributeError, OSError, ValueError):
        yield  # closed, or not a file
        return
    steady = SteadyStream(before)
    sys.stderr = steady
    try:
        yield
    finally:
        steady.drain()
        sys.stderr = before


@contextmanager
def steady_stdout(timeout_s: float) -> Iterator[None]:
    """Make writes to stdout non-blocking; at exit, wait up to `timeout_s`, then warn if text is left.

    Raises:
        SinkError: stdout could not be written to.
    """
    before = sys.stdout
    try:
        before.fileno()
        before.flush()
    except (AttributeError, OSError, ValueError):
        yield
        return
    steady = SteadyStream(before)
    sys.stdout = steady
    try:
        yield
    finally:
        if not steady.drain(timeout_s):
            sys.stderr.write("warning: stdout is not being read: its output is incomplete\n")
        sys.stdout = before
    if steady.failure is not None and steady.failure.errno != errno.EPIPE:
        raise SinkError(f"cannot write to stdout: {steady.failure.strerror}: free some space, or redirect it")


def drain(timeout_s: float = DRAIN_S) -> bool:
    """Wait briefly for pending text on stderr and stdout before the process ends with `os._exit`."""
    streams = [stream for stream in (sys.stderr, sys.stdout) if isinstance(stream, SteadyStream)]
    return all(stream.drain(timeout_s) for stream in streams)
