"""Leases: two engines never publish one source at the same time, whatever is delayed, cut off or frozen."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from engine.clock import NS_PER_S, FakeClock
from engine.errors import ConfigError
from engine.leases import MAX_EPOCH, MAX_REMEMBERED, LeaseError, Leases
from engine.wire.fence import EpochFence

S = NS_PER_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100 * S)


@pytest.fixture
def leases(clock: FakeClock) -> Leases:
    return Leases(clock.monotonic_ns)


def test_a_source_without_a_lease_is_always_published(leases: Leases) -> None:
    assert leases.may_publish("gate")
    assert leases.epoch_of("gate") is None
    assert leases.left_s("gate") == 0


def test_a_lease_runs_out_by_itself_and_is_not_revived(leases: Leases, clock: FakeClock) -> None:
    leases.grant("gate", 3, as_of_ns=100 * S, lease_s=2)
    clock.advance(1.5)
    assert leases.may_publish("gate")
    assert leases.left_s("gate") == 0.5
    clock.advance(0.5)
    assert not leases.may_publish("gate")
    assert leases.expired() == ["gate"]
    assert leases.renew("gate", 3, as_of_ns=clock.monotonic_ns(), lease_s=2) == "expired"
    with pytest.raises(LeaseError, match="last had epoch 3: 3 is not higher"):
        leases.grant("gate", 3, as_of_ns=clock.monotonic_ns(), lease_s=2)
    leases.grant("gate", 4, as_of_ns=clock.monotonic_ns(), lease_s=2)
    assert leases.may_publish("gate")


def test_a_delayed_renewal_counts_from_the_reply_that_it_follows(leases: Leases, clock: FakeClock) -> None:
    leases.grant("gate", 1, as_of_ns=100 * S, lease_s=10)
    clock.advance(9)
    assert leases.renew("gate", 1, as_of_ns=103 * S, lease_s=10) is None
    assert leases.left_s("gate") == 4
    assert leases.renew("gate", 1, as_of_ns=101 * S, lease_s=10) is None  # an older one shortens nothing
    assert leases.left_s("gate") == 4
    assert leases.renew("gate", 1, as_of_ns=90 * S, lease_s=10) == "late"
    assert leases.renew("gate", 1, as_of_ns=110 * S, lease_s=10) == "future"
    assert leases.renew("gate", 2, as_of_ns=109 * S, lease_s=10) == "epoch"
    assert leases.renew("yard", 1, as_of_ns=109 * S, lease_s=10) == "unknown"
    with pytest.raises(LeaseError, match=r"9\.000 s old") as late:
        leases.grant("yard", 1, as_of_ns=100 * S, lease_s=9)
    assert late.value.why == "late"


def test_an_ended_lease_needs_a_higher_epoch(leases: Leases) -> None:
    leases.grant("gate", 5, as_of_ns=100 * S, lease_s=2)
    leases.end("gate", 8)
    assert not leases.may_publish("gate")
    assert leases.held() == leases.expired() == []
    for stale in (5, 8):
        with pytest.raises(LeaseError, match="epoch 8"):
            leases.grant("gate", stale, as_of_ns=100 * S, lease_s=2)
    leases.grant("gate", 9, as_of_ns=100 * S, lease_s=2)
    assert leases.epoch_of("gate") == 9


def test_the_epoch_of_a_held_lease_rises_and_never_falls(leases: Leases) -> None:
    leases.grant("gate", 5, as_of_ns=100 * S, lease_s=9)
    leases.grant("gate", 5, as_of_ns=100 * S, lease_s=3)
    assert leases.left_s("gate") == 9
    leases.grant("gate", 6, as_of_ns=100 * S, lease_s=3)
    assert leases.epoch_of("gate") == 6
    with pytest.raises(LeaseError):
        leases.grant("gate", 5, as_of_ns=100 * S, lease_s=3)


@pytest.mark.parametrize("epoch", [0, -1, True, 1.0, "1", None, MAX_EPOCH + 1])
def test_impossible_epochs_are_refused(leases: Leases, epoch: object) -> None:
    with pytest.raises(ConfigError, match="whole number from 1"):
        leases.grant("gate", epoch, as_of_ns=100 * S, lease_s=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("lease_s", [0, -1, 86_401, float("nan"), float("inf"), "2", None, True])
def test_impossible_spans_are_refused(leases: Leases, lease_s: object) -> None:
    with pytest.raises(ConfigError, match="lease_s"):
        leases.grant("gate", 1, as_of_ns=100 * S, lease_s=lease_s)  # type: ignore[arg-type]
    assert leases.may_publish("gate")


def test_ending_waits_for_the_message_that_is_leaving(leases: Leases) -> None:
    leases.grant("gate", 1, as_of_ns=100 * S, lease_s=2)
    order: list[str] = []
    inside = threading.Event()

    def publish() -> None:
        with leases.publishing("gate") as may_leave:
            assert may_leave
            inside.set()
            ender.join(0.05)
            order.append("left")

    publisher = threading.Thread(target=publish)
    ender = threading.Thread(target=lambda: (inside.wait(5), leases.end("gate"), order.append("ended")))
    ender.start()
    publisher.start()
    publisher.join(5)
    ender.join(5)
    assert order == ["left", "ended"]
    with leases.publishing("gate") as may_leave:
        assert not may_leave


def test_memory_is_bounded(leases: Leases) -> None:
    for index in range(MAX_REMEMBERED + 10):
        leases.end(f"cam{index}", 1)
    assert leases.lease_of("cam0") is None
    assert leases.lease_of(f"cam{MAX_REMEMBERED + 9}") is not None


@dataclass
class Host:
    """An engine as the controller knows it: what it said last, and until when it may still publish."""

    name: str
    leases: Leases
    inbox: list[tuple[str, int, int, float]] = field(default_factory=list)
    said_ns: int = 0
    heard_at_ns: int = 0
    replies: list[int] = field(default_factory=list)
    outbox: list[tuple[int, str]] = field(default_factory=list)
    passed_check: int | None = None


class OneOwner(RuleBasedStateMachine):
    """One source, three engines, a controller, a fence; every message may be late, every process may freeze.

    The clocks of the engines differ by constants. Advancing time without any other step is a freeze of all; the other
    steps of an engine are simply not chosen while it is frozen or cut off.
    """

    LEASE_S = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1000 * S)
        self.hosts = [Host(f"e{n}", Leases(lambda n=n: self.clock.monotonic_ns() + n * 777 * S)) for n in range(3)]  # type: ignore[misc]
        for host in self.hosts:
            host.said_ns, host.heard_at_ns = host.leases.now_ns(), self.clock.monotonic_ns()
        self.fence = EpochFence()
        self.epoch = 0
        self.owner: int | None = None
        self.free_at_ns = 0
        self.seen: list[tuple[int, str]] = []
        self.released = False

    @rule(seconds=st.sampled_from([0.01, 0.3, 0.9, 1.1, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(n=st.integers(0, 2))
    def give(self, n: int) -> None:
        """Give the source to an engine, once nobody else can still publish it."""
        if self.owner is not None and not self.released and self.clock.monotonic_ns() < self.free_at_ns:
            return
        self.epoch, self.owner, self.released = self.epoch + 1, n, False
        self._send("grant", n)

    @precondition(lambda self: self.owner is not None and not self.released)
    @rule()
    def renew(self) -> None:
        self._send("renew", self.owner)  # type: ignore[arg-type]

    @precondition(lambda self: self.owner is not None)
    @rule()
    def release(self) -> None:
        assert self.owner is not None
        self.hosts[self.owner].inbox.append(("release", self.epoch, 0, 0.0))

    def _send(self, kind: str, n: int) -> None:
        host = self.hosts[n]
        host.inbox.append((kind, self.epoch, host.said_ns, self.LEASE_S))
        # the engine said it before the controller heard it: the lease cannot last longer than this
        self.free_at_ns = max(self.free_at_ns, host.heard_at_ns + int(self.LEASE_S * S))

    @rule(n=st.integers(0, 2), at=st.integers(0, 3))
    def deliver(self, n: int, at: int) -> None:
        """Let a request arrive, not always in order."""
        host = self.hosts[n]
        if not host.inbox:
            return
        kind, epoch, as_of_ns, lease_s = host.inbox.pop(min(at, len(host.inbox) - 1))
        if kind == "grant":
            with suppress(LeaseError):
                host.leases.grant("cam", epoch, as_of_ns=as_of_ns, lease_s=lease_s)
        elif kind == "renew":
            host.leases.renew("cam", epoch, as_of_ns=as_of_ns, lease_s=lease_s)
        else:
            lease = host.leases.lease_of("cam")
            if lease is None or epoch >= lease.epoch:
                host.leases.end("cam", epoch)
                if self.owner == n and epoch == self.epoch:
                    self.released = True
        host.replies.append(host.leases.now_ns())

    @rule(n=st.integers(0, 2))
    def hear(self, n: int) -> None:
        """Let a reply reach the controller."""
        host = self.hosts[n]
        if host.replies:
            host.said_ns, host.heard_at_ns = host.replies.pop(0), self.clock.monotonic_ns()

    @rule(n=st.integers(0, 2))
    def check(self, n: int) -> None:
        """Look at the lease; the process may freeze before the message leaves."""
        host = self.hosts[n]
        lease = host.leases.lease_of("cam")
        if lease is not None and host.leases.may_publish("cam"):
            host.passed_check = lease.epoch

    @rule(n=st.integers(0, 2))
    def send(self, n: int) -> None:
        """Let a checked message leave, however long ago the check was."""
        host = self.hosts[n]
        if host.passed_check is not None:
            host.outbox.append((host.passed_check, host.name))
            host.passed_check = None

    @rule(n=st.integers(0, 2))
    def collect(self, n: int) -> None:
        """Let a message of an engine reach the fence, and a reader if it passes."""
        host = self.hosts[n]
        if host.outbox:
            epoch, name = host.outbox.pop(0)
            if self.fence.admits("cam", name, epoch):
                self.seen.append((epoch, name))

    @invariant()
    def one_engine_may_publish(self) -> None:
        owners = [
            host.name
            for host in self.hosts
            if host.leases.lease_of("cam") is not None and host.leases.may_publish("cam")
        ]
        assert len(owners) <= 1, owners

    @invariant()
    def readers_see_epochs_rise_each_with_one_owner(self) -> None:
        recent = self.seen[-2:]
        if len(recent) == 2:
            assert recent[0][0] < recent[1][0] or recent[0] == recent[1]


def _steps(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


TestOneOwner = OneOwner.TestCase
TestOneOwner.settings = _steps(20)


@pytest.mark.soak
def test_one_owner_in_ten_thousand_steps() -> None:
    run_state_machine_as_test(OneOwner, settings=_steps(100))  # type: ignore[no-untyped-call]
