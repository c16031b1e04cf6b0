"""Runs a fleet: one loop around the controller, which also answers `framewire fleet status`, `move` and so on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock, pause
from engine.errors import ConfigError, EngineError
from pipelines.fleet.config import FleetConfig
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.scaling import Scaler
from pipelines.fleet.launching.launcher import Ended, Joined
from pipelines.fleet.launching.state import processes_folder, state_folder
from pipelines.fleet.ledger.records import Assignment, LedgerError
from pipelines.fleet.opening import open_launcher, open_ledger, open_links
from pipelines.fleet.running.address import address_of
from pipelines.fleet.running.keeper import Keeper, read_engines, write_engines
from pipelines.fleet.running.locks import LEASES, is_held, take_controller, take_leases
from pipelines.fleet.running.roll import MODEL, Roll
from pipelines.running.control_client import ask
from pipelines.running.control_socket import ControlSocket, given

logger = logging.getLogger(__name__)
TURN_S = 0.05
FAILED_S = 0.5
POLL_S = 0.2
WANT_S = 30.0
ASK_S = 30.0
FIND_S = 15
SOON_S = 2.0
"""For the controller's own thread, which also renews leases."""


class FleetService:
    """A running fleet.

    Args:
        config: the fleet.
        clock: for everything.
        say: tells a person what the start is waiting for.

    Raises:
        ConfigError: another controller has the state folder, or the configuration is invalid.
    """

    def __init__(
        self, config: FleetConfig, clock: Clock = SYSTEM_CLOCK, say: Callable[[str], None] = logger.info
    ) -> None:
        self.config, self._clock, self._say = config, clock, say
        with ExitStack() as opened:
            self._folder, self._keeper = state_folder(config), Keeper(config, clock)
            say(f"fleet {config.name} starts; its state is in {self._folder}")
            opened.enter_context(take_controller(self._folder, clock))
            if config.launcher == "ray":
                say("joining the Ray cluster")
            self.links = open_links(config, clock)
            opened.callback(self.links.close)
            self.launcher = open_launcher(config, clock)
            self._news = self._found_again()
            if is_held(self._folder, LEASES):
                say("waiting for the fleet's keeper, which renews the leases, to hand them over")
            opened.enter_context(take_leases(self._folder, clock, self._keeper.end))
            self.ledger = open_ledger(config)
            opened.callback(self.ledger.close)
            self.controller = Controller(self.ledger, self.links, clock, config.options(), _tell)
            self.controller.configure(config.specs())
            shrink_s = config.ray.shrink_after_s if config.launcher == "ray" else None
            self.scaler = Scaler(self.controller, self.ledger, shrink_s)
            self._model = self.ledger.note(MODEL)
            self.launcher.set_model(self._model)
            self.addresses: dict[str, str] = {}
            self._stream = (
                None if config.collector.collect == "none" else config.collector.publish.replace("//*:", "//127.0.0.1:")
            )
            self.roll = Roll(self.ledger, self._ask_of, self._stream, self._set_model)
            opened.callback(self.roll.close)
            self._polled_ns = self._wanted_ns = 0
            self._said = ""
            commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
                "status": lambda request: self.controller.status() | self.more_status(),
                "plan": lambda request: self.plan(),
                "drain": self._drain,
                "move": self._move,
                "roll": self._roll,
            }
            self.control = ControlSocket(control_address(config), commands)
            opened.callback(self.control.close)
            self._opened = opened.pop_all()

    def _found_again(self) -> list[Joined | Ended]:
        """Wait until the launcher has found the engines that run; until then, the keeper renews their leases."""
        missing, news = set(read_engines(self._folder)), list[Joined | Ended]()
        until_ns = self._clock.monotonic_ns() + FIND_S * NS_PER_S
        if missing and is_held(self._folder, LEASES):
            self._say(f"looking for engines that run already, for {FIND_S} s at most: {', '.join(sorted(missing))}")
        while missing and is_held(self._folder, LEASES) and self._clock.monotonic_ns() < until_ns:
            for each in self.launcher.poll():
                news.append(each)
                if isinstance(each, Ended) or each.address:
                    missing.discard(each.engine_id if isinstance(each, Ended) else each.machine.engine_id)
            pause(TURN_S)
        return news

    def opening_line(self) -> str:
        """Return what runs, where to read it, and where logs are."""
        config = self.config
        read = "" if self._stream is None else f"readers: {config.collector.publish}; "
        return (
            f"fleet {config.name} with {len(config.cameras)} cameras; {read}logs: {processes_folder(config)} "
            "(Ctrl-C ends)"
        )

    def turn(self) -> None:
        """Do what is due, and wait briefly for answers. No failure here ends the fleet."""
        try:
            self._turn()
        except EngineError as error:
            logger.error("%s: the fleet continues and tries again", error)
            pause(FAILED_S)
        except Exception:  # a bug
            logger.exception("a turn of the controller failed; the fleet continues")
            pause(FAILED_S)

    def _turn(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._polled_ns >= POLL_S * NS_PER_S:
            self._polled_ns = now_ns
            self._poll_launcher()
            self._keeper.keep()
        if now_ns - self._wanted_ns >= WANT_S * NS_PER_S and self.controller.has_ledger():
            self._wanted_ns = now_ns
            self._want()
        self.controller.is_calm = self.roll.is_active
        self.controller.turn()
        self._turn_roll()
        self.control.poll()
        self.links.wait(TURN_S)

    def _turn_roll(self) -> None:
        if self.controller.is_gathering() or not self.controller.has_ledger():
            return
        try:
            self.roll.turn(self.controller.live(), self.controller.owners)
        except LedgerError as error:
            self.controller.lose_ledger(error)

    def _set_model(self, model: str | None) -> None:
        self._model = model
        self.launcher.set_model(model)

    def _poll_launcher(self) -> None:
        early, self._news = self._news, []
        for news in [*early, *self.launcher.poll()]:
            if isinstance(news, Joined) and not news.address:
                self.controller.join(news.machine)
            elif isinstance(news, Joined):
                self.addresses[news.machine.engine_id] = news.address
                write_engines(self._folder, self.addresses)
                self.links.connect(news.machine.engine_id, news.address)
                self.controller.join(news.machine, news.process)
            elif news.is_certain:
                self.links.disconnect(news.engine_id)
                self.controller.end(news.engine_id)
            else:
                self.controller.leave(news.engine_id)

    def _want(self) -> None:
        try:
            scale = self.scaler.turn()
            for name in scale.free:
                logger.warning("%s is not needed: given back", name)
                self.launcher.give_back(name)
                self.controller.forget(name)
                self.scaler.gone(name)
        except LedgerError as error:
            self.controller.lose_ledger(error)
            return
        said = self.launcher.want(scale.machines)
        if said and said != self._said and scale.machines != scale.present:
            logger.warning("%s: %s", said, scale.why)
        self._said = said

    def more_status(self) -> dict[str, Any]:
        """Return further facts for `status`."""
        return {"name": self.config.name, "model": self._model, "addresses": self.addresses}

    def plan(self) -> dict[str, Any]:
        """Return how many machines the fleet should have, and why."""
        found = self.controller.desired()
        cameras = self.controller.cameras()
        return {
            "machines": found.machines,
            "present": found.present,
            "load": round(found.load, 3),
            "why": found.why,
            "cores": round(sum(camera["cpu"] for camera in cameras.values()), 2),
            "gpus": round(sum(camera["gpu"] for camera in cameras.values()), 2),
            "unplaced": {name: camera["why"] for name, camera in cameras.items() if camera["state"] == "unplaced"},
        }

    def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        name, undo = given(request, "engine_id", str), request.get("undo") is True
        count = self.controller.drain(name, undo=undo)
        return {
            "done": [f"{name} takes cameras again" if undo else f"{name} is draining; cameras that will move: {count}"]
        }

    def _move(self, request: dict[str, Any]) -> dict[str, Any]:
        source_id, engine_id = given(request, "source_id", str), given(request, "engine_id", str)
        self.controller.move(source_id, engine_id)
        return {"done": [f"{source_id} moves to {engine_id}"]}

    def _roll(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("stop") is True:
            self.roll.stop()
        elif "model" in request:
            self.roll.begin(request, self.controller.canaries(), self._model_of)
        return {"roll": self.roll.status()}

    def _model_of(self, engine_id: str) -> str:
        if engine_id not in self.addresses:
            raise ConfigError(f"{engine_id} has not reported yet: wait a moment")
        status = ask(self.addresses[engine_id], {"command": "status"}, SOON_S, **self.links.keys)
        return str(status["detector"]["model"])

    def _ask_of(self, engine_id: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return a function that sends a request to one engine and waits; for threads other than the controller's."""
        return lambda request: ask(self.addresses[engine_id], request, ASK_S, **self.links.keys)

    def close(self, *, leave: bool = False) -> None:
        """Stop the fleet, or stop only this controller and leave the engines running."""
        if not leave:
            self._keeper.end()
        self.launcher.close(leave=leave)
        self._opened.close()


def control_address(config: FleetConfig) -> str:
    """Return where the controller answers."""
    return address_of(config.name) if config.control == "auto" else config.control


def _tell(assignment: Assignment, why: str) -> None:
    if assignment.engine_id:
        logger.info("%s is on %s, epoch %d (%s)", assignment.source_id, assignment.engine_id, assignment.epoch, why)
