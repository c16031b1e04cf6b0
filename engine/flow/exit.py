"""Ends pipelines still running when the interpreter exits, because a thread inside native code would crash it."""

from __future__ import annotations

import atexit
import logging
import weakref
from typing import Protocol

logger = logging.getLogger(__name__)
EXIT_WAIT_S = 10.0  # enough for one inference, frame or connection to end


class Stoppable(Protocol):
    """A running pipeline."""

    def stop(self, timeout_s: float) -> bool:
        """Stop, and return whether every thread has ended in time."""


def stop_at_exit(pipeline: Stoppable) -> None:
    """Stop a pipeline when the interpreter exits, and wait for its native calls.

    Threads of stages are daemons. The interpreter shuts down while they run; a thread inside
    OpenVINO, FFmpeg or OpenCV then ends the process with "terminate called without an active exception" or a
    segmentation fault.
    """

    def stop(reference: weakref.ref[Stoppable] = weakref.ref(pipeline)) -> None:  # noqa: B008 - one per pipeline
        alive = reference()
        if alive is not None and not alive.stop(EXIT_WAIT_S):
            logger.warning("a native call did not end within %.0f s", EXIT_WAIT_S)

    atexit.register(stop)
    weakref.finalize(pipeline, atexit.unregister, stop).atexit = False
