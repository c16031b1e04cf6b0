"""Tells systemd that the engine is ready, alive, or stopping (`sd_notify`), if systemd started it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.redaction import printable, redact

if TYPE_CHECKING:
    from pipelines.metrics.engine_health import EngineHealth

PING_S = 1.0
MAX_STATUS_CHARS = 200


def notify(message: str) -> bool:
    """Send a message to the service manager; return whether there is one."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    name = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto(message.encode("utf-8", "backslashreplace"), socket.MSG_DONTWAIT, name)
        return True
    return False


class Watchdog:
    """Reports the health of a run to systemd, about once a second.

    It reports `READY=1` once every model is loaded, and resets the watchdog only while the engine is alive: systemd
    restarts an engine whose main loop or publishing thread hangs.

    Args:
        health: of the run.
        clock: for tests.
    """

    def __init__(self, health: EngineHealth, clock: Clock = SYSTEM_CLOCK) -> None:
        self._health, self._clock = health, clock
        self._is_on = "NOTIFY_SOCKET" in os.environ
        self._is_ready = False
        self._due_ns = 0

    def tick(self) -> None:
        """Send what is due; call this on the main loop."""
        now_ns = self._clock.monotonic_ns()
        if not self._is_on or now_ns < self._due_ns:
            return
        self._due_ns = now_ns + int(PING_S * NS_PER_S)
        reasons, live = self._health.against_ready(), not self._health.against_live()
        status = printable(redact(", ".join(reasons) or "running"), MAX_STATUS_CHARS)
        message = f"STATUS={status}\n" + ("WATCHDOG=1\n" if live else "")
        if not self._is_ready and self._health.are_models_loaded:
            self._is_ready = True
            message += "READY=1\n"
        notify(message)

    def stopping(self) -> None:
        """Report that the run is ending."""
        if self._is_on:
            notify("STOPPING=1\n")
