"""Notices an attack that no longer progresses, and says what it was doing.

An attack that hangs, or whose victim no longer asks for anything, would otherwise pass as one that found nothing.
"""

from __future__ import annotations

import mmap
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock

STALL_S = 60.0
SHOWN_BYTES = 300
LOOK_S = 0.2
KEPT_BYTES = 1 << 16


class Progress:
    """Counts the tries of one surface, and keeps the last input. Any thread may count.

    Args:
        stall_s: seconds without a try after which the attack counts as stalled.
        clock: time.
    """

    def __init__(self, stall_s: float = STALL_S, clock: Clock = SYSTEM_CLOCK) -> None:
        self.tries = 0
        self.faults: list[str] = []
        self._stall_s, self._clock = stall_s, clock
        self._last: bytes | str = b""
        self._moved_ns = clock.monotonic_ns()
        self._lock = threading.Lock()

    def tried(self, what: bytes | str, count: int = 1) -> None:
        """Count tries; `what` describes the last of them or is its data."""
        with self._lock:
            self.tries += count
            self._last, self._moved_ns = what, self._clock.monotonic_ns()

    def failed(self, what: str) -> None:
        """Note something that must not happen, and that the judgement of the victim would not show."""
        with self._lock:
            self.faults.append(what)

    def begin(self) -> None:
        """Begin to wait for tries now."""
        with self._lock:
            self._moved_ns = self._clock.monotonic_ns()

    @property
    def still_s(self) -> float:
        """Seconds since the last try."""
        return (self._clock.monotonic_ns() - self._moved_ns) / NS_PER_S

    @property
    def is_stalled(self) -> bool:
        """Whether too much time has passed since the last try."""
        return self.still_s > self._stall_s

    def report(self, state: Callable[[], str]) -> str:
        """Return what the attack does now.

        Args:
            state: describes the process under attack; if it raises an error, that is reported instead.
        """
        try:
            victim = state()
        except Exception as error:  # noqa: BLE001 - a report of what is wrong may find anything wrong
            victim = f"{type(error).__name__}: {error}"
        last = self._last[:SHOWN_BYTES]
        return (
            f"stalled: no try for {self.still_s:.0f} s after {self.tries}; last input: {last!r}\n"
            f"state: {victim}\nthreads:\n{stacks()}"
        )


def stacks() -> str:
    """Return the stack of every thread of this process, by the name of the thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            found.append(f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(found)


def watched(attack: Callable[[], None], progress: Progress, state: Callable[[], str]) -> str:
    """Run an attack on its own thread until it ends or stalls; return the report if it stalled, otherwise nothing.

    A stalled attack stays behind on its thread, which does not keep the process from ending.

    Args:
        attack: counts its tries in `progress`.
        progress: of this attack.
        state: describes the process under attack.

    Raises:
        Exception: what the attack raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            attack()
        except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name="attack", daemon=True)
    progress.begin()
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_S)
        if progress.is_stalled:
            return progress.report(state)
    if raised:
        raise raised[0]
    return ""


class LastInput:
    """A file that always holds the last input, also after the process that wrote it was killed.

    Args:
        path: of the file, which is created.
    """

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(KEPT_BYTES)
            self._memory = mmap.mmap(file.fileno(), KEPT_BYTES)

    def keep(self, body: bytes) -> None:
        """Replace the last input; the end of a long one is cut off."""
        body = body[: KEPT_BYTES - 4]
        self._memory[: 4 + len(body)] = len(body).to_bytes(4, "big") + body

    @staticmethod
    def read(path: Path) -> bytes:
        """Return the last input in a file; empty if there was none."""
        content = path.read_bytes() if path.is_file() else b""
        return content[4 : 4 + int.from_bytes(content[:4], "big")]
