"""The controller's book: cameras and engines, the ledger behind them, and the requests that change them.

Two rules guarantee a single owner. An epoch is written to the ledger before any engine hears of it. And `is_free` says
when the last owner has certainly stopped: it said so, its process has ended, or every lease that any request may have
given it has expired. A lease counts from the engine's own clock as of an earlier answer, so a delayed
request does not extend it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from engine.clock import Clock
from engine.errors import ConfigError
from pipelines.fleet.control.facts import Camera, CameraSpec, ControllerOptions, Engine
from pipelines.fleet.control.links import Links
from pipelines.fleet.ledger.records import MAX_EPOCH, NOBODY, Assignment, Change, Ledger, LedgerError
from pipelines.fleet.placement.facts import Machine, Need

logger = logging.getLogger(__name__)
LEASE = "lease_s"
LEDGER_AGAIN_S = 1.0
MAX_LEASE_S = 86_400.0
MAX_LEASES = 250
"""Cameras in one renewal, so that a request stays far below the 64 KiB that an engine reads."""
OnChange = Callable[[Assignment, str], object]


class Book:
    """The controller's view of cameras and engines; used by one thread.

    Args:
        ledger: which engine owns which camera.
        links: to the engines.
        clock: for leases and pauses.
        options: times and limits.
        on_change: called with every written assignment and its reason.
    """

    def __init__(
        self, ledger: Ledger, links: Links, clock: Clock, options: ControllerOptions, on_change: OnChange
    ) -> None:
        self.ledger, self.links, self.clock, self.options = ledger, links, clock, options
        self._on_change = on_change
        self.began_ns = clock.monotonic_ns()
        self._lease_before_s = self._exchange_lease()
        self.cameras: dict[str, Camera] = {}
        self.engines: dict[str, Engine] = {}
        self.owned: dict[str, set[str]] = defaultdict(set)
        self.open: set[str] = set()
        """Cameras that are not simply running; each turn examines only these."""
        self._freed: dict[str, tuple[Assignment, str]] = {}
        self._leases: dict[str, list[list[Any]]] = {}
        """What is renewed at each engine, until something about its cameras changes."""
        self._away_until_ns: int | None = None
        """The ledger failed: it is not used before this time, and then read again first; None: it works."""
        for held in ledger.read().values():
            # an earlier controller's request may still be on its way to the owner, or the owner may be a different
            # process by now
            self.cameras[held.source_id] = Camera(None, free_ns=self.first_bound_ns + options.ns(options.margin_s))
            self._take(held.source_id, held)

    @property
    def now_ns(self) -> int:
        """The time, by the controller's clock."""
        return self.clock.monotonic_ns()

    def configure(self, specs: Iterable[CameraSpec]) -> None:
        """Apply the configured cameras; cameras no longer configured are stopped."""
        wanted = {spec.source_id: spec for spec in specs}
        for source_id, spec in wanted.items():
            camera = self.cameras.setdefault(source_id, Camera(None))
            if camera.spec is not None and camera.spec.source != spec.source and camera.owner:
                camera.target = camera.target or camera.owner  # stopped, and restarted with its new keys
            if camera.spec != spec:
                self.open.add(source_id)
            camera.set_spec(spec)
        for source_id, camera in self.cameras.items():
            if source_id not in wanted and (camera.spec is not None or camera.owner):
                camera.spec = None
                self.open.add(source_id)

    def join(self, machine: Machine, process: str = "") -> None:
        """Add an engine that the launcher starts or has found, or update its machine.

        Args:
            machine: where it runs.
            process: identifies its process; empty: not known.
        """
        engine = self.engines.get(machine.engine_id)
        if engine is None:
            self.engines[machine.engine_id] = Engine(
                machine, self.now_ns, process=process, bound_ns=self.first_bound_ns
            )
            return
        engine.machine, engine.is_expected = machine, True
        if engine.has_ended:
            engine.has_ended, engine.joined_ns = False, self.now_ns
            engine.asked.clear()
        elif process and engine.process and process != engine.process:
            self.distrust(machine.engine_id)
            engine.incarnation = ""
            engine.asked.clear()
        engine.process = process or engine.process

    def distrust(self, engine_id: str) -> None:
        """Record that an engine has a new process.

        Nothing proves that the previous one has ended, so the cameras are free only once its leases have expired.
        """
        engine = self.engines[engine_id]
        engine.running, engine.settled = {}, None
        free_ns = engine.bound_ns + self.options.ns(self.options.margin_s)
        for source_id in self.owned[engine_id]:
            camera = self.cameras[source_id]
            camera.is_running, camera.free_ns = False, max(camera.free_ns, free_ns)
            self.open.add(source_id)

    @property
    def first_bound_ns(self) -> int:
        """When every lease given by an earlier controller has expired."""
        return self.began_ns + self.options.ns(self._lease_before_s)

    def _exchange_lease(self) -> float:
        """Record the longest lease that may be outstanding, and return the longest of an earlier controller."""
        before, mine = self.ledger.note(LEASE), self.options.lease_s
        try:
            longest_s = mine if before is None else float(before)
            if not 0 <= longest_s <= MAX_LEASE_S:
                raise ValueError(before)
        except ValueError as error:
            raise ConfigError(f"ledger: the note {LEASE} is {before!r}: expected seconds; remove it") from error
        self._set_lease(before, max(longest_s, mine))
        return longest_s

    def _set_lease(self, before: str | None, seconds: float) -> None:
        self._lease_note = f"{seconds:g}"
        if before != self._lease_note and not self.ledger.set_note(LEASE, before, self._lease_note):
            raise ConfigError("another controller has just started with this ledger: stop one of them")

    def forget_old_leases(self) -> None:
        """Record our own lease once any longer ones of an earlier controller have expired. Raises `LedgerError`."""
        if self._lease_note != f"{self.options.lease_s:g}" and self.now_ns > self.first_bound_ns:
            self._set_lease(self._lease_note, self.options.lease_s)

    def has_ledger(self) -> bool:
        """Return whether the ledger can be used; after a failure it is read again, since changes may have been made."""
        if self._away_until_ns is None:
            return True
        if self.now_ns < self._away_until_ns:
            return False
        try:
            self._read_again()
        except LedgerError as error:
            self.lose_ledger(error)
            return False
        self._away_until_ns = None
        logger.warning("the ledger can be used again")
        return True

    def lose_ledger(self, error: LedgerError) -> None:
        """Record that the ledger failed: until it works again, leases are renewed and no owner changes."""
        if self._away_until_ns is None:
            logger.error("cameras keep their owners for now, and whatever runs continues: %s", error)
        self._away_until_ns = self.now_ns + self.options.ns(LEDGER_AGAIN_S)

    def end(self, engine_id: str) -> None:
        """Record that an engine's process has certainly ended.

        Its cameras are free at once, except those that an earlier process of the same engine may still run.
        """
        engine = self.engines.get(engine_id)
        if engine is None:
            return
        engine.has_ended, engine.incarnation, engine.is_asked = True, "", False
        engine.bound_ns, engine.running, engine.settled = min(engine.bound_ns, self.now_ns), {}, None
        for source_id in self.owned[engine_id]:
            camera = self.cameras[source_id]
            camera.is_running, camera.unsure_ns = False, 0
            self.open.add(source_id)
            if self.now_ns > camera.free_ns:
                self.free(source_id, "lost")

    def forget(self, engine_id: str) -> None:
        """Record that the launcher no longer maintains this engine; it is removed once it owns nothing."""
        if (engine := self.engines.get(engine_id)) is not None:
            engine.is_expected = False

    def is_live(self, engine: Engine) -> bool:
        """Return whether an engine answers."""
        silent_ns = self.now_ns - engine.heard_ns
        return bool(engine.incarnation) and silent_ns <= self.options.ns(self.options.silent_s)

    def is_gone(self, engine_id: str) -> bool:
        """Return whether an engine certainly publishes nothing: it has ended, or all its leases have expired."""
        engine = self.engines.get(engine_id)
        if engine is not None and engine.has_ended:
            return True
        bound_ns = self.first_bound_ns if engine is None else engine.bound_ns
        return self.now_ns > bound_ns + self.options.ns(self.options.margin_s)

    def usable(self) -> list[Machine]:
        """Return the machines that may get cameras now, each with the number of cameras it is starting."""
        return [
            replace(engine.machine, starts=sum(not self.cameras[name].is_running for name in self.owned[engine_id]))
            for engine_id, engine in self.engines.items()
            if self.is_live(engine) and not engine.is_draining and engine.is_expected
        ]

    def settled(self, without: Collection[str] = ()) -> list[tuple[Need, str]]:
        """Return each camera's needs with its engine, or the one that it is moving to, except for some cameras."""
        return [
            (camera.need(source_id), camera.target or camera.owner)
            for source_id, camera in self.cameras.items()
            if camera.owner and source_id not in without
        ]

    def write(self, wanted: Sequence[tuple[str, str, str]]) -> list[str]:
        """Assign cameras to engines in the ledger, each with the next epoch, and return those written.

        Args:
            wanted: source_id, engine_id and why, each for a camera whose owner has stopped.
        """
        changes, reasons = [], []
        for source_id, engine_id, why in wanted:
            camera = self.cameras[source_id]
            epoch = max(camera.epoch, camera.highest) + 1 if engine_id != NOBODY or not camera.held else camera.epoch
            if epoch >= MAX_EPOCH:
                camera.why = f"its epochs are used up at {epoch - 1}: give it another source_id"
                continue
            changes.append(Change(camera.held, Assignment(source_id, engine_id, epoch)))
            reasons.append(why)
        return self.put(changes, reasons)

    def free(self, source_id: str, why: str) -> None:
        """Take a camera from an owner that has certainly stopped it, at the next `settle_free`."""
        camera = self.cameras[source_id]
        if camera.held is not None and camera.owner:
            self._freed[source_id] = camera.held, why

    def settle_free(self) -> None:
        """Write all freed cameras to the ledger, in one transaction."""
        freed, self._freed = self._freed, {}
        changes = [
            Change(held, Assignment(source_id, NOBODY, held.epoch))
            for source_id, (held, _) in freed.items()
            if self.cameras[source_id].held == held
        ]
        self.put(changes, [freed[change.after.source_id][1] for change in changes])
        if self._away_until_ns is not None:
            self._freed = freed | self._freed

    def put(self, changes: Sequence[Change], why: Sequence[str]) -> list[str]:
        """Write changes to the ledger and return the cameras of those that were made: none if the ledger fails."""
        if not changes or self._away_until_ns is not None:
            return []
        try:
            made = self.ledger.change(changes)
        except LedgerError as error:
            self.lose_ledger(error)
            return []
        done, lost = [], 0
        for change, is_made, reason in zip(changes, made, why, strict=True):
            if is_made:
                self._take(change.after.source_id, change.after)
                self._on_change(change.after, reason)
                done.append(change.after.source_id)
            lost += not is_made
        if lost:
            logger.error("%d changes of the ledger were not ours to make: is a second controller running?", lost)
            self._read_again()
        return done

    def _read_again(self) -> None:
        for source_id, held in self.ledger.read().items():
            if self.cameras.setdefault(source_id, Camera(None)).held != held:
                self._take(source_id, held)

    def _take(self, source_id: str, held: Assignment) -> None:
        camera = self.cameras[source_id]
        self.touch(camera.owner)
        self.touch(held.engine_id)
        self.owned[camera.owner].discard(source_id)
        camera.held, camera.is_running, camera.released_ns, camera.pending = held, False, 0, 0
        if held.engine_id:
            self.owned[held.engine_id].add(source_id)
        self.open.add(source_id)

    def assign(self, source_id: str) -> None:
        """Tell the owner of a camera to run it."""
        camera = self.cameras[source_id]
        engine = self.engines[camera.owner]
        if camera.spec is None or not engine.incarnation:
            return
        camera.since_ns, camera.target, camera.why = self.now_ns, NOBODY, ""
        camera.pending += 1
        source = {**camera.spec.source, "source_id": source_id}
        self._send(camera.owner, engine, {"command": "assign", "epoch": camera.epoch, "source": source})

    def release(self, source_id: str) -> None:
        """Tell the owner of a camera to stop it; its lease is no longer renewed."""
        camera = self.cameras[source_id]
        camera.released_ns = self.now_ns
        self.touch(camera.owner)
        self.stop(camera.owner, source_id, camera.epoch)

    def stop(self, engine_id: str, source_id: str, epoch: int) -> None:
        """Tell an engine to stop a camera in this epoch."""
        request = {"command": "release", "source_id": source_id, "epoch": epoch}
        engine = self.engines[engine_id]
        self._post(engine_id, engine, {**request, "incarnation": engine.incarnation})

    def renew(self, engine_id: str) -> None:
        """Renew all leases of an engine; its reply also says what it runs."""
        engine = self.engines[engine_id]
        engine.renewed_ns, engine.is_asked = self.now_ns, True
        leases = self._leases_of(engine_id) if engine.incarnation else []
        if not leases:
            self._post(engine_id, engine, {"command": "renew", "leases": []})
            return
        if len(leases) <= MAX_LEASES:
            self._send(engine_id, engine, {"command": "renew", "leases": leases})
            return
        for first in range(0, len(leases), MAX_LEASES):
            self._send(engine_id, engine, {"command": "renew", "leases": leases[first : first + MAX_LEASES]})

    def _leases_of(self, engine_id: str) -> list[list[Any]]:
        """Return name and epoch of each camera whose lease is renewed there; not to be changed."""
        known = self._leases.get(engine_id)
        if known is None:
            names = [name for name in self.owned[engine_id] if not self.cameras[name].released_ns]
            known = self._leases[engine_id] = [[name, self.cameras[name].epoch] for name in names]
        return known

    def touch(self, engine_id: str) -> None:
        """Record that an engine's cameras have changed, so that its next report is examined in full."""
        self._leases.pop(engine_id, None)
        if (engine := self.engines.get(engine_id)) is not None:
            engine.settled = None

    def _send(self, engine_id: str, engine: Engine, request: dict[str, Any]) -> None:
        """Send a request that gives a lease, and record how long it may last.

        The engine's clock showed `clock_ns` before its answer arrived at `heard_ns`: the lease ends before `bound_ns`.
        """
        options = self.options
        engine.bound_ns = max(engine.bound_ns, engine.heard_ns + options.ns(options.lease_s))
        lease = {
            "incarnation": engine.incarnation,
            "as_of_ns": engine.clock_ns,
            "lease_s": options.engine_lease_s,
        }
        self._post(engine_id, engine, request | lease)

    def _post(self, engine_id: str, engine: Engine, request: dict[str, Any]) -> None:
        engine.asked[id(request)] = request
        self.links.send(engine_id, request)
