"""Entry point of the command `framewire`: a signal that arrives while modules are still loading ends it quietly.

Until the signals are caught, nothing is imported that the interpreter has not already loaded; `signal` is not loaded
yet.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, built in
import os

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    fill_standard_streams()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # its messages about damaged images do not belong in our log
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it reads the metadata of all packages to find them
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        if number == _signal.SIGHUP and _signal.getsignal(number) == _signal.SIG_IGN:
            continue  # nohup
        _signal.signal(number, lambda got, _: os._exit(INTERRUPTED if got == _signal.SIGINT else _after_term()))
    from pipelines.cli import main as run

    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    run()


def _after_term() -> int:
    text = os.environ.get("FRAMEWIRE_SIGTERM_EXIT", "")
    return int(text) if text.isdigit() and int(text) < 256 else 0


def fill_standard_streams() -> None:
    """Open `/dev/null` in place of a standard stream that is closed (daemons, `>&-`).

    Otherwise the next file or socket would take its number, and anything printed would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
