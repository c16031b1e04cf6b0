"""A child process that outlives its parent: a card file in a folder says how to find it again.

Its start time distinguishes it from a later process with the same id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.clock import NS_PER_S, Clock, pause
from engine.errors import ConfigError

COMMAND = (sys.executable, "-c", "from pipelines.entry import main; main()")
FIRST_PAUSE_S, LAST_PAUSE_S, STEADY_S = 0.2, 30.0, 60.0
MAX_CARD_BYTES = 65536
MAX_LOG_BYTES = 16 << 20


class KeptProcess:
    """Keeps `framewire ARGUMENTS` running, adopting a process that already runs.

    Args:
        name: of its card and log.
        folder: of cards and logs.
        clock: for the pauses between starts.
    """

    def __init__(self, name: str, folder: Path, clock: Clock) -> None:
        self.name, self._clock = name, clock
        self._card, self.log = folder / f"{name}.json", folder / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._failures, self._due_ns, self._started_ns = 0, 0, 0
        self.pid, self._born = self._found()

    def _found(self) -> tuple[int, str]:
        try:
            if self._card.stat().st_size > MAX_CARD_BYTES:
                return 0, ""
            card = json.loads(self._card.read_text(encoding="utf-8"))
            pid, since = int(card["pid"]), str(card["born"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, ""
        return (pid, since) if pid > 1 and born(pid) == since else (0, "")

    @property
    def process(self) -> str:
        """An identifier that no other process has."""
        return f"{self.pid}.{self._born}"

    def is_running(self) -> bool:
        """Return whether the process runs; False: it has certainly ended."""
        if self._child is not None and self._child.poll() is not None:
            return False
        return self.pid > 0 and born(self.pid) == self._born

    def is_due(self) -> bool:
        """Return whether the process may be started; the wait grows with the number of failures."""
        return self._clock.monotonic_ns() >= self._due_ns

    def note_end(self) -> None:
        """Record that the process has ended, so that the next start waits if it did not run for long."""
        now_ns = self._clock.monotonic_ns()
        self._failures = 0 if now_ns - self._started_ns > STEADY_S * NS_PER_S else self._failures + 1
        pause_s = min(FIRST_PAUSE_S * 2.0 ** max(self._failures - 1, 0), LAST_PAUSE_S)
        self._due_ns, self.pid, self._child = now_ns + int(pause_s * NS_PER_S), 0, None

    def start(self, arguments: Sequence[str], facts: dict[str, Any]) -> None:
        """Start the process in its own session, and write its card file.

        Raises:
            ConfigError: it cannot be started.
        """
        self._shorten_log()
        try:
            with self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self.pid, self._born = self._child.pid, born(self._child.pid)
            text = json.dumps({"pid": self.pid, "born": self._born, **facts})
            part = self._card.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            part.replace(self._card)
        except OSError as error:
            raise ConfigError(f"{self.name} cannot be started: {error}") from error
        self._started_ns = self._clock.monotonic_ns()

    def _shorten_log(self) -> None:
        with suppress(OSError):
            if self.log.stat().st_size > MAX_LOG_BYTES:
                self.log.replace(self.log.with_suffix(".old.log"))

    def facts(self) -> dict[str, Any]:
        """Return the arguments given to `start`."""
        try:
            return dict(json.loads(self._card.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def last_words(self) -> str:
        """Return the last line of the process's log."""
        with suppress(OSError):
            data = self.log.read_bytes()[-2000:].decode(errors="replace").strip()
            return data.splitlines()[-1] if data else ""
        return ""

    def signal(self, number: int) -> None:
        """Send the process a signal if it is running."""
        if self.is_running():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, wait_s: float) -> None:
        """End the process: gracefully first, then by force."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        until_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        while self.is_running() and self._clock.monotonic_ns() < until_ns:
            pause(0.05)
        self.signal(signal.SIGKILL)
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(wait_s)
        self._card.unlink(missing_ok=True)


def this_machine() -> str:
    """Return a text that is the same for all processes of one boot and container, whose process ids are comparable."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def born(pid: int) -> str:
    """Return when the kernel started a process, in ticks since boot; empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    words = text.rpartition(")")[2].split()
    return "" if words[0] in "ZX" else words[19]
