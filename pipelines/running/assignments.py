"""Sources that a fleet assigns to this engine, each under an epoch, and only as long as its lease lasts.

Requests never wait for a camera to connect. A delayed request, for example one that waited while this process was
frozen, changes nothing: it states which reply of this process it follows (`as_of_ns`, `incarnation`), and leases count
from that reply.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_S
from engine.errors import ConfigError, EngineError
from engine.leases import Lease, LeaseError, check_epoch
from pipelines.metrics.source_cost import CostMeter, capacity
from pipelines.running.control_client import ConflictError

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline
    from pipelines.running.reconfigure import Reconfigurer

logger = logging.getLogger(__name__)
MAX_LEASES = 2000
LAST_MESSAGES_S = 0.5
GIVE_UP_NS = 5 * NS_PER_S
Request = dict[str, Any]
Reply = dict[str, Any]


class Assignments:
    """Answers `assign`, `renew` and `release`, and stops sources whose lease has expired; used by one thread.

    Args:
        pipeline: the run.
        changes: adds and removes sources.
        on_start: called with the name of each source that is started.

    Attributes:
        incarnation: distinguishes this process from an earlier one with the same name.
    """

    def __init__(self, pipeline: Pipeline, changes: Reconfigurer, on_start: Callable[[str], object] = str) -> None:
        self.incarnation = secrets.token_hex(8)
        self._pipeline, self._changes, self._on_start = pipeline, changes, on_start
        self._leases = pipeline.leases
        self._given: dict[str, dict[str, Any]] = {}
        self._stopping: dict[str, int] = {}
        self._costs = CostMeter(pipeline)

    @property
    def commands(self) -> dict[str, Callable[[Request], Reply]]:
        """The handlers by command."""
        return {"assign": self._assign, "renew": self._renew, "release": self._release}

    def poll(self) -> None:
        """Stop the sources whose lease has expired; never blocks for long."""
        self._costs.poll()
        for name in self._leases.expired():
            self._leases.end(name)
            logger.warning("the lease on %s expired: stopping it, because the fleet may have reassigned it", name)
            self._stop(name)
        self._finish_stopping()

    def facts(self) -> Reply:
        """Return the engine's part of `status`."""
        return {"incarnation": self.incarnation, "capacity": capacity(self._pipeline)}

    def facts_of(self, source_id: str) -> Reply:
        """Return a source's part of `status`."""
        lease = self._leases.lease_of(source_id)
        is_owned = lease is not None and lease.is_held
        return {
            "engine_id": self._pipeline.run_facts.engine_id,
            "owner_epoch": lease.epoch if lease is not None and is_owned else None,
            "lease_left_s": round(self._leases.left_s(source_id), 3) if is_owned else None,
            "cost": self._costs.of(source_id).facts(),
        }

    def check_free(self, source_id: str) -> None:
        """Raise `ConfigError` if a source was assigned, because the fleet would not learn of a `remove`."""
        if source_id in self._given:
            raise ConfigError(f"{source_id} is assigned by a fleet: move or release it there")

    def _assign(self, request: Request) -> Reply:
        check_incarnation(request, self.incarnation)
        source, epoch = _given(request, "source", dict), check_epoch(request.get("epoch"))
        name = _given(source, "source_id", str)
        before, is_known = self._leases.lease_of(name), name in self._given
        if not is_known and name in self._changes.source_ids:
            raise ConfigError(f"{name} runs here without a fleet: remove it first, or choose another name")
        holds = before is not None and self._leases.may_publish(name)
        is_same = holds and self._given.get(name) == source
        if holds and not is_same and before is not None and before.epoch == epoch:
            raise ConfigError(f"{name} runs under epoch {epoch} with other settings: raise the epoch to change them")
        self._grant(name, epoch, request)
        done = [] if is_same else self._start(name, source, before)
        return self._reply({"done": done, "source_id": name, "epoch": epoch})

    def _grant(self, name: str, epoch: int, request: Request) -> None:
        try:
            self._leases.grant(
                name, epoch, as_of_ns=_given(request, "as_of_ns", int), lease_s=request.get("lease_s", 0)
            )
        except LeaseError as error:
            raise ConflictError(str(error), self._leases.epoch_of(name) if error.why == "epoch" else None) from error

    def _start(self, name: str, source: dict[str, Any], before: Lease | None) -> list[str]:
        """Add or replace a source; if that fails, the lease is restored."""
        self._finish_stopping(name)
        try:
            done = self._changes.put(source)
        except EngineError:
            still_runs = name in self._given and name in self._changes.source_ids
            self._leases.put_back(name, before)
            if not still_runs:
                self._leases.end(name)
                self._given.pop(name, None)
            raise
        self._given[name] = source
        self._on_start(name)
        return done

    def _renew(self, request: Request) -> Reply:
        leases = request.get("leases", [])
        if not isinstance(leases, list) or len(leases) > MAX_LEASES:
            raise ConfigError(f"renew: leases: expected a list of [source_id, epoch], at most {MAX_LEASES}")
        refused: dict[str, Any] = {}
        if leases:
            check_incarnation(request, self.incarnation)
        for each in leases:
            if not isinstance(each, list) or len(each) != 2 or not isinstance(each[0], str):
                raise ConfigError(f"renew: {str(each)[:80]}: expected [source_id, epoch]")
            name, epoch = each[0], check_epoch(each[1])
            why = self._leases.renew(
                name, epoch, as_of_ns=_given(request, "as_of_ns", int), lease_s=request.get("lease_s", 0)
            )
            if why is not None:
                refused[name] = {"why": why, "epoch": self._leases.epoch_of(name)}
        return self._reply({"capacity": capacity(self._pipeline), "refused": refused, "owned": self._owned()})

    def _release(self, request: Request) -> Reply:
        check_incarnation(request, self.incarnation, may_lack=True)
        name, epoch = _given(request, "source_id", str), check_epoch(request.get("epoch"))
        lease = self._leases.lease_of(name)
        if lease is None and name in self._changes.source_ids:
            raise ConfigError(f"{name} runs here without a fleet: use remove")
        if lease is not None and epoch < lease.epoch:
            raise ConflictError(f"{name} has epoch {lease.epoch} here: {epoch} is an earlier one", lease.epoch)
        done: list[str] = []
        if name in self._given and name not in self._stopping:
            done = self._end(name)
        self._leases.end(name, epoch)
        return self._reply({"done": done, "source_id": name, "stopped": True})

    def _end(self, name: str) -> list[str]:
        """Stop a source, after flushing its last messages if that does not take long."""
        done = [f"removed {name}"]
        try:
            done = self._changes.remove(name)
        except EngineError as error:
            logger.warning("%s was cut off while stopping: %s", name, error)
        self._pipeline.stats.source(name).wait_for_end(LAST_MESSAGES_S)
        self._given.pop(name, None)
        return done

    def _stop(self, name: str) -> None:
        """Begin to stop a source whose messages may no longer be sent."""
        if name in self._given and name not in self._stopping:
            self._stopping[name] = self._leases.now_ns()
            with suppress(ConfigError):  # the source has ended, or will end later
                self._pipeline.remove_source(name, timeout_s=0.0)

    def _finish_stopping(self, at_once: str | None = None) -> None:
        """Forget the stopped sources; hanging ones are abandoned after a while, or at once."""
        running, now_ns = set(self._pipeline.running_sources), self._leases.now_ns()
        over = [
            name
            for name, since_ns in self._stopping.items()
            if name not in running or name == at_once or now_ns - since_ns > GIVE_UP_NS
        ]
        for name in over:
            del self._stopping[name]
            self._given.pop(name, None)
        if over:
            try:
                self._changes.remove(*over)
            except EngineError as error:
                logger.warning("a source whose lease expired was abandoned: %s", error)

    def _owned(self) -> dict[str, Any]:
        known = {s.source_id: s for s in self._pipeline.stats.snapshot().sources if s.source_id in self._given}
        owned = {}
        for name in self._given:
            lease, source = self._leases.lease_of(name), known.get(name)
            if lease is None:
                continue
            state = "connecting" if source is None else source.state
            owned[name] = {
                "epoch": lease.epoch,
                "state": "stopping" if name in self._stopping or not lease.is_held else state,
                "model": self._pipeline.model_of(name),
                "lease_left_s": round(self._leases.left_s(name), 3),
                "published": 0 if source is None else source.published,
                **self._costs.of(name).facts(),
            }
        return owned

    def _reply(self, found: Reply) -> Reply:
        run = self._pipeline.run_facts
        return {
            "engine_id": run.engine_id,
            "incarnation": self.incarnation,
            "engine_ns": self._leases.now_ns(),
            "run_epoch": run.run_epoch,
            **found,
        }


def check_incarnation(request: Request, incarnation: str, *, may_lack: bool = False) -> None:
    """Raise `ConflictError` if a request is meant for an earlier process of this engine."""
    given = request.get("incarnation")
    if given != incarnation and not (may_lack and given is None):
        raise ConflictError(
            f"incarnation is {given!r}: this engine is {incarnation}, it has been restarted; send renew first"
        )


def _given(request: Request, key: str, kind: type) -> Any:
    value = request.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or value == "":
        raise ConfigError(f"{key}: expected a {kind.__name__}; found {str(value)[:80]!r}")
    return value
