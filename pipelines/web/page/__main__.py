"""Serves the page of an engine that was started without it: `python -m pipelines.web.page SETTINGS` (JSON)."""

from __future__ import annotations

import asyncio
import signal
import sys

import msgspec

from engine.errors import EngineError
from pipelines.web.access import Listen, bind
from pipelines.web.page.process import say, serve_page, set_up_logging
from pipelines.web.page.settings import Settings


def main() -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code."""
    set_up_logging()
    settings = msgspec.json.decode(sys.argv[1].encode(), type=Settings)
    over: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: over.append(number))
    try:
        listen = Listen.parse(settings.address)
        listener = bind(listen)
        bound = Listen(listen.host, listener.getsockname()[1])
        say(f"page at {bound.url('https' if settings.certificate else 'http')}/")
        asyncio.run(serve_page(settings, listener, lambda: bool(over)))
    except EngineError as error:
        say(str(error), "error")
        return 1
    return 130 if over and over[0] == signal.SIGINT else 0


if __name__ == "__main__":
    sys.exit(main())
