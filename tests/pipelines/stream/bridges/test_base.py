"""The forwarder keeps the important messages while the recipient is away, in order, within limits."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from engine.clock import FakeClock
from engine.subscriber import Subscriber
from engine.wire import Message
from pipelines.stream.bridges.base import BACKOFF_MAX_S, Forwarder, RejectedError, TargetError, run_bridge
from tests.publishing import stream
from tests.wire.samples import SAMPLES


class Other:
    """A target that is unavailable, or refuses, on command."""

    def __init__(self) -> None:
        self.away = False
        self.refuses: set[int] = set()
        self.taken: list[Message] = []
        self.opened = 0
        self.attempts = 0

    def open(self) -> None:
        self.attempts += 1
        if self.away:
            raise TargetError("away")
        self.opened += 1

    def send(self, message: Message) -> None:
        if self.away:
            raise TargetError("away")
        if message.seq in self.refuses:
            raise RejectedError("no")
        self.taken.append(message)

    def turn(self) -> None:
        if self.away:
            raise TargetError("away")

    def close(self) -> None: ...


def numbered(kind: str, seq: int) -> Message:
    return msgspec.structs.replace(SAMPLES[kind], seq=seq)


def test_messages_pass_in_order_whatever_their_kind() -> None:
    other = Other()
    forwarder = Forwarder(other)
    sent = [numbered(kind, n) for n in range(5) for kind in ("frame", "event", "status", "eos")]
    for message in sent:
        forwarder.offer(message)
    forwarder.pump()
    assert other.taken == sent
    assert forwarder.summary.sent == {"frame": 5, "event": 5, "status": 5, "eos": 5}


def test_while_away_events_are_kept_and_old_frames_are_dropped() -> None:
    other, clock = Other(), FakeClock()
    forwarder = Forwarder(other, kept_frames=3, kept_messages=50, clock=clock)
    forwarder.pump()
    other.away = True
    for n in range(20):
        forwarder.offer(numbered("frame", n))
        forwarder.offer(numbered("event", n))
        forwarder.pump()
    assert forwarder.pending == 23
    other.away = False
    clock.advance(BACKOFF_MAX_S)
    forwarder.pump()
    assert [m.seq for m in other.taken if m.schema == SAMPLES["event"].schema] == list(range(20))
    assert [m.seq for m in other.taken if m.schema == SAMPLES["frame"].schema] == [17, 18, 19]
    assert forwarder.summary.dropped == {"frame": 17}
    assert forwarder.summary.reconnects == 1


def test_pauses_between_attempts_grow_to_a_limit() -> None:
    other, clock = Other(), FakeClock()
    other.away = True
    forwarder = Forwarder(other, clock=clock)
    attempts: list[float] = []
    while len(attempts) < 10:
        before = other.attempts
        forwarder.pump()
        attempts += [clock.monotonic_ns() / 1e9] * (other.attempts - before)
        clock.advance(0.1)
    pauses = [round(later - earlier, 1) for earlier, later in itertools.pairwise(attempts)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == pytest.approx(BACKOFF_MAX_S, abs=0.2)
    assert other.opened == 0


def test_a_refused_message_does_not_hold_up_the_next() -> None:
    other = Other()
    other.refuses = {1}
    forwarder = Forwarder(other)
    for n in range(3):
        forwarder.offer(numbered("event", n))
    forwarder.pump()
    assert [m.seq for m in other.taken] == [0, 2]
    assert forwarder.summary.rejected == {"event": 1}


def test_a_bridge_runs_from_a_live_stream_until_its_count() -> None:
    other = Other()
    with stream() as address, Subscriber(address, "v1/frame/") as subscriber:
        summary = run_bridge(subscriber, other, count=20)
    assert summary.sent["frame"] == 20
    assert [m.seq - other.taken[0].seq for m in other.taken] == list(range(20))


def test_a_bridge_ends_when_asked(free_port: int) -> None:
    with Subscriber(f"tcp://127.0.0.1:{free_port}") as subscriber:
        assert not run_bridge(subscriber, Other(), stopping=lambda: True).sent
