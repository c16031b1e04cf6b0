"""The fence at the reader: only messages of a source's newest owner pass.

Engines stop on their own when their lease on a source expires. A collector of several engines still needs this fence,
because messages may wait in system buffers, and because a lease is only as good as the engine's clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import msgspec

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import WireError
from engine.wire.codec import kind_of_schema, topic_for
from engine.wire.messages import TOPIC_KINDS
from engine.wire.version import TOPIC_ROOT

MAX_OWNED = 20_000
MAX_NAME_BYTES = 256
MAX_TOPIC_BYTES = 1024
IDLE_NS = 600 * NS_PER_S
Verdict = Literal["passed", "fenced", "malformed", "overfull"]
_KINDS = frozenset(TOPIC_KINDS)


class _Owned(msgspec.Struct, gc=False):
    schema: str
    engine_id: str
    source_id: str | None = None
    owner_epoch: int = 0


_JSON = msgspec.json.Decoder(_Owned)
_MSGPACK = msgspec.msgpack.Decoder(_Owned)


@dataclass(slots=True)
class _Owner:
    epoch: int
    engine_id: str
    seen_ns: int


class EpochFence:
    """Passes only messages with the highest `owner_epoch` seen for each source, from the engine that sent it first.

    A message without an epoch counts as 0, so it passes only for a source that no fleet has assigned. The table is
    bounded: a source that has been silent for ten minutes makes room for another; without room, new sources are
        rejected rather than known ones forgotten.

    Args:
        limit: maximum number of sources remembered.
        clock: for tests.

    Attributes:
        refused: messages that did not pass, by verdict.
    """

    def __init__(self, limit: int = MAX_OWNED, clock: Clock = SYSTEM_CLOCK) -> None:
        self.refused: Counter[Verdict] = Counter()
        self._limit, self._clock = limit, clock
        self._owners: dict[str, _Owner] = {}
        self._swept_ns: int | None = None

    def __len__(self) -> int:
        return len(self._owners)

    def epoch_of(self, source_id: str) -> int:
        """Return the highest epoch seen for a source; 0 if it has none."""
        owner = self._owners.get(source_id)
        return 0 if owner is None else owner.epoch

    def look_at(self, topic: bytes, body: bytes) -> Verdict:
        """Return whether a message may pass, reading only as much of it as necessary."""
        verdict = self._look_at(topic, body)
        if verdict != "passed":
            self.refused[verdict] += 1
        return verdict

    def admits(self, source_id: str, engine_id: str, epoch: int) -> bool:
        """Return whether a message that has been read may pass; 0 stands for no epoch."""
        verdict = self._judge(source_id, engine_id, epoch)
        if verdict != "passed":
            self.refused[verdict] += 1
        return verdict == "passed"

    def _look_at(self, topic: bytes, body: bytes) -> Verdict:
        parts = topic.split(b"/")
        if len(topic) > MAX_TOPIC_BYTES or len(parts) != 4 or parts[0] != TOPIC_ROOT.encode() or parts[3]:
            return "malformed"
        try:
            found = (_JSON if body[:1] == b"{" else _MSGPACK).decode(body)
            kind = kind_of_schema(found.schema)
            name = found.engine_id if found.source_id is None else found.source_id
            if kind not in _KINDS or topic_for(kind, name).encode() != topic:
                return "malformed"
        except (
            ValueError,
            WireError,
            RecursionError,
            MemoryError,
        ):  # msgspec and Unicode errors are ValueErrors
            return "malformed"
        if found.source_id is None:
            return "passed"  # about an engine
        if len(found.engine_id) > MAX_NAME_BYTES or not 0 <= found.owner_epoch < 2**53:
            return "malformed"
        return self._judge(found.source_id, found.engine_id, found.owner_epoch)

    def _judge(self, source_id: str, engine_id: str, epoch: int) -> Verdict:
        owner = self._owners.get(source_id)
        if owner is None:
            return "passed" if not epoch else self._take_in(source_id, engine_id, epoch)
        if epoch > owner.epoch:
            owner.epoch, owner.engine_id = epoch, engine_id
        elif epoch < owner.epoch or engine_id != owner.engine_id:
            return "fenced"
        owner.seen_ns = self._clock.monotonic_ns()
        return "passed"

    def _take_in(self, source_id: str, engine_id: str, epoch: int) -> Verdict:
        now_ns = self._clock.monotonic_ns()
        if len(self._owners) >= self._limit:
            self._sweep(now_ns)
            if len(self._owners) >= self._limit:
                return "overfull"
        self._owners[source_id] = _Owner(epoch, engine_id, now_ns)
        return "passed"

    def _sweep(self, now_ns: int) -> None:
        """Forget the sources that have been silent for a long time.

        At most once a second, because it checks all of them.
        """
        if self._swept_ns is None or now_ns - self._swept_ns >= NS_PER_S:
            self._swept_ns = now_ns
            self._owners = {name: owner for name, owner in self._owners.items() if now_ns - owner.seen_ns < IDLE_NS}
