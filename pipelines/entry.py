"""Where the command `framewire` starts: a signal that comes while modules are still loading ends it quietly."""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))
    from pipelines.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
