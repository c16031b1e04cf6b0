"""Asks a running process for its health and metrics."""

from __future__ import annotations

import http.client
import time
from contextlib import closing

from engine.net.timed import TimedConnection
from pipelines.metrics.server import host_and_port

MAX_BODY_BYTES = 64 * 1024


def fetch(address: str, path: str, *, timeout_s: float, max_bytes: int = MAX_BODY_BYTES) -> tuple[int, str]:
    """Return the status and the body of a page of the process at `HOST:PORT`.

    Raises:
        ConfigError: the address is malformed.
        OSError, http.client.HTTPException: it does not answer.
    """
    host, port = host_and_port(address, "the address")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    with closing(TimedConnection(host, port, time.monotonic() + timeout_s)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read(max_bytes).decode("utf-8", "replace")


def ask_health(address: str, timeout_s: float, *, ready: bool) -> tuple[bool, str]:
    """Return whether the process at `HOST:PORT` is alive, or ready, and its answer.

    Raises:
        ConfigError: the address is malformed.
    """
    try:
        status, text = fetch(address, "/readyz" if ready else "/livez", timeout_s=timeout_s)
    except (OSError, http.client.HTTPException) as error:
        return False, f"{address} does not answer ({error}): start the run with --metrics {address}"
    return status == 200, text.strip()
