"""Sources that a fleet assigns to an engine of several workers: each runs in one of them, under the same lease.

All workers are on this machine and measure leases by the same clock, so a request passes on unchanged but for the
incarnation. The engine answers for all of its workers or, while one of them is silent, not at all: the fleet must not
take a silent worker's sources for stopped.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.clock import SYSTEM_CLOCK, boot_ns
from engine.errors import ConfigError
from pipelines.running.assignments import Reply, Request, check_incarnation
from pipelines.running.control_client import ConflictError, refusal
from pipelines.running.control_links import Answer, ControlLinks
from pipelines.running.control_socket import Later

ANSWER_S = 1.8
"""Less than a controller waits for the answer of the engine."""
MAX_KNOWN = 10_000
Merge = Callable[[Mapping[str, Reply]], Reply]


class WorkersAssignments:
    """Answers `assign`, `renew` and `release` for all workers; used by one thread.

    Args:
        engine_id: of the whole engine.
        workers: control addresses of the running workers.
        count: how many there are once all run.

    Attributes:
        incarnation: distinguishes this engine from an earlier one with the same name.
    """

    def __init__(self, engine_id: str, workers: Callable[[], Sequence[str]], count: int) -> None:
        self.incarnation = secrets.token_hex(8)
        self._engine_id, self._workers, self._count = engine_id, workers, count
        self._run_epoch = SYSTEM_CLOCK.utc_ns()
        self._links = ControlLinks(SYSTEM_CLOCK, ANSWER_S)
        self._connected: dict[str, str] = {}
        """The incarnation of each worker by its address."""
        self._worker_of: dict[str, str] = {}
        self._highest: dict[str, int] = {}
        self._own: set[str] = set()
        self._loads = Counter[str]()
        self._open: dict[int, _Forwarded] = {}

    @property
    def commands(self) -> dict[str, Callable[[Request], Later]]:
        """The handlers by command."""
        return {"assign": self._assign, "renew": self._renew, "release": self._release}

    def note_own(self, source_id: str, *, is_there: bool) -> None:
        """Record that a source runs without a fleet, or no longer does."""
        (self._own.add if is_there else self._own.discard)(source_id)

    def pump(self, seconds: float) -> None:
        """Take answers of workers, waiting for them up to a timeout."""
        self._links.wait(seconds)
        for answer in self._links.receive():
            self._open.pop(id(answer.request)).take(answer)

    def close(self) -> None:
        """Hang up."""
        self._links.close()

    def _forward(self, requests: Mapping[str, Request], merge: Merge) -> _Forwarded:
        """Send a request to some workers; the reply combines all of theirs."""
        done = _Forwarded(requests, merge)
        for address, request in requests.items():
            self._open[id(request)] = done
            self._links.send(address, request)
        return done

    def _of_worker(self, request: Request, address: str, **changes: Any) -> Request:
        return {**request, "incarnation": self._connected[address], **changes}

    def _renew(self, request: Request) -> Later:
        addresses = self._all_workers()
        leases = request.get("leases", [])
        if not isinstance(leases, list):
            raise ConfigError("renew: leases: expected a list of [source_id, epoch]")
        if leases:
            check_incarnation(request, self.incarnation)
        parts: dict[str, list[Any]] = {address: [] for address in addresses}
        unknown: dict[str, Any] = {}
        for each in leases:
            name = each[0] if isinstance(each, list) and each and isinstance(each[0], str) else ""
            if name in self._worker_of:
                parts[self._worker_of[name]].append(each)
            else:
                unknown[name] = {"why": "unknown", "epoch": self._highest.get(name)}
        requests = {
            address: self._of_worker(request, address, leases=part) if part else {"command": "renew", "leases": []}
            for address, part in parts.items()
        }
        return self._forward(requests, lambda replies: self._renewed(replies, unknown))

    def _all_workers(self) -> Sequence[str]:
        """Return the addresses of all workers, connected. Raises `ConfigError` as long as some do not run."""
        addresses = self._workers()
        if len(addresses) < self._count:
            raise ConfigError(f"{self._count - len(addresses)} of {self._count} workers are not running yet")
        for address in addresses:
            if address not in self._connected:
                self._links.connect(address, address)
                self._connected[address] = ""
        return addresses

    def _renewed(self, replies: Mapping[str, Reply], unknown: Reply) -> Reply:
        owned: dict[str, Any] = {}
        refused, capacity = dict(unknown), dict[str, float]()
        for address, reply in replies.items():
            self._connected[address] = str(reply["incarnation"])
            owned |= reply["owned"]
            self._loads[address] = len(reply["owned"])
            refused |= reply.get("refused", {})
            capacity |= {key: max(value, capacity.get(key, 0)) for key, value in reply.get("capacity", {}).items()}
        if len(self._worker_of) > MAX_KNOWN:
            self._worker_of = {name: address for name, address in self._worker_of.items() if name in owned}
        return self._reply({"capacity": capacity, "refused": refused, "owned": owned})

    def _assign(self, request: Request) -> Later:
        check_incarnation(request, self.incarnation)
        name, epoch = _named(request.get("source")), request.get("epoch")
        if name in self._own:
            raise ConfigError(f"{name} runs here without a fleet: remove it first, or choose another name")
        if not isinstance(epoch, int):
            raise ConfigError(f"epoch is {epoch!r}: expected a whole number")
        is_new = name not in self._worker_of
        if is_new and epoch <= self._highest.get(name, 0):
            highest = self._highest[name]
            raise ConflictError(f"{name} last had epoch {highest}: {epoch} is not higher", highest)
        address = self._worker_of.get(name) or min(self._all_workers(), key=lambda each: self._loads[each])
        self._worker_of[name] = address
        self._loads[address] += is_new
        self._note_epoch(name, epoch)

        def refused() -> None:
            if is_new:
                self._worker_of.pop(name, None)

        done = self._forward({address: self._of_worker(request, address)}, self._one)
        done.on_refusal = refused
        return done

    def _release(self, request: Request) -> Later:
        check_incarnation(request, self.incarnation, may_lack=True)
        name, epoch = request.get("source_id"), request.get("epoch")
        if not isinstance(name, str) or not isinstance(epoch, int):
            raise ConfigError("release needs source_id and epoch")
        there = self._worker_of.get(name)
        addresses = [there] if there is not None else self._all_workers()  # so the one that has it learns the epoch

        def stopped(replies: Mapping[str, Reply]) -> Reply:
            self._worker_of.pop(name, None)
            self._note_epoch(name, epoch)
            return self._one(replies)

        return self._forward({address: self._of_worker(request, address) for address in addresses}, stopped)

    def _note_epoch(self, name: str, epoch: int) -> None:
        highest = max(self._highest.pop(name, 0), epoch)
        self._highest[name] = highest
        over = [known for known in self._highest if known not in self._worker_of]
        for known in over[: max(len(self._highest) - MAX_KNOWN, 0)]:
            del self._highest[known]

    def _one(self, replies: Mapping[str, Reply]) -> Reply:
        return self._reply(next(iter(replies.values())))

    def _reply(self, found: Reply) -> Reply:
        return {
            **found,
            "engine_id": self._engine_id,
            "incarnation": self.incarnation,
            "engine_ns": boot_ns(),
            "run_epoch": self._run_epoch,
        }


class _Forwarded:
    """A request that was passed on to workers, until all of them have answered."""

    def __init__(self, requests: Mapping[str, Request], merge: Merge) -> None:
        self._left, self._merge = len(requests), merge
        self._answers: dict[str, Reply | None] = {}
        self.on_refusal: Callable[[], object] = lambda: None

    def take(self, answer: Answer) -> None:
        """Take the answer of one worker."""
        self._answers[answer.engine_id] = answer.reply
        self._left -= 1

    def is_over(self) -> bool:
        """Return whether all have answered, or will not."""
        return not self._left

    def reply(self) -> Reply | None:
        """Return the reply; None: a worker is silent. Raises `ConfigError` if one refused."""
        replies = {address: reply for address, reply in self._answers.items() if reply is not None}
        if len(replies) < len(self._answers):
            return None
        for reply in replies.values():
            if not reply.get("ok"):
                self.on_refusal()
                raise refusal(reply)
        return self._merge({address: _plain(reply) for address, reply in replies.items()})


def _plain(reply: Reply) -> Reply:
    return {key: value for key, value in reply.items() if key != "ok"}


def _named(source: object) -> str:
    name = source.get("source_id") if isinstance(source, dict) else None
    if not isinstance(name, str) or not name:
        raise ConfigError("assign needs source, with its source_id")
    return name
