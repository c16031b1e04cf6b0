"""The web process: gets its settings from the engine, and ends with it. Imports no FFmpeg, OpenCV or model."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from engine.process import Messages, die_with
from engine.redaction import printable, redact
from pipelines.logs import JsonFormatter, RateLimit, SafeFormatter, json_line, writes_json
from pipelines.metrics.answering import serve_loop
from pipelines.web.access import ServerLimits, serve
from pipelines.web.page.app import exposure_of, guarded_app
from pipelines.web.page.settings import Settings

NICE = 5  # the engine has priority: a late page affects no one else
LIMITS = ServerLimits(connections=256, per_client=128, stop_s=1.0, message_bytes=16 * 1024)


def main() -> None:
    """Serve until the engine hangs up. Arguments: the descriptors of connection, lifeline and listening socket."""
    connection_fd, lifeline_fd, listener_fd = (int(argument) for argument in sys.argv[1:4])
    die_with(lifeline_fd)
    os.nice(NICE)
    set_up_logging()
    with Messages(connection_fd) as connection, suppress(EOFError, OSError):
        settings = msgspec.json.decode(connection.recv_bytes(), type=Settings)
        stopping = partial(connection.poll, 0)
        asyncio.run(serve_page(settings, socket.socket(fileno=listener_fd), stopping))


def set_up_logging() -> None:
    """Write warnings to stderr, which is shared with the engine, without secrets and in the engine's form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if writes_json() else SafeFormatter("web: %(message)s"))
    handler.addFilter(RateLimit())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def say(text: str, level: str = "info") -> None:
    """Write a line of progress, or of another level, to stderr; do nothing if its reader has gone."""
    line = json_line(level, text) if writes_json() else printable(redact(text))
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


async def serve_page(settings: Settings, listener: socket.socket, stopping: Callable[[], bool]) -> None:
    """Serve the page on a listening socket until it is cancelled, or `stopping` returns true."""
    tls = exposure_of(settings).tls
    app, figures = guarded_app(settings)
    with serve_loop(settings.metrics, figures.add_to, say=say, facts=figures.facts) as beat:
        await serve(app, listener, tls=tls, limits=LIMITS, websockets=True, stopping=lambda: beat() or stopping())
