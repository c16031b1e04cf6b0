"""The controller of a fleet: works turn by turn, on any clock, with any links, launcher and ledger.

The simulator and a real fleet run the same code. After a restart, it reads the ledger, asks all engines what they run,
and continues from there; it reassigns nothing before every lease that its predecessor gave has expired.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from engine.clock import Clock
from engine.data import DEFAULT_MODEL
from engine.errors import ConfigError, EngineError
from pipelines.fleet.control.book import Book, OnChange
from pipelines.fleet.control.facts import FAR, CameraSpec, ControllerOptions
from pipelines.fleet.control.hearing import hear
from pipelines.fleet.control.links import Links
from pipelines.fleet.control.planning import Allowance, drain, is_gathering, move, relieve_machines, settle
from pipelines.fleet.ledger.records import Ledger, LedgerError
from pipelines.fleet.placement.facts import Machine
from pipelines.fleet.placement.place import load_of
from pipelines.fleet.placement.rebalance import Desired, desired

logger = logging.getLogger(__name__)
DRAINING = "draining"


class Controller:
    """Keeps every configured camera on one engine.

    Args:
        ledger: which engine owns which camera; survives the controller.
        links: to the engines.
        clock: for leases and pauses.
        options: times and limits.
        on_change: called with every written assignment and its reason.

    Attributes:
        is_calm: while true, no camera is moved to relieve or drain machines.
    """

    def __init__(
        self,
        ledger: Ledger,
        links: Links,
        clock: Clock,
        options: ControllerOptions | None = None,
        on_change: OnChange = lambda assignment, why: None,
    ) -> None:
        self.options = options or ControllerOptions()
        self.book = Book(ledger, links, clock, self.options, on_change)
        self._allowance = Allowance(self.options.moves_per_minute, as_of_ns=self.book.now_ns)
        self._looked_ns = -FAR
        self.is_calm = False
        self._draining = frozenset(_names_in(ledger.note(DRAINING)))

    def configure(self, cameras: Iterable[CameraSpec]) -> None:
        """Apply the configured cameras; cameras no longer configured are stopped."""
        self.book.configure(cameras)

    def join(self, machine: Machine, process: str = "") -> None:
        """Add an engine that the launcher starts or has found; `process` identifies its process, if that is known."""
        self.book.join(machine, process)
        self.book.engines[machine.engine_id].is_draining = machine.engine_id in self._draining

    def end(self, engine_id: str) -> None:
        """Record that an engine's process has certainly ended."""
        self.book.end(engine_id)

    def forget(self, engine_id: str) -> None:
        """Record that the launcher no longer maintains this engine."""
        self.book.forget(engine_id)

    def leave(self, engine_id: str) -> None:
        """Record that an engine is no longer maintained but may still run: its cameras move away while it answers."""
        self.book.forget(engine_id)
        if (engine := self.book.engines.get(engine_id)) is not None:
            engine.is_draining = True

    def turn(self) -> None:
        """Process answers, renew leases, and do what is due; never waits."""
        self.renew()
        book = self.book
        if not book.has_ledger():
            return
        try:
            book.forget_old_leases()
        except LedgerError as error:
            book.lose_ledger(error)
            return
        settle(book)
        if self.is_calm:
            return
        if any(engine.is_draining for engine in book.engines.values()):
            drain(book, self._allowance)
        if book.now_ns - self._looked_ns >= self.options.ns(self.options.relieve_s):
            self._looked_ns = book.now_ns
            relieve_machines(book, self._allowance)

    def renew(self) -> None:
        """Process answers and renew leases, and nothing else; never waits."""
        book = self.book
        for answer in book.links.receive():
            try:
                hear(book, answer)
            except Exception as error:  # the ledger failed, or a bug: the other answers count
                is_expected = isinstance(error, EngineError)
                logger.error("answer of %s: %s", answer.engine_id, error, exc_info=None if is_expected else error)
        for engine_id, engine in list(book.engines.items()):
            is_due = book.now_ns - engine.renewed_ns >= self.options.ns(self.options.renew_s)
            if is_due and not engine.is_asked and not engine.has_ended:
                book.renew(engine_id)
            if not book.is_live(engine):
                book.open |= book.owned[engine_id]
            if not engine.is_expected and not book.owned[engine_id] and book.is_gone(engine_id):
                del book.engines[engine_id]

    def drain(self, engine_id: str, *, undo: bool = False) -> int:
        """Drain an engine and assign it nothing more, or undo that; return how many cameras it has.

        Raises:
            ConfigError: there is no such engine.
            LedgerError: it could not be recorded: nothing has changed.
        """
        engine = self.book.engines.get(self._known(engine_id))
        draining = self._draining - {engine_id} if undo else self._draining | {engine_id}
        ledger = self.book.ledger
        if not ledger.set_note(DRAINING, ledger.note(DRAINING), json.dumps(sorted(draining))):
            raise ConfigError("another controller has changed what is draining: stop one of them")
        self._draining = draining
        if engine is not None:
            engine.is_draining = not undo
        return len(self.book.owned[engine_id])

    def move(self, source_id: str, engine_id: str) -> None:
        """Move a camera to an engine.

        Raises:
            ConfigError: there is no such camera or engine, or the engine cannot take it.
        """
        camera, book = self.book.cameras.get(source_id), self.book
        if camera is None or camera.spec is None:
            raise ConfigError(f"there is no camera {source_id}; {_some(n for n, c in book.cameras.items() if c.spec)}")
        engine = book.engines[self._known(engine_id)]
        if not book.is_live(engine):
            raise ConfigError(f"{engine_id} does not answer: choose another engine")
        if engine.is_draining:
            raise ConfigError(f"{engine_id} is draining: end that first (fleet drain --undo {engine_id})")
        if camera.owner == engine_id:
            raise ConfigError(f"{source_id} is on {engine_id} already")
        move(book, source_id, engine_id)

    def _known(self, engine_id: str) -> str:
        if engine_id not in self.book.engines:
            raise ConfigError(f"there is no engine {engine_id}; {_some(self.book.engines)}")
        return engine_id

    def has_ledger(self) -> bool:
        """Return whether the ledger can be used now."""
        return self.book.has_ledger()

    def lose_ledger(self, error: LedgerError) -> None:
        """Record that the ledger failed."""
        self.book.lose_ledger(error)

    def is_gathering(self) -> bool:
        """Return whether engines that should answer have not done so yet, as right after a start."""
        return is_gathering(self.book)

    def owners(self) -> dict[str, str]:
        """Return the engine of each camera that has one."""
        return {name: camera.owner for name, camera in self.book.cameras.items() if camera.owner}

    def canaries(self) -> dict[str, str]:
        """Return the engine of each camera that runs with the model of the fleet, first of those that send images."""
        book, found = self.book, list[tuple[bool, str, str]]()
        for engine_id, engine in book.engines.items():
            for name in book.owned[engine_id] if book.is_live(engine) else ():
                report = engine.running.get(name, {})  # missing for a camera that has just started
                if book.cameras[name].is_running and report.get("model", DEFAULT_MODEL) == DEFAULT_MODEL:
                    found.append((report.get("state") != "live", name, engine_id))
        return {name: engine_id for _, name, engine_id in sorted(found)}

    def live(self) -> dict[str, str]:
        """Return the engines that answer, with the incarnations of their processes."""
        engines = self.book.engines.items()
        return {name: engine.incarnation for name, engine in engines if self.book.is_live(engine)}

    def desired(self) -> Desired:
        """Return how many machines the cameras need."""
        book = self.book
        needs = [camera.need(name) for name, camera in book.cameras.items() if camera.spec is not None]
        unplaced = sum(camera.spec is not None and not camera.owner for camera in book.cameras.values())
        return desired(needs, book.usable(), self.options.limits, unplaced)

    def status(self) -> dict[str, Any]:
        """Return what runs where, as plain values."""
        book = self.book
        loads = load_of([engine.machine for engine in book.engines.values()], book.settled())
        engines = {
            engine_id: {
                "state": self.state_of(engine_id),
                "cameras": len(book.owned[engine_id]),
                "load": round(loads[engine_id], 3),
                "cpu_cores": engine.machine.cpu,
                "gpus": engine.machine.gpu,
                "site": engine.machine.site,
                "labels": dict(engine.machine.labels),
                "draining": engine.is_draining,
                "incarnation": engine.incarnation,
            }
            for engine_id, engine in sorted(book.engines.items())
        }
        return {"engines": engines, "cameras": self.cameras(), "desired": self.desired().machines}

    def cameras(self) -> dict[str, Any]:
        """Return each camera with its owner, epoch, state and cost."""
        return {
            source_id: {
                "engine": camera.owner or None,
                "epoch": camera.epoch,
                "state": self._state_of_camera(source_id),
                "cpu": round(camera.cost.cpu, 3),
                "gpu": round(camera.cost.gpu, 3),
                "measured": camera.cost.is_measured,
                "moving_to": camera.target or None,
                "why": camera.why,
            }
            for source_id, camera in sorted(self.book.cameras.items())
            if camera.spec is not None or camera.owner
        }

    def state_of(self, engine_id: str) -> str:
        """Return `starting`, `live`, `silent`, `ended` or `gone`."""
        engine = self.book.engines[engine_id]
        if engine.has_ended:
            return "ended"
        if self.book.is_live(engine):
            return "live"
        if engine.is_expected and not engine.incarnation and engine.heard_ns == -FAR:
            return "starting"
        return "gone" if self.book.is_gone(engine_id) else "silent"

    def _state_of_camera(self, source_id: str) -> str:
        camera = self.book.cameras[source_id]
        if not camera.owner:
            return "unplaced"
        engine = self.book.engines.get(camera.owner)
        if engine is None or not self.book.is_live(engine):
            return "silent"
        if camera.released_ns:
            return "stopping"
        report = engine.running.get(source_id, {})
        return str(report.get("state", "starting")) if camera.is_running else "starting"


def _names_in(note: str | None) -> set[str]:
    try:
        return set(map(str, json.loads(note or "[]")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"ledger: the note {DRAINING} is not a list of engines ({error}): remove it") from error


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return f"expected one of: {', '.join(listed[:10])}{more}" if listed else "there is none yet"
