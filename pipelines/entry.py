"""Where the command `framewire` starts: a signal that comes while modules are still loading ends it quietly.

So nothing is imported before the signals are caught that is not in the interpreter already; `signal` is not.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, built in
import os

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        if number == _signal.SIGHUP and _signal.getsignal(number) == _signal.SIG_IGN:
            continue  # nohup
        _signal.signal(number, lambda *_: os._exit(INTERRUPTED))
    from pipelines.cli import main as run

    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    run()
