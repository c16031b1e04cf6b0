"""Makes a camera's recording keep what its ring buffer holds, and continue for a while."""

from __future__ import annotations

from collections.abc import Callable

from engine.events.actions.base import Notice


class RecordAction:
    """Records the source of an event (`record.mode: events`).

    Args:
        hold: takes a source and the seconds to record; returns at once.
        for_s: how long to record from now on.
    """

    def __init__(self, hold: Callable[[str, float], None], for_s: float) -> None:
        self._hold, self._for_s = hold, for_s

    def send(self, notice: Notice) -> None:
        """Hold the recording."""
        self._hold(str(notice.body["source_id"]), self._for_s)

    def close(self) -> None:
        """Do nothing: the recording ends on its own."""
