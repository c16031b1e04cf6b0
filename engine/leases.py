"""Which engine owns a source: epochs and leases, on a clock that keeps running while the machine sleeps.

A fleet hands each source to one engine at a time, under an epoch that rises with every hand-over. The engine publishes
a source only while it holds a lease on it. A lease expires on its own, even if the process was frozen, the machine
suspended or the network cut in the meantime. Sources without an epoch belong to the engine that was started with them
and need no lease.

A lease counts from a time that the engine itself stated (`as_of_ns`) and the controller sends back, never from the
arrival of a request: one that waited in a buffer while the process was frozen must not revive anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from engine.clock import NS_PER_S, boot_ns
from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_EPOCH = 2**53 - 1
"""The largest value that JavaScript and other readers of doubles represent exactly."""
MAX_LEASE_S = 86_400.0
MAX_REMEMBERED = 10_000
Refusal = Literal["unknown", "epoch", "expired", "late", "future"]


class LeaseError(ConfigError):
    """A lease request came too late, or another engine owns the source.

    Attributes:
        why: the reason in one word.
    """

    def __init__(self, why: Refusal, message: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to publish one source.

    Attributes:
        epoch: rises with each hand-over.
        until_ns: when it runs out, by the clock of `Leases`.
        is_held: False once it has ended; then only its epoch matters.
    """

    epoch: int
    until_ns: int
    is_held: bool = True


