"""The client's side of the control socket; imports neither the pipeline nor a model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import zmq

from engine.clock import SYSTEM_CLOCK
from engine.errors import ConfigError
from engine.transport.address import checked_address, is_loopback
from engine.transport.connect import curve_options
from engine.transport.zap import token_options
from pipelines.running.control_access import find_run

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

CARD_WAIT_S = 0.05
MAX_REQUEST_BYTES = 256 * 1024
MAX_REPLY_BYTES = 16 * 1024 * 1024


class ConflictError(ConfigError):
    """What the request changes was changed by someone else in the meantime: read it again.

    Attributes:
        epoch: the last epoch of the camera, if a request of a fleet named a lower one.
    """

    def __init__(self, message: str, epoch: int | None = None) -> None:
        super().__init__(message)
        self.epoch = epoch


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
        request: `command` and its arguments.
        timeout_s: how long to wait for the reply.
        server_key: public key of the run, if it encrypts.
        keys: keys of the client; None generates a pair that no list contains.

    Raises:
        ConfigError: there was no answer, or the run refused; the message gives the reason.
    """
    checked_address(address, "control address", to_bind=False)
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        deadline = time.monotonic() + timeout_s
        options = curve_options(server_key, keys) if server_key else _token_options(address, deadline)
        for option, value in options.items():
            socket.setsockopt(option, value)
        try:
            socket.setsockopt(zmq.IPV6, int("[" in address))
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY_BYTES)
            socket.connect(address)
            socket.setsockopt(zmq.RCVTIMEO, max(int(1000 * (deadline - time.monotonic())), 1))
            socket.send(json.dumps(request).encode())
            reply = reply_from(socket.recv_multipart()[0])
        except zmq.ZMQError as error:
            raise ConfigError(
                f"no answer from {address} within {timeout_s} s ({error}): is your run there, started with "
                f"--control {address}? A run of another user or machine needs keys: --server-key and --keys"
            ) from error
    if reply is None:
        raise ConfigError(f"{address} answers with something that is not a reply: is it the control socket of a run?")
    if not reply.get("ok"):
        raise refusal(reply)
    return reply


def refusal(reply: Mapping[str, Any]) -> ConfigError:
    """Return the error that a reply of refusal stands for."""
    message, epoch = str(reply.get("error")), reply.get("epoch")
    if not reply.get("conflict"):
        return ConfigError(message)
    return ConflictError(message, epoch if type(epoch) is int else None)


def reply_from(data: bytes) -> dict[str, Any] | None:
    """Return the reply in a message; None: it is not a JSON object."""
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def _token_options(address: str, deadline: float) -> dict[int, bytes]:
    """Return the proof of identity for a local run of the same user, waiting until the run has written it."""
    if address.startswith("ipc://") or not is_loopback(address):
        return {}
    while not (card := find_run(address)).token and time.monotonic() < deadline:
        SYSTEM_CLOCK.wait(threading.Event(), CARD_WAIT_S)
    return token_options(card.token) if card.token else {}
