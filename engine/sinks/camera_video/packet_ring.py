"""The newest packets of a stream in memory, from a keyframe on, so that a recording can begin before its trigger.

It imports no numpy.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.clock import NS_PER_S
from engine.sinks.camera_video.segments import Captured

MAX_BYTES = 64_000_000


def detached(stream: Any, container: str) -> Any:
    """Return a stream with the same codec parameters that outlives its connection, as a template for files.

    Args:
        stream: of an open `av` container.
        container: FFmpeg's name of the files' format.

    Raises:
        ValueError: such files cannot hold this codec.
    """
    import av

    return av.open(io.BytesIO(), "w", format=container).add_stream_from_template(stream)


class Held(NamedTuple):
    """One packet: `template` is the stream of its connection, `read_ns` the monotonic time of its arrival."""

    packet: Any
    template: Any
    captured: Captured
    read_ns: int


@dataclass(slots=True)
class _Group:
    """A keyframe and the packets that depend on it."""

    packets: list[Held] = field(default_factory=list)
    bytes: int = 0


class PacketRing:
    """Keeps whole groups of images that cover at least the last `before_s`, within `max_bytes`.

    Packets before the first keyframe are dropped. A group that exceeds the limit on its own is dropped as well, with
    everything up to the next keyframe.

    Args:
        before_s: seconds to keep, as long as they fit.
        max_bytes: limit of all packets together.

    Attributes:
        bytes: size of the packets it holds.
        overflows: groups dropped because they did not fit.
    """

    def __init__(self, before_s: float, max_bytes: int = MAX_BYTES) -> None:
        self._before_ns = int(before_s * NS_PER_S)
        self._max_bytes = max_bytes
        self._groups: deque[_Group] = deque()
        self.bytes = self.overflows = 0

    def add(self, held: Held) -> None:
        """Add a packet, and drop what is no longer needed."""
        if held.packet.is_keyframe:
            self._groups.append(_Group())
        if not self._groups or not (self._groups[-1].packets or held.packet.is_keyframe):
            return
        group = self._groups[-1]
        group.packets.append(held)
        group.bytes += held.packet.size
        self.bytes += held.packet.size
        self._drop_old(held.read_ns)
        self._drop_excess()

    def seconds(self, now_ns: int) -> float:
        """Return how far back the ring reaches from a monotonic time."""
        first = next((group.packets[0] for group in self._groups if group.packets), None)
        return 0.0 if first is None else (now_ns - first.read_ns) / NS_PER_S

    def drain(self) -> Iterator[Held]:
        """Yield the packets in order, removing them."""
        while self._groups:
            group = self._groups.popleft()
            self.bytes -= group.bytes
            yield from group.packets

    def _drop_old(self, now_ns: int) -> None:
        """Drop groups as long as the next one reaches back far enough."""
        while len(self._groups) > 1 and now_ns - self._groups[1].packets[0].read_ns >= self._before_ns:
            self.bytes -= self._groups.popleft().bytes

    def _drop_excess(self) -> None:
        while self.bytes > self._max_bytes:
            self.overflows += 1
            if len(self._groups) > 1:
                self.bytes -= self._groups.popleft().bytes
            else:
                self.bytes -= self._groups[0].bytes
                self._groups[0] = _Group()
