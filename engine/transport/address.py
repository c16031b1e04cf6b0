"""Checks the addresses of sockets, because libzmq accepts invalid ones without an error.

It wraps a port above 65535, and binding `ipc://` removes whatever is at the path, even a user's file or the socket
of another engine.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from engine.errors import ConfigError, SinkError

MAX_PORT = 65535
MAX_IPC_BYTES = 107  # sun_path, including the terminating zero
CONNECT_S = 0.5
_PRIVATE = 0o177


def checked_address(address: str, what: str, *, to_bind: bool = True) -> str:
    """Return the address if its form is valid.

    Args:
        address: `tcp://host:port`, `tcp://[::1]:port` or `ipc://path`.
        what: start of the message: `publish address`.
        to_bind: whether `*` may stand for a free port and for every network.

    Raises:
        ConfigError: it can never work.

    >>> checked_address("tcp://127.0.0.1:5555", "publish address")
    'tcp://127.0.0.1:5555'
    """
    transport, sign, rest = address.partition("://")
    if sign and transport == "ipc" and rest and "\0" not in rest:
        if len(os.fsencode(rest)) > MAX_IPC_BYTES:
            raise ConfigError(f"{what} {address!r} is longer than {MAX_IPC_BYTES} bytes: choose a shorter path")
        return address
    host, _, port = rest.rpartition(":")
    if sign and transport == "tcp" and host and not host.isspace() and _is_port(port, to_bind=to_bind):
        return address
    verb = "bound" if to_bind else "used"
    raise ConfigError(
        f"{what} {address!r} cannot be {verb}: give tcp://127.0.0.1:5555 (ports are 1 to {MAX_PORT}) or ipc://path"
    )


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach a bound address.

    >>> is_loopback("tcp://127.0.0.1:5555"), is_loopback("tcp://*:5555"), is_loopback("ipc:///tmp/x")
    (True, False, True)
    """
    transport, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if transport != "tcp":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "lo")


@contextmanager
def binding(address: str, *, private: bool = False) -> Iterator[None]:
    """Guard the bind of an address, so that it replaces nothing foreign at an `ipc://` path.

    Args:
        address: a checked address.
        private: whether an `ipc://` socket is open to this user only (mode 0600).

    Raises:
        SinkError: a file, or the socket of a running program, is at the path.
    """
    path = _path_of(address)
    if path is None:
        yield
        return
    _check_free(path, address)
    before = os.umask(_PRIVATE) if private else None  # gives the socket its mode from the start
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)


def _is_port(port: str, *, to_bind: bool) -> bool:
    if port == "*":
        return to_bind
    return port.isascii() and port.isdigit() and int(port) <= MAX_PORT and (int(port) > 0 or to_bind)


def _path_of(address: str) -> str | None:
    """Return the path of an `ipc://` address; None for others, for abstract names and for `*`."""
    transport, _, rest = address.partition("://")
    return rest if transport == "ipc" and not rest.startswith("@") and rest != "*" else None


def _check_free(path: str, address: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SinkError(f"cannot bind {address}: {error.strerror}: choose another path") from error
    if not stat.S_ISSOCK(mode):
        raise SinkError(f"cannot bind {address}: there is a file at this path: choose another one, or remove it")
    if _answers(path):
        raise SinkError(f"cannot bind {address}: another program uses this path: stop it, or choose another path")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(CONNECT_S)
        probe.connect(path)
        return True
    return False
