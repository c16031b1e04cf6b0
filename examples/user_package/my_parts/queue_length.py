"""An analyser: the number of objects, and how long there have been too many."""

from __future__ import annotations

from collections.abc import Sequence

from engine import AnalyserBase, Packet


class QueueLength(AnalyserBase):
    """Adds `{"length": n, "too_long_s": seconds}` to each packet.

    Args:
        limit: number of objects from which the queue is too long.
    """

    name = "queue"

    def __init__(self, limit: int = 5) -> None:
        self._limit = limit
        self._since_ns: dict[str, int] = {}

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Return every packet with the length of the queue added."""
        return [packet.with_analysis(self.name, self._length(packet)) for packet in packets]

    def reset(self, source_id: str, reason: str) -> None:
        """Forget how long the queue of a source has been too long."""
        self._since_ns.pop(source_id, None)

    def _length(self, packet: Packet) -> dict[str, float]:
        source_id, now_ns, length = packet.frame.source_id, packet.frame.captured_ns, len(packet.tracks)
        if length < self._limit:
            self._since_ns.pop(source_id, None)
            return {"length": length, "too_long_s": 0.0}
        since_ns = self._since_ns.setdefault(source_id, now_ns)
        return {"length": length, "too_long_s": (now_ns - since_ns) / 1e9}
