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
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import zmq

from engine.clock import NS_PER_MS, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError, SinkError
from engine.redaction import printable, redact, redact_tree
from engine.transport.address import binding, checked_address, is_loopback
from engine.transport.curve import CurveServer
from engine.transport.guard import SocketGuard
from engine.transport.requests import RequestQueue
from engine.transport.zap import TokenServer, refuse_old_protocols
from pipelines.running.control_access import AUTO, WORKER_VARIABLE, automatic_address, leave_card, new_token
from pipelines.running.control_client import MAX_REQUEST_BYTES, ConflictError

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

logger = logging.getLogger(__name__)
MAX_WAITING = 100
BUSY_NS = 150 * NS_PER_MS
NEXT_MS = 10
MAX_ERROR_CHARS, MAX_PATH_CHARS = 4000, 200
MAX_CLIENTS = 64
REQUEST_ID = "request_id"
"""A client that sends several requests at once numbers them; each reply states the number of its request."""


class Later(Protocol):
    """A reply that is not known yet."""

    def is_over(self) -> bool:
        """Return whether the reply is known."""

    def reply(self) -> dict[str, Any] | None:
        """Return the reply; None: there will be none. Raises `EngineError` like a command."""


Command = Callable[[dict[str, Any]], "dict[str, Any] | Later"]


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
        self._laters: deque[tuple[bytes, Any, Later]] = deque()
        try:
            self.address = self._bind(address)
            if self.address != os.environ.get(WORKER_VARIABLE):
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
        self._send_laters()
        for _ in range(MAX_WAITING):
            self._requests.take()
            request = self._requests.next()
            if request is None:
                return
            client, *parts = request
            self._answer_parts(client, parts)
            if SYSTEM_CLOCK.monotonic_ns() >= until_ns:
                return
            if not self._requests:  # clients often ask again, as when assigning many cameras
                self._socket.poll(NEXT_MS)

    def _answer_parts(self, client: bytes, parts: list[bytes]) -> None:
        """Answer a request in REQ framing: an empty delimiter, then one part."""
        if len(parts) != 2 or parts[0]:
            found = f"expected a request of one part, sent by a REQ socket; found {len(parts)} parts"
            self._reply(client, None, {"ok": False, "error": found})
            return
        number, reply = self._carried_out(parts[1])
        if isinstance(reply, dict):
            self._reply(client, number, reply)
        else:
            self._laters.append((client, number, reply))

    @property
    def is_waiting(self) -> bool:
        """Whether some replies are not known yet."""
        return bool(self._laters)

    def _send_laters(self) -> None:
        """Send the replies that are known by now, in the order of their requests."""
        while self._laters and self._laters[0][2].is_over():
            client, number, later = self._laters.popleft()
            reply = _explained(later.reply)
            if isinstance(reply, dict):
                self._reply(client, number, reply)

    def _reply(self, client: bytes, number: Any, reply: dict[str, Any]) -> None:
        numbered = reply if number is None else {**reply, REQUEST_ID: number}
        try:
            self._socket.send_multipart([client, b"", json.dumps(numbered).encode()], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # the client has gone, or does not read its replies
            logger.debug("a reply on the control socket was not sent: %s", error)

    def answer(self, request: bytes) -> dict[str, Any]:
        """Return the reply to one request: `{"ok": true, ...}` or `{"ok": false, "error": ...}`."""
        _, reply = self._carried_out(request)
        return reply if isinstance(reply, dict) else {"ok": False, "error": "the reply is not known yet"}

    def _carried_out(self, request: bytes) -> tuple[Any, dict[str, Any] | Later]:
        """Carry out a request, and return its number and the reply."""
        number: list[Any] = [None]

        def carry_out() -> dict[str, Any] | Later:
            asked = json.loads(request)
            if not isinstance(asked, dict):
                raise ConfigError("a request is a JSON object with a command")
            given_number = asked.get(REQUEST_ID)
            number[0] = given_number if isinstance(given_number, int) else None
            command = self._commands.get(str(asked.get("command")))
            if command is None:
                raise ConfigError(
                    f"unknown command {asked.get('command')!r}; expected one of: {', '.join(self._commands)}"
                )
            return command(asked)

        reply = _explained(carry_out)
        assert reply is not None
        return number[0], reply

    def close(self) -> None:
        """Close the socket; safe to call again."""
        self._guard.close()
        self._socket.close()
        if self._access is not None:
            self._access.close()
        self._context.term()
        if self._card is not None:
            self._card.unlink(missing_ok=True)


def _explained(
    carry_out: Callable[[], dict[str, Any] | Later | None],
) -> dict[str, Any] | Later | None:
    """Return the reply to a request, an error reply if it fails; a pending reply and None are returned unchanged."""
    try:
        done = carry_out()
        return redact_tree({"ok": True, **done}) if isinstance(done, dict) else done
    except (EngineError, ValueError, RecursionError) as error:
        reply: dict[str, Any] = {"ok": False, "error": shown(str(error))}
        if isinstance(error, ConflictError):
            reply |= {"conflict": True} | ({} if error.epoch is None else {"epoch": error.epoch})
        return reply
    except OSError as error:  # a name that is too long, a full disk
        place = "" if error.filename is None else f"{str(error.filename)[:MAX_PATH_CHARS]}: "
        return {"ok": False, "error": shown(f"{place}{error.strerror or error}")}
    except Exception as error:  # a bug: one request must not end the run
        logger.exception("a request on the control socket failed")
        return {"ok": False, "error": shown(f"{type(error).__name__}: {error}") + " (the log of the run has more)"}


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
