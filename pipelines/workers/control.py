"""One control socket for several workers: each request goes to the worker it concerns."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from pipelines.running.control_client import ask
from pipelines.running.control_socket import Command, ControlSocket, done_with, given
from pipelines.running.places import kept_facts, person

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair
    from pipelines.build.edits import EditsFile
    from pipelines.workers.assignments import WorkersAssignments

ASK_S = 30.0
WORKERS_S = 0.1
OF_SOURCE = re.compile(r"sources\.(\d{1,9})\.(.+)")
Request = dict[str, Any]


class WorkersControl(ControlSocket):
    """Answers `framewire ctl` for all workers as one engine would.

    Args:
        address: as for `ControlSocket`.
        workers: control addresses of the running workers.
        stop: ends the run.
        keys: as for `ControlSocket`.
        allowed_keys: likewise.
        edits: stores changed zones and lines; None: they end with the run.
        assignments: of a fleet; None: no fleet assigns sources to this run.
    """

    def __init__(
        self,
        address: str,
        workers: Callable[[], Sequence[str]],
        stop: Callable[[], None],
        *,
        assignments: WorkersAssignments | None = None,
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
        edits: EditsFile | None = None,
    ) -> None:
        self._workers, self._stop_all, self._edits = workers, stop, edits
        self._assignments = assignments
        commands: dict[str, Command] = {
            "status": self._status,
            "add": self._add,
            "set": self._set,
            "places": self._places,
            "set_places": self._set_places,
            "rules": self._rules,
            "set_rules": self._set_rules,
            "recordings": self._recordings,
            "stop": self._stop,
            "remove": self._remove,
            **dict.fromkeys(("pause", "resume", "snooze"), self._of_source),
            **(assignments.commands if assignments is not None else {}),
        }
        super().__init__(address, commands, keys=keys, allowed_keys=allowed_keys)

    def poll(self) -> None:
        """Answer waiting requests, and those that workers have answered by now; never blocks for long."""
        super().poll()
        until = time.monotonic() + WORKERS_S
        while self._assignments is not None and self.is_waiting and time.monotonic() < until:
            self._assignments.pump(WORKERS_S / 10)
            super().poll()

    def close(self) -> None:
        """Close the socket; safe to call again."""
        super().close()
        if self._assignments is not None:
            self._assignments.close()

    def _all(self, request: Request) -> list[dict[str, Any]]:
        return [_plain(ask(address, request, ASK_S)) for address in self._workers()]

    def _status(self, request: Request) -> dict[str, Any]:
        replies = self._all(request)
        whole = {**replies[0]} if replies else {}
        for reply in replies[1:]:
            for key, value in reply.items():
                whole[key] = _both(whole.get(key), value)
        if self._assignments is not None:
            whole["incarnation"] = self._assignments.incarnation
        whole["models"] = _models(replies)
        whole["wall_s"] = max((reply.get("wall_s", 0.0) for reply in replies), default=0.0)
        return {**whole, "workers": len(replies)}

    def _owners(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the worker of each source of the run, and that of each source that was removed."""
        here: dict[str, str] = {}
        gone: dict[str, str] = {}
        for address in self._workers():
            status = ask(address, {"command": "status"}, ASK_S)
            here |= dict.fromkeys(status.get("configured", ()), address)
            gone |= dict.fromkeys(status.get("sources", ()), address)
        return here, {name: address for name, address in gone.items() if name not in here}

    def _of_source(self, request: Request) -> dict[str, Any]:
        """Pass a request on to the worker that has its source."""
        name, (owners, _) = given(request, "source_id", str), self._owners()
        if name not in owners:
            raise ConfigError(f"there is no source {name}; expected one of: {', '.join(owners) or 'none'}")
        return _plain(ask(owners[name], request, ASK_S))

    def _add(self, request: Request) -> dict[str, Any]:
        """Pass a source to the worker that had one of this name before, or else to the one with the fewest.

        So a camera that is added again waits for its last frames, and the run never has two of one name.
        """
        source, (owners, gone) = given(request, "source", dict), self._owners()
        name = source.get("source_id")
        if name in owners:
            raise ConfigError(f"there is already a source {name}: choose another name")
        counts = {address: list(owners.values()).count(address) for address in self._workers()}
        if not counts:
            raise ConfigError("no worker is running any longer")
        chosen = gone.get(str(name)) or min(counts, key=lambda address: counts[address])
        done = _plain(ask(chosen, request, ASK_S))
        self._note_own(name, is_there=True)
        return done

    def _remove(self, request: Request) -> dict[str, Any]:
        done = self._of_source(request)
        self._note_own(request["source_id"], is_there=False)
        return done

    def _note_own(self, name: object, *, is_there: bool) -> None:
        if self._assignments is not None and isinstance(name, str):
            self._assignments.note_own(name, is_there=is_there)

    def _set(self, request: Request) -> dict[str, Any]:
        """Set a key of one source in its worker, or another one in all workers.

        If one of them refuses, the reply says so, and the others keep the new value.
        """
        if "source_id" in request:
            return self._of_source(request)
        key = str(request.get("key"))
        if (found := OF_SOURCE.fullmatch(key)) is not None:
            number, configured = int(found[1]), self._status({"command": "status"})["configured"]
            if number >= len(configured):
                raise ConfigError(f"{key}: {number} is not an index into a list of {len(configured)}: count from 0")
            return self._of_source({**request, "source_id": configured[number], "key": found[2]})
        replies = self._all(request)
        return done_with(list(dict.fromkeys(line for reply in replies for line in reply.get("done", []))))

    def _set_places(self, request: Request) -> dict[str, Any]:
        """Change the places of a source, and store them for the next run of all workers."""
        done = self._of_source(request)
        problem = ""
        if self._edits is not None:
            zones, lines = given(request, "zones", dict), given(request, "lines", dict)
            problem = self._edits.keep_places(request["source_id"], zones, lines, person(request))
        return {**done, "kept": kept_facts(self._edits, problem)}

    def _rules(self, request: Request) -> dict[str, Any]:
        """Return the rules, which all workers share."""
        replies = self._all(request)
        classes = sorted({name for reply in replies for name in reply["classes"]})
        return {**(replies[0] if replies else {}), "classes": classes, "kept": kept_facts(self._edits)}

    def _set_rules(self, request: Request) -> dict[str, Any]:
        raise ConfigError("rules cannot change while several workers run (pipeline.workers): edit the configuration")

    def _recordings(self, request: Request) -> dict[str, Any]:
        return {"folders": {name: folder for reply in self._all(request) for name, folder in reply["folders"].items()}}

    def _places(self, request: Request) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for reply in self._all(request):
            for key, value in reply.items():
                mine = whole.get(key)
                whole[key] = {**mine, **value} if isinstance(mine, dict) and isinstance(value, dict) else value
        return {**whole, "kept": kept_facts(self._edits)}

    def _stop(self, request: Request) -> dict[str, Any]:
        self._stop_all()
        return done_with(["stopping"])


def _plain(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in reply.items() if key != "ok"}


def _both(one: Any, other: Any) -> Any:
    """Return the facts of two workers as those of one engine."""
    if isinstance(one, list) and isinstance(other, list):
        return list(dict.fromkeys([*one, *other]))
    return {**one, **other} if isinstance(one, dict) and isinstance(other, dict) else one or other


def _models(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the models of all workers; those with the same name are combined."""
    found: dict[str, Any] = {}
    for reply in replies:
        for name, facts in reply.get("models", {}).items():
            mine = found.setdefault(name, dict(facts))
            if mine is not facts and mine != facts:
                mine["detected"] = mine.get("detected", 0) + facts.get("detected", 0)
    return found