class Leases:
    """The leases of one engine; any thread may use it.

    Args:
        now_ns: the clock; tests replace it.
    """

    def __init__(self, now_ns: Callable[[], int] = boot_ns) -> None:
        self.now_ns = now_ns
        self._leases: dict[str, Lease] = {}
        self._lock = threading.RLock()

    def grant(self, source_id: str, epoch: int, *, as_of_ns: int, lease_s: float) -> None:
        """Begin, extend or raise a lease.

        Args:
            source_id: the source.
            epoch: higher than all before, or that of the lease that is held.
            as_of_ns: what `now_ns` returned when the engine last answered the controller.
            lease_s: how long it lasts from then.

        Raises:
            LeaseError: the epoch is not higher, or the request is too late.
            ConfigError: a value is out of bounds.
        """
        check_epoch(epoch)
        with self._lock:
            until_ns = self.until_ns(as_of_ns, lease_s)
            known = self._leases.get(source_id)
            if known is not None and epoch < known.epoch + (not self._is_valid(known)):
                state = "has" if self._is_valid(known) else "last had"
                raise LeaseError("epoch", f"{source_id} {state} epoch {known.epoch}: {epoch} is not higher")
            if known is not None and self._is_valid(known):
                until_ns = max(until_ns, known.until_ns)
            self._leases.pop(source_id, None)
            self._leases[source_id] = Lease(epoch, until_ns)
            self._forget_oldest()

    def renew(self, source_id: str, epoch: int, *, as_of_ns: int, lease_s: float) -> Refusal | None:
        """Extend a lease and return None, or return why it is not extended.

        Raises:
            ConfigError: `lease_s` is out of bounds.
        """
        with self._lock:
            known = self._leases.get(source_id)
            if known is None:
                return "unknown"
            if known.epoch != epoch:
                return "epoch"
            if not self._is_valid(known):
                return "expired"
            try:
                until_ns = self.until_ns(as_of_ns, lease_s)
            except LeaseError as error:
                return error.why
            self._leases[source_id] = replace(known, until_ns=max(known.until_ns, until_ns))
            return None

    def until_ns(self, as_of_ns: int, lease_s: float) -> int:
        """Return when a lease of this request runs out.

        Raises:
            LeaseError: it has run out, or `as_of_ns` is in the future.
            ConfigError: `lease_s` is out of bounds.
        """
        if isinstance(lease_s, bool) or not isinstance(lease_s, int | float) or not 0 < lease_s <= MAX_LEASE_S:
            raise ConfigError(f"lease_s is {lease_s!r}: expected seconds, above 0 and at most {MAX_LEASE_S:.0f}")
        if isinstance(as_of_ns, bool) or not isinstance(as_of_ns, int):
            raise ConfigError(f"as_of_ns is {as_of_ns!r}: expected the engine_ns of an earlier reply")
        now_ns = self.now_ns()
        if as_of_ns > now_ns:
            raise LeaseError("future", f"as_of_ns is {as_of_ns - now_ns} ns ahead: it belongs to another engine or run")
        until_ns = as_of_ns + int(lease_s * NS_PER_S)
        if until_ns <= now_ns:
            age_s = (now_ns - as_of_ns) / NS_PER_S
            raise LeaseError("late", f"the request is {age_s:.3f} s old: its lease has run out")
        return until_ns

    def end(self, source_id: str, epoch: int | None = None) -> None:
        """End a lease: once this returns, nothing of the source is published. A later one needs a higher epoch."""
        with self._lock:
            known = self._leases.get(source_id, Lease(0, 0))
            highest = max(known.epoch, epoch or 0)
            if highest:
                self._leases.pop(source_id, None)
                self._leases[source_id] = Lease(highest, known.until_ns, is_held=False)
                self._forget_oldest()

    def put_back(self, source_id: str, lease: Lease | None) -> None:
        """Undo a `grant` under which nothing was published."""
        with self._lock:
            self._leases.pop(source_id, None)
            if lease is not None:
                self._leases[source_id] = lease

    def disown(self, source_id: str) -> None:
        """Forget an ended lease: the source is run without one."""
        with self._lock:
            if source_id in self._leases and not self._is_valid(self._leases[source_id]):
                del self._leases[source_id]

    def lease_of(self, source_id: str) -> Lease | None:
        """Return the lease of a source, even one that has ended or expired; None if it never had one."""
        return self._leases.get(source_id)

    def epoch_of(self, source_id: str) -> int | None:
        """Return the epoch to state in a source's messages; None for a source without a lease."""
        lease = self._leases.get(source_id)
        return None if lease is None else lease.epoch

    def left_s(self, source_id: str) -> float:
        """Return the seconds that a lease has left; 0 if it has ended, or there is none."""
        lease = self._leases.get(source_id)
        return max(lease.until_ns - self.now_ns(), 0) / NS_PER_S if lease is not None and lease.is_held else 0.0

    def may_publish(self, source_id: str) -> bool:
        """Return whether messages of a source may leave now."""
        lease = self._leases.get(source_id)
        return lease is None or self._is_valid(lease)

    @contextmanager
    def publishing(self, source_id: str) -> Iterator[bool]:
        """Yield whether messages of a source may leave now; `end` on another thread waits until they have left."""
        if source_id not in self._leases:
            yield True
            return
        with self._lock:
            yield self.may_publish(source_id)

    def held(self) -> list[str]:
        """Return the sources whose lease has not been ended, including expired ones."""
        with self._lock:
            return [name for name, lease in self._leases.items() if lease.is_held]

    def expired(self) -> list[str]:
        """Return the sources whose lease has expired but has not been ended yet."""
        with self._lock:
            return [name for name, lease in self._leases.items() if lease.is_held and not self._is_valid(lease)]

    def _is_valid(self, lease: Lease) -> bool:
        return lease.is_held and self.now_ns() < lease.until_ns

    def _forget_oldest(self) -> None:
        """Forget the epochs of the sources that ended longest ago."""
        over = [name for name, lease in self._leases.items() if not lease.is_held]
        for name in over[: max(len(self._leases) - MAX_REMEMBERED, 0)]:
            del self._leases[name]


def check_epoch(epoch: object) -> int:
    """Return an epoch. Raises `ConfigError` if it is not a whole number from 1 to 2**53 - 1."""
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 1 <= epoch <= MAX_EPOCH:
        raise ConfigError(f"epoch is {epoch!r}: expected a whole number from 1 to {MAX_EPOCH}")
    return epoch
