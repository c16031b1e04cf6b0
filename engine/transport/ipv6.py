"""IPv6 on ZeroMQ sockets, which by default use only IPv4."""

from __future__ import annotations

from typing import Any

import zmq


def prepare(socket: zmq.Socket[Any], address: str) -> str:
    """Enable IPv6 for the next bind or connect if the address is IPv6; return the address.

    Other addresses stay with IPv4, because with IPv6 enabled, libzmq would resolve `localhost` to `::1` alone.
    """
    socket.setsockopt(zmq.IPV6, int("[" in address))
    return address
