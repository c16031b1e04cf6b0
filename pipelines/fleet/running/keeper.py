"""Renews the leases of a fleet while its controller is away, and decides nothing: cameras stay where they are.

So leases can be short and a frozen machine is replaced soon, yet cameras do not stop whenever the controller restarts.
Only the holder of one lock renews leases; the controller holds it while it lives, and the kernel passes it on when it
dies. A new controller that waits for it gets it at once, and counts all leases from then on.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.clock import SYSTEM_CLOCK, Clock, pause
from engine.errors import EngineError
from pipelines.fleet.config import FleetConfig
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.launching.process import KeptProcess
from pipelines.fleet.launching.state import processes_folder, state_folder
from pipelines.fleet.ledger.records import LedgerError
from pipelines.fleet.opening import open_ledger, open_links
from pipelines.fleet.placement.facts import Machine
from pipelines.fleet.running.locks import CONTROLLER, LEASES, NEXT, is_held, take
from pipelines.running.control_links import ControlLinks

logger = logging.getLogger(__name__)
NAME, CONFIG, ENGINES = "keeper", "keeper.fleet.json", "engines.json"
IDLE_S, TURN_S, END_S = 0.2, 0.05, 2.0
MAX_ENGINES_BYTES = 4 << 20


class LeaseKeeper:
    """Waits until the controller is gone, and renews the leases in the ledger until another one takes over.

    Args:
        config: the fleet.
        clock: for everything.
    """

    def __init__(self, config: FleetConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self._config, self._clock = config, clock
        self._folder = state_folder(config)
        self._said = ""

    def run(self, is_over: Callable[[], bool]) -> None:
        """Renew leases until `is_over`, or until the fleet has ended."""
        while not is_over() and (processes_folder(self._config) / CONFIG).exists():
            try:
                was_away = self._keep_while_away(is_over)
            except EngineError as error:  # the ledger cannot be read now
                logger.error("the leases cannot be renewed: %s; trying again", error)
                was_away = False
            if not was_away:
                pause(IDLE_S)

    def _keep_while_away(self, is_over: Callable[[], bool]) -> bool:
        """Renew leases until a controller takes over; return whether there was none."""
        if is_held(self._folder, CONTROLLER) or (lock := take(self._folder, LEASES)) is None:
            return False
        with lock:
            try:
                self._keep(is_over)
            except LedgerError as error:
                if str(error) != self._said:
                    logger.error("the controller is away, and no leases are renewed: %s", error)
                self._said = str(error)
                return False
        self._said = ""
        return True

    def _keep(self, is_over: Callable[[], bool]) -> None:
        ledger, links = open_ledger(self._config), open_links(self._config, self._clock)
        try:
            controller = Controller(ledger, links, self._clock, self._config.options())
            logger.warning("the controller is away: its leases are renewed, and cameras stay where they are")
            known: dict[str, str] = {}
            while not is_over() and not is_held(self._folder, NEXT):  # a controller that starts may take long
                known = self._connect(controller, links, known)
                controller.renew()
                links.wait(TURN_S)
        finally:
            links.close()
            ledger.close()

    def _connect(self, controller: Controller, links: ControlLinks, known: dict[str, str]) -> dict[str, str]:
        found = known or read_engines(self._folder)
        for name, address in found.items():
            if name not in known:
                links.connect(name, address)
                controller.join(Machine(name, 1.0))
        return found


class Keeper:
    """The keeper's process, as the controller sees it.

    Args:
        config: the fleet.
        clock: for the pauses between starts.
    """

    def __init__(self, config: FleetConfig, clock: Clock) -> None:
        self._config, self._folder = config, processes_folder(config)
        self._process = KeptProcess(NAME, self._folder, clock)
        self._is_wanted = not config.options().keeps

    def keep(self) -> None:
        """Start the keeper if it is not running; one with another configuration is replaced."""
        if not self._is_wanted:
            return
        file, text = self._folder / CONFIG, self._configuration()
        if self._process.is_running() and _text_of(file) == text:
            return
        if self._process.is_running():
            self._process.end(END_S)
        elif self._process.pid:
            logger.error("the keeper of leases has ended: %s", self._process.last_words())
            self._process.note_end()
        if self._process.is_due():
            write_privately(file, text)
            self._process.start(["fleet", "keep", str(file)], {})

    def _configuration(self) -> str:
        tree = self._config.model_dump(mode="json", exclude={"cameras", "cameras_in", "engine"})
        return json.dumps({**tree, "state": str(state_folder(self._config))})

    def end(self) -> None:
        """End it."""
        (self._folder / CONFIG).unlink(missing_ok=True)
        self._process.end(END_S)


def write_engines(folder: Path, addresses: dict[str, str]) -> None:
    """Leave the addresses of all engines for the keeper."""
    write_privately(folder / ENGINES, json.dumps(addresses))


def read_engines(folder: Path) -> dict[str, str]:
    """Return what `write_engines` left; empty if there is none."""
    with suppress(OSError, ValueError, AttributeError):
        if (folder / ENGINES).stat().st_size <= MAX_ENGINES_BYTES:
            found: dict[str, Any] = json.loads((folder / ENGINES).read_text(encoding="utf-8"))
            return {str(name): str(address) for name, address in found.items()}
    return {}


def write_privately(file: Path, text: str) -> None:
    """Replace a file of this user in one step."""
    part = file.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    part.replace(file)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
