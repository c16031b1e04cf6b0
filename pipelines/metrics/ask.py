"""Asks the health of a running process."""

from __future__ import annotations

import http.client

from pipelines.metrics.server import host_and_port

MAX_BODY_BYTES = 64 * 1024


def ask_health(address: str, timeout_s: float, *, ready: bool) -> tuple[bool, str]:
    """Return whether the process at `HOST:PORT` is alive, or ready, and what it said.

    Raises:
        ConfigError: the address has another form.
    """
    host, port = host_and_port(address, "the address")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz" if ready else "/livez")
        reply = connection.getresponse()
        return reply.status == 200, reply.read(MAX_BODY_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{address} does not answer ({error}): start the run with --metrics {address}"
    finally:
        connection.close()
