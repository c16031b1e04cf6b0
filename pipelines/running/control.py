"""The control socket: `framewire ctl` asks, a run answers. JSON over ZeroMQ; beyond this machine with CURVE.

Clients use REQ. The run uses ROUTER, which has no state that a malformed message could disturb.

The socket belongs to the thread that runs the pipeline, which answers between two refreshes of its display.
What arrives is hostile until proven otherwise: sizes are limited, and every mistake is answered with an error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import zmq

from engine.errors import ConfigError, EngineError, SinkError
from engine.flow.pipeline import Pipeline
from engine.redaction import printable, redact, redact_tree
from engine.transport.connect import curve_options
from engine.transport.curve import CurveServer
from pipelines.running.detect_and_publish import model_facts
from pipelines.running.reconfigure import Reconfigurer

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

logger = logging.getLogger(__name__)
MAX_REQUEST_BYTES = 64 * 1024
MAX_WAITING = 100
MAX_ERROR_CHARS = 4000
LOCAL = ("tcp://127.0.0.1:", "tcp://localhost:", "tcp://[::1]:", "ipc://")
THRESHOLDS = {"score_threshold", "iou_threshold", "classes"}
Command = Callable[[dict[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers requests about one run.

    Args:
        address: where to bind; one that other machines can reach needs both kinds of keys.
        pipeline: the run.
        changes: applies changes to it.
        keys: of this run: encrypt with CURVE.
        allowed_keys: public keys of those who may control; None lets in all who know the public key of this run.
        more_status: what else `status` is to tell.

    Raises:
        ConfigError: other machines could control the run without a key that is listed.
        SinkError: it cannot be bound.
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
    ) -> None:
        check_reach(address, has_keys=keys is not None and allowed_keys is not None)
        if allowed_keys is not None and keys is None:
            raise ConfigError("control.allowed_keys without control.keys: give the key pair of this run")
        self._more_status = more_status
        self._pipeline, self._changes = pipeline, changes
        self._commands: dict[str, Command] = {
            "status": self._status,
            "add": lambda r: _done(changes.add(_given(r, "source", dict))),
            "remove": lambda r: _done(changes.remove(_given(r, "source_id", str))),
            "pause": lambda r: self._pause(r, paused=True),
            "resume": lambda r: self._pause(r, paused=False),
            "set": lambda r: _done(changes.set(_given(r, "key", str), r.get("value"))),
            "stop": self._stop,
        }
        self._context = zmq.Context()
        self._curve = None if keys is None else CurveServer(keys, allowed_keys)
        if self._curve is not None:
            self._curve.open(self._context)
        self._socket = self._context.socket(zmq.ROUTER)
        if self._curve is not None:
            self._curve.secure(self._socket)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, MAX_WAITING)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise SinkError(f"control socket {address} cannot be bound ({error}): choose another address") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def poll(self) -> None:
        """Answer what is waiting; never waits itself."""
        if self._curve is not None:
            self._curve.service()
        for _ in range(MAX_WAITING):
            try:
                client, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._reply(client, json.dumps(self._answer_parts(parts)).encode())

    def _answer_parts(self, parts: list[bytes]) -> dict[str, Any]:
        """Answer a request as REQ frames it: an empty delimiter, then one part."""
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
                raise ConfigError(f"unknown command {asked.get('command')!r}: known are {', '.join(self._commands)}")
            done: dict[str, Any] = redact_tree({"ok": True, **command(asked)})
            return done
        except (EngineError, ValueError, RecursionError) as error:
            return {"ok": False, "error": shown(str(error))}
        except Exception as error:  # a mistake of ours: one request must not end the run
            logger.exception("a request on the control socket failed")
            return {"ok": False, "error": shown(f"{type(error).__name__}: {error}") + " (the log of the run has more)"}

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self._socket.close()
        if self._curve is not None:
            self._curve.close()
        self._context.term()

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
            }
            for s in self._pipeline.stats.snapshot()
        }
        config, facts = self._changes.config, model_facts(self._pipeline)
        for name, model in facts["models"].items():
            if name in config.models:
                model |= config.models[name].model_dump(include=THRESHOLDS)
        return {
            "sources": sources,
            "detector": config.detector.model_dump(include={"model", *THRESHOLDS}),
            "model": facts["model"],
            "models": facts["models"],
            "wall_s": round(self._pipeline.wall_s, 1),
            **self._more_status(),
        }

    def _pause(self, request: dict[str, Any], *, paused: bool) -> dict[str, Any]:
        source_id = _given(request, "source_id", str)
        self._pipeline.pause_source(source_id, paused=paused)
        return _done([f"{'paused' if paused else 'resumed'} {source_id}"])

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._pipeline.finish()
        return _done(["stopping"])


def ask(
    address: str,
    request: dict[str, Any],
    timeout_s: float = 5.0,
    *,
    server_key: str | None = None,
    keys: KeyPair | None = None,
) -> dict[str, Any]:
    """Send one request to a running engine and return its reply.

    Args:
        address: of its control socket.
        request: `command` and what belongs to it.
        timeout_s: how long to wait for the reply.
        server_key: public key of a run that encrypts.
        keys: of the one who asks; None makes some, which no list has.

    Raises:
        ConfigError: nobody answered, or the run refused; the reason is the message.
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(timeout_s * 1000))
        for option, value in (curve_options(server_key, keys) if server_key else {}).items():
            socket.setsockopt(option, value)
        try:
            socket.connect(address)
            socket.send(json.dumps(request).encode())
            reply: dict[str, Any] = json.loads(socket.recv())
        except zmq.ZMQError as error:
            raise ConfigError(
                f"no answer from {address} within {timeout_s} s ({error}): is a run there with --control {address}, "
                "and, if it has keys, is its public key given with --server-key and yours on its list?"
            ) from error
    if not reply.get("ok"):
        raise ConfigError(str(reply.get("error")))
    return reply


def check_reach(address: str, *, has_keys: bool = False) -> None:
    """Raise `ConfigError` if other machines could control a run without keys: who controls it can read its cameras."""
    if not has_keys and not address.startswith(LOCAL):
        raise ConfigError(
            f"control address {address} is open to other machines: use tcp://127.0.0.1:5556 or ipc://path, "
            "or give control.keys and control.allowed_keys (framewire keys)"
        )


def shown(text: str) -> str:
    """Return a message as an answer holds it: without secrets, and short."""
    return printable(redact(text), MAX_ERROR_CHARS)


def _given(request: dict[str, Any], key: str, kind: type) -> Any:
    value = request.get(key)
    if not isinstance(value, kind):
        raise ConfigError(f"{request.get('command')} needs {key}, a {kind.__name__}: found {value!r}")
    return value


def _done(lines: list[str]) -> dict[str, Any]:
    return {"done": lines}
