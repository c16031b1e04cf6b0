"""The control socket: a run answers requests of `framewire ctl`. JSON over ZeroMQ.

Only its own user may control a run: through a socket file of mode 0600, over loopback TCP with a token from a file that
only this user can read, and from other machines with CURVE and a list of keys.

Clients use REQ. The run uses ROUTER, which has no state that a malformed message could disturb.

The socket belongs to the thread that runs the pipeline, which answers between two refreshes of its display.
Input is hostile until checked: sizes are limited, and every mistake gets an error reply.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from engine.clock import NS_PER_MS, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError, SinkError
from engine.flow.pipeline import Pipeline
from engine.redaction import printable, redact, redact_tree
from engine.stats import SourceSnapshot
from engine.transport.address import binding, checked_address, is_loopback
from engine.transport.curve import CurveServer
from engine.transport.guard import SocketGuard
from engine.transport.requests import RequestQueue
from engine.transport.zap import TokenServer, refuse_old_protocols
from pipelines.build.edits import EditsFile
from pipelines.running.assignments import Assignments
from pipelines.running.control_access import AUTO, automatic_address, leave_card, new_token
from pipelines.running.control_client import MAX_REQUEST_BYTES, ConflictError
from pipelines.running.control_client import ask as ask
from pipelines.running.detect_and_publish import model_facts, recording_folders
from pipelines.running.places import change_places, places_of
from pipelines.running.reconfigure import Reconfigurer
from pipelines.running.rules import change_rules, rules_of
from pipelines.running.shared_totals import shared_totals
from pipelines.running.snoozing import snooze

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

logger = logging.getLogger(__name__)
MAX_WAITING = 100
BUSY_NS = 150 * NS_PER_MS
NEXT_MS = 10
MAX_ERROR_CHARS = 4000
MAX_CLIENTS = 64
MAX_ENDED = 100
THRESHOLDS = {"score_threshold", "iou_threshold", "classes"}
Command = Callable[[dict[str, Any]], dict[str, Any]]


class ControlSocket:
    """Answers the requests of clients that may control a run.

    Args:
        address: where to bind; `auto` means a socket file in the runtime directory, and an address that other machines
            can reach requires both kinds of keys.
        commands: maps the command of a request to its handler.
        keys: keys of this run; they encrypt with CURVE.
        allowed_keys: public keys of the clients that may control the run.

    Raises:
        ConfigError: other machines could control the run without a listed key.
        SinkError: the socket cannot be bound.
    """

    def __init__(
        self,
        address: str,
        commands: Mapping[str, Command],
        *,
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
    ) -> None:
        address = automatic_address() if address == AUTO else checked_address(address, "control address")
        has_lists = keys is not None and allowed_keys is not None
        check_reach(address, has_keys=has_lists)
        if (keys is None) != (allowed_keys is None):
            raise ConfigError("control.keys and control.allowed_keys belong together: give both, or neither")
        self._commands = commands
        self._context = zmq.Context()
        token = "" if has_lists or address.startswith("ipc://") else new_token()
        self._access = _access(keys, allowed_keys, token)
        self._guard = SocketGuard()
        self._card: Path | None = None
        self._socket = self._context.socket(zmq.ROUTER)
        self._requests = RequestQueue(self._socket, self._guard, "control")
        try:
            self.address = self._bind(address)
            self._card = leave_card(self.address, token)
        except (EngineError, OSError):
            self.close()
            raise

    def _bind(self, address: str) -> str:
        if self._access is None:
            refuse_old_protocols(self._socket)
        else:
            self._access.open(self._context)
            self._access.secure(self._socket)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, MAX_WAITING)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._guard.watch(self._context, self._socket, "control", limit=MAX_CLIENTS, allowance=4 * MAX_REQUEST_BYTES)
        try:
            with binding(address, private=True):
                self._socket.bind(address)
        except zmq.ZMQError as error:
            raise SinkError(f"control socket {address} cannot be bound ({error}): choose another address") from error
        self._guard.start()
        return str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def poll(self) -> None:
        """Answer waiting requests; never blocks for long."""
        if self._access is not None:
            self._access.service()
        until_ns = SYSTEM_CLOCK.monotonic_ns() + BUSY_NS
        for _ in range(MAX_WAITING):
            self._requests.take()
            request = self._requests.next()
            if request is None:
                return
            client, *parts = request
            self._reply(client, json.dumps(self._answer_parts(parts)).encode())
            if SYSTEM_CLOCK.monotonic_ns() >= until_ns:
                return
            if not self._requests:  # clients often ask again, as when assigning many cameras
                self._socket.poll(NEXT_MS)

    def _answer_parts(self, parts: list[bytes]) -> dict[str, Any]:
        """Answer a request in REQ framing: an empty delimiter, then one part."""
        if len(parts) == 2 and not parts[0]:
            return self.answer(parts[1])
        return {"ok": False, "error": f"expected a request of one part, sent by a REQ socket; found {len(parts)} parts"}

    def _reply(self, client: bytes, reply: bytes) -> None:
        try:
            self._socket.send_multipart([client, b"", reply], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # the client has gone, or does not read its replies
            logger.debug("a reply on the control socket was not sent: %s", error)

    def answer(self, request: bytes) -> dict[str, Any]:
        """Return the reply to one request: `{"ok": true, ...}` or `{"ok": false, "error": ...}`."""
        try:
            asked = json.loads(request)
            if not isinstance(asked, dict):
                raise ConfigError("a request is a JSON object with a command")
            command = self._commands.get(str(asked.get("command")))
            if command is None:
                raise ConfigError(
                    f"unknown command {asked.get('command')!r}; expected one of: {', '.join(self._commands)}"
                )
            done: dict[str, Any] = redact_tree({"ok": True, **command(asked)})
            return done
        except (EngineError, ValueError, RecursionError) as error:
            conflict = {"conflict": True} if isinstance(error, ConflictError) else {}
            return {"ok": False, "error": shown(str(error)), **conflict}
        except Exception as error:  # a bug: one request must not end the run
            logger.exception("a request on the control socket failed")
            return {"ok": False, "error": shown(f"{type(error).__name__}: {error}") + " (the log of the run has more)"}

    def close(self) -> None:
        """Close the socket; safe to call again."""
        self._guard.close()
        self._socket.close()
        if self._access is not None:
            self._access.close()
        self._context.term()
        if self._card is not None:
            self._card.unlink(missing_ok=True)


class ControlServer(ControlSocket):
    """Answers requests about one run.

    Args:
        address: as for `ControlSocket`.
        pipeline: the run.
        changes: applies changes to it.
        keys: as for `ControlSocket`.
        allowed_keys: likewise.
        more_status: returns further facts for `status`.
        more_commands: further commands and their replies.
        edits: stores changed zones, lines and rules; None: they end with the run.

    Raises:
        ConfigError: other machines could control the run without a listed key.
        SinkError: the socket cannot be bound.
    """

    def __init__(
        self,
        address: str,
        pipeline: Pipeline,
        changes: Reconfigurer,
        *,
        keys: KeyPair | None = None,
        allowed_keys: Collection[str] | None = None,
        more_status: Callable[[], dict[str, Any]] = dict,
        more_commands: Mapping[str, Command] | None = None,
        edits: EditsFile | None = None,
    ) -> None:
        self._more_status = more_status
        self._pipeline, self._changes = pipeline, changes
        totals = shared_totals(pipeline, changes.config)
        self._assignments = Assignments(pipeline, changes, str if totals is None else totals.begin)
        commands: dict[str, Command] = {
            "status": self._status,
            "add": self._add,
            "remove": self._remove,
            "pause": lambda r: self._pause(r, paused=True),
            "resume": lambda r: self._pause(r, paused=False),
            "snooze": self._snooze,
            "set": lambda r: done_with(changes.set(given(r, "key", str), r.get("value"))),
            "places": lambda r: places_of(pipeline, changes.config, edits),
            "set_places": lambda r: change_places(pipeline, changes, r, edits),
            "rules": lambda r: rules_of(pipeline, changes.config, edits),
            "set_rules": lambda r: change_rules(changes, r, edits),
            "recordings": lambda r: {"folders": recording_folders(pipeline)},
            "stop": self._stop,
            **self._assignments.commands,
            **(more_commands or {}),
        }
        super().__init__(address, commands, keys=keys, allowed_keys=allowed_keys)

    def poll(self) -> None:
        """Stop sources whose lease has expired, then answer waiting requests."""
        self._assignments.poll()
        super().poll()

    def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        source = given(request, "source", dict)
        done = self._changes.add(source)
        self._pipeline.leases.disown(str(source.get("source_id")))
        return done_with(done)

    def _remove(self, request: dict[str, Any]) -> dict[str, Any]:
        source_id = given(request, "source_id", str)
        self._assignments.check_free(source_id)
        return done_with(self._changes.remove(source_id))

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        paused = self._pipeline.paused_sources
        sources = {
            s.source_id: {
                "state": s.state,
                "model": self._pipeline.model_of(s.source_id),
                "paused": s.source_id in paused,
                "reason": s.reason,
                "captured": s.captured,
                "published": s.published,
                "dropped": dict(s.dropped),
                "reconnects": s.reconnects,
                "fps": s.fps,
                "latency_ms": dict(s.latency_ms),
                **self._assignments.facts_of(s.source_id),
            }
            for s in self._present()
        }
        config, facts = self._changes.config, model_facts(self._pipeline, self._pipeline.stats.snapshot())
        for name, model in facts["models"].items():
            if name in config.models:
                model |= config.models[name].model_dump(include=THRESHOLDS)
        return {
            "sources": sources,
            "configured": [str(source.source_id) for source in config.sources],
            "detector": config.detector.model_dump(include={"model", *THRESHOLDS}),
            "model": facts["model"],
            "models": facts["models"],
            "wall_s": round(self._pipeline.wall_s, 1),
            **self._assignments.facts(),
            **self._more_status(),
        }

    def _present(self) -> list[SourceSnapshot]:
        """Return the configured sources and those that ended most recently; the summary lists all."""
        configured = {source.source_id for source in self._changes.config.sources}
        known = self._pipeline.stats.snapshot().sources
        gone = [s.source_id for s in known if s.state == "ended" and s.source_id not in configured]
        old = set(gone[: max(len(gone) - MAX_ENDED, 0)])
        return [s for s in known if s.source_id not in old]

    def _pause(self, request: dict[str, Any], *, paused: bool) -> dict[str, Any]:
        source_id = given(request, "source_id", str)
        self._pipeline.pause_source(source_id, paused=paused)
        return done_with([f"{'paused' if paused else 'resumed'} {source_id}"])

    def _snooze(self, request: dict[str, Any]) -> dict[str, Any]:
        for_s = request.get("for_s")
        if isinstance(for_s, bool) or not isinstance(for_s, int | float):
            raise ConfigError(f"snooze: for_s is {for_s!r}: expected a number of seconds, 0 to end it")
        return done_with([snooze(self._pipeline, given(request, "source_id", str), for_s)])

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._pipeline.finish()
        return done_with(["stopping"])


def check_reach(address: str, *, has_keys: bool = False) -> None:
    """Raise `ConfigError` if other machines could control a run without keys, which would expose its cameras."""
    if address.startswith("ipc://@"):
        raise ConfigError(f"control address {address} is open to all users of this machine: give the path of a file")
    if not has_keys and not (address.startswith(("tcp://", "ipc://")) and is_loopback(address)):
        raise ConfigError(
            f"control address {address} is open to other machines: use tcp://127.0.0.1:5556 or ipc://path, "
            "or give control.keys and control.allowed_keys (framewire keys)"
        )


def _access(keys: KeyPair | None, allowed_keys: Collection[str] | None, token: str) -> CurveServer | TokenServer | None:
    """Return the access control of connections; None if the mode of the socket file protects them."""
    if keys is not None:
        return CurveServer(keys, allowed_keys)
    return TokenServer(token) if token else None


def shown(text: str) -> str:
    """Return a message for a reply: without secrets, and short."""
    return printable(redact(text), MAX_ERROR_CHARS)


def given(request: dict[str, Any], key: str, kind: type) -> Any:
    """Return a field of a request. Raises `ConfigError` if it is missing or of the wrong kind."""
    value = request.get(key)
    if not isinstance(value, kind):
        raise ConfigError(f"{request.get('command')} needs {key}, a {kind.__name__}: found {value!r}")
    return value


def done_with(lines: list[str]) -> dict[str, Any]:
    """Return the reply that states what was done."""
    return {"done": lines}
