"""Decides when a fleet needs more machines, and which one it can give back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipelines.fleet.control.controller import Controller
from pipelines.fleet.ledger.records import Ledger, LedgerError

LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Scale:
    """What a fleet needs now.

    Attributes:
        machines: how many machines it should have, including those that are being emptied.
        present: how many it has.
        why: one line.
        free: engines whose machines can be given back: they are drained and empty.
    """

    machines: int
    present: int
    why: str
    free: tuple[str, ...] = ()


class Scaler:
    """Orders machines at once, and gives one back after a long time in which fewer were needed; used by one thread.

    A machine is drained before it is given back. Which ones leave is a note in the ledger, apart from those that people
    drain.

    Args:
        controller: of the fleet.
        ledger: likewise.
        shrink_s: how long fewer machines must suffice before one is given back; None: none ever is.
    """

    def __init__(self, controller: Controller, ledger: Ledger, shrink_s: float | None) -> None:
        self._controller, self._ledger, self._shrink_s = controller, ledger, shrink_s
        self._leaving = set[str](json.loads(ledger.note(LEAVING) or "[]"))
        self._quiet_since_ns: int | None = None

    def turn(self) -> Scale:
        """Return what is needed; drain a machine if it has long been superfluous, or keep one that is leaving.

        Raises:
            LedgerError: nothing has changed; call it again.
        """
        book, wanted = self._controller.book, self._controller.desired()
        self._forget_undone()
        leaving = [name for name in sorted(self._leaving) if name in book.engines]
        missing = wanted.machines - wanted.present
        for name in leaving[: max(missing, 0)]:
            self._controller.drain(name, undo=True)
            self._keep(self._leaving - {name})
            wanted = self._controller.desired()
        if missing >= 0 or self._shrink_s is None:
            self._quiet_since_ns = None
        elif self._quiet_since_ns is None:
            self._quiet_since_ns = book.now_ns
        elif book.now_ns - self._quiet_since_ns > book.options.ns(self._shrink_s):
            self._quiet_since_ns = book.now_ns
            self._empty_one()
            wanted = self._controller.desired()  # without the machine now being emptied
        free = tuple(name for name in sorted(self._leaving) if name in book.engines and not book.owned[name])
        emptying = sum(name in book.engines for name in self._leaving) - len(free)
        present = wanted.present + sum(name in book.engines for name in self._leaving)
        return Scale(max(wanted.machines, wanted.present) + emptying, present, wanted.why, free)

    def _forget_undone(self) -> None:
        """Keep the machines whose draining a person has ended."""
        engines = self._controller.book.engines
        undone = {name for name in self._leaving if name in engines and not engines[name].is_draining}
        if undone:
            self._keep(self._leaving - undone)

    def _empty_one(self) -> None:
        """Begin to drain the machine with the fewest cameras."""
        book = self._controller.book
        usable = [machine.engine_id for machine in book.usable()]
        if usable:
            name = min(usable, key=lambda engine_id: len(book.owned[engine_id]))
            self._keep(self._leaving | {name})
            self._controller.drain(name)

    def gone(self, engine_id: str) -> None:
        """Record that a machine was given back, so that a new one of that name gets cameras. Raises `LedgerError`."""
        if engine_id in self._controller.book.engines:
            self._controller.drain(engine_id, undo=True)
        self._keep(self._leaving - {engine_id})

    def _keep(self, leaving: set[str]) -> None:
        if not self._ledger.set_note(LEAVING, self._ledger.note(LEAVING), json.dumps(sorted(leaving))):
            raise LedgerError("another controller has changed which machines leave")
        self._leaving = leaving
