"""IPv6 on ZeroMQ sockets, which speak only IPv4 unless they are told otherwise."""

from __future__ import annotations

from typing import Any

import zmq


def prepare(socket: zmq.Socket[Any], address: str) -> str:
    """Let the socket use IPv6 for the next bind or connect where the address is one of IPv6; return the address.

    Other addresses stay with IPv4: with IPv6 allowed, libzmq would take `localhost` for `::1` alone.
    """
    socket.setsockopt(zmq.IPV6, int("[" in address))
    return address
