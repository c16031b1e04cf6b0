"""Writing to stdout and stderr without waiting for the reader, and without what must not be shown.

A terminal after Ctrl-S, a log collector that hangs or `2>&1 | less` stop reading, and a write to them then waits for
as long as that lasts. So text goes into a bounded queue that a thread of its own empties. What does not fit is dropped
and counted; the count is written when the reader is back.
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

from engine.errors import SinkError
from engine.redaction import redact

MAX_WAITING_CHARS = 256 * 1024
DRAIN_S = 0.5
STUCK_S = 1.0
PIECE_BYTES = 4096  # a pipe takes so many at once or none
POLL_S = 0.01


class SteadyStream(io.TextIOBase):
    """A text stream whose writes return at once; secrets are removed on the way.

    Args:
        stream: the stream that it stands for; its descriptor is written to.

    Attributes:
        dropped: characters that were not written, because nobody read.
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
        """Of the stream that it stands for."""
        return self._encoding

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def isatty(self) -> bool:
        """Return whether a terminal is behind it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Queue a text; drop it if nobody reads."""
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
        """Wait until all is written, but no longer than that; return whether it is. Call before the process ends."""
        end = time.monotonic() + (0.0 if self._is_stuck() else timeout_s)
        while time.monotonic() < end:
            with self._changed:
                if not self._waiting and not self._is_writing:
                    return True
                self._changed.wait(POLL_S)
        return False

    def _is_stuck(self) -> bool:
        """Return whether the reader stopped some time ago: there is nothing to wait for then."""
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
                text += f"... {missed} characters were not shown, as nobody read them\n"
            self._write(text.encode(self._encoding, "backslashreplace"))

    def _write(self, data: bytes) -> None:
        """Write all, however long it takes; give up where nobody will ever read."""
        while data:
            try:
                data = data[os.write(self._descriptor, data[:PIECE_BYTES]) :]
                self._progress_s = time.monotonic()
            except BlockingIOError:
                time.sleep(POLL_S)  # another program made the descriptor non-blocking
            except OSError as error:
                self.failure = error
                return


@contextmanager
def steady_stderr() -> Iterator[None]:
    """Let nothing that is written to stderr wait for its reader; what is left at the end has half a second."""
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
    """Let what is written to stdout wait for its reader as long as this, and no longer."""
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
            sys.stderr.write("warning: nobody reads stdout: what was to be printed there is not complete\n")
        sys.stdout = before
    if steady.failure is not None and steady.failure.errno != errno.EPIPE:
        raise SinkError(f"cannot write to stdout: {steady.failure.strerror}: free some space, or lead it elsewhere")


def drain(timeout_s: float = DRAIN_S) -> bool:
    """Give what was written to stderr and stdout time to be read, before the process is left by `os._exit`."""
    streams = [stream for stream in (sys.stderr, sys.stdout) if isinstance(stream, SteadyStream)]
    return all(stream.drain(timeout_s) for stream in streams)
