"""The publisher's analytics messages: events as they happen, totals when they change, at a limited rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_MS, NS_PER_S
from engine.data import Packet
from engine.wire.findings import EpisodeTimes, Moment

if TYPE_CHECKING:
    from engine.analytics.view import View

LEAST_NS = 500 * NS_PER_MS
MOST_NS = 10 * NS_PER_S


class SceneTraffic:
    """When the totals of one source are due, and the time of its last frame."""

    def __init__(self) -> None:
        self._sent_ns: int | None = None
        self._sent: Any = None
        self.moment: Moment | None = None
        self.times = EpisodeTimes()
        self.body = b""

    def is_due(self, packet: Packet, now_ns: int) -> bool:
        """Return whether to send the totals with this packet, and record that they are sent."""
        view: View = packet.analytics
        self.moment = Moment.of(packet)
        waited_ns = MOST_NS if self._sent_ns is None else now_ns - self._sent_ns
        if waited_ns < LEAST_NS:
            return False
        state = view.occupancy, view.visits, view.totals, view.open
        if state == self._sent and waited_ns < MOST_NS:
            return False
        self._sent_ns, self._sent = now_ns, state
        return True
