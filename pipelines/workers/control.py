"""One control socket for several workers: each request goes to whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from pipelines.running.control import Command, ControlSocket, done_with, given
from pipelines.running.control_client import ask

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

ASK_S = 30.0
Request = dict[str, Any]


class WorkersControl(ControlSocket):
    """Answers `framewire ctl` for all workers as one engine would.

    Args:
        address: as for `ControlSocket`.
        workers: control addresses of the workers that run.
        stop: ends the run.
        keys: as for `ControlSocket`.
        allowed_keys: likewise.
    """

    def __init__(
        self,
        address: str,
        workers: Callable[[], Sequence[str]],
        stop: Callable[[], None],
        *,
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
    ) -> None:
        self._workers, self._stop_all = workers, stop
        commands: dict[str, Command] = {
            "status": self._status,
            "add": self._add,
            "set": self._set,
            "places": self._places,
            "stop": self._stop,
            **dict.fromkeys(("remove", "pause", "resume", "snooze", "set_places"), self._of_source),
        }
        super().__init__(address, commands, keys=keys, allowed_keys=allowed_keys)

    def _all(self, request: Request) -> list[dict[str, Any]]:
        return [_plain(ask(address, request, ASK_S)) for address in self._workers()]

    def _status(self, request: Request) -> dict[str, Any]:
        replies = self._all(request)
        whole = {**replies[0]} if replies else {}
        for reply in replies[1:]:
            for key, value in reply.items():
                mine = whole.get(key)
                whole[key] = {**mine, **value} if isinstance(mine, dict) and isinstance(value, dict) else mine or value
        whole["models"] = _models(replies)
        whole["wall_s"] = max((reply.get("wall_s", 0.0) for reply in replies), default=0.0)
        return {**whole, "workers": len(replies)}

    def _sources(self) -> dict[str, str]:
        """Return the worker of each source."""
        return {
            name: address
            for address in self._workers()
            for name in ask(address, {"command": "status"}, ASK_S).get("sources", {})
        }

    def _of_source(self, request: Request) -> dict[str, Any]:
        """Pass a request on to the worker that has its source."""
        name, owners = given(request, "source_id", str), self._sources()
        if name not in owners:
            raise ConfigError(f"no source is called {name}: the run has {', '.join(owners) or 'none'}")
        return _plain(ask(owners[name], request, ASK_S))

    def _add(self, request: Request) -> dict[str, Any]:
        """Pass a new source to the worker with the fewest; its name must be new to all."""
        source, owners = given(request, "source", dict), self._sources()
        name = source.get("source_id")
        if name in owners:
            raise ConfigError(f"there is already a source {name}: choose another name")
        counts = {address: list(owners.values()).count(address) for address in self._workers()}
        if not counts:
            raise ConfigError("no worker runs any more")
        return _plain(ask(min(counts, key=lambda address: counts[address]), request, ASK_S))

    def _set(self, request: Request) -> dict[str, Any]:
        """Set a key in all workers; where one refuses, the reply says so, and the others keep the new value."""
        replies = self._all(request)
        return done_with(list(dict.fromkeys(line for reply in replies for line in reply.get("done", []))))

    def _places(self, request: Request) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for reply in self._all(request):
            for key, value in reply.items():
                mine = whole.get(key)
                whole[key] = {**mine, **value} if isinstance(mine, dict) and isinstance(value, dict) else value
        return whole

    def _stop(self, request: Request) -> dict[str, Any]:
        self._stop_all()
        return done_with(["stopping"])


def _plain(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in reply.items() if key != "ok"}


def _models(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the models of all workers; those of one name count together."""
    found: dict[str, Any] = {}
    for reply in replies:
        for name, facts in reply.get("models", {}).items():
            mine = found.setdefault(name, dict(facts))
            if mine is not facts and mine != facts:
                mine["detected"] = mine.get("detected", 0) + facts.get("detected", 0)
    return found
