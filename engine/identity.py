"""The default name of an engine on the wire: readable and unique.

All engines on a machine share the host's name, and so do identical containers, and a reader would take two engines for
one that keeps restarting. So the name ends in a few digits derived from what distinguishes engines and survives a
restart: the machine's network hardware and the addresses where the engine publishes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

DIGITS = 5
_NET = Path("/sys/class/net")
_FREE_PORT = re.compile(r":(\*|0)$|^ipc://\*$")
_UNFIT = re.compile(r"[/\s]+")


def default_engine_id(addresses: Sequence[str] = (), *, net: Path = _NET) -> str:
    """Return `<host>-<digits>`: the same after a restart, different for each engine that publishes elsewhere.

    Args:
        addresses: where this engine publishes; if the system chooses the port, the name is new for each run.
        net: where Linux lists network interfaces, for tests.

    >>> default_engine_id(["tcp://*:5555"]) == default_engine_id(["tcp://*:5555"])
    True
    >>> default_engine_id(["tcp://*:5555"]) == default_engine_id(["tcp://*:5556"])
    False
    """
    host = _UNFIT.sub("_", socket.gethostname()) or "host"
    seeds = [host, *_hardware(net), *addresses]
    if any(_FREE_PORT.search(address) for address in addresses):
        seeds.append(secrets.token_hex(8))
    return f"{host}-{hashlib.sha256(chr(0).join(seeds).encode()).hexdigest()[:DIGITS]}"


def _hardware(net: Path) -> list[str]:
    """Return the addresses of the network hardware or, in a container, those of its interfaces."""
    try:
        interfaces = sorted(path for path in net.iterdir() if path.name != "lo")
    except OSError:
        return []
    real = [path for path in interfaces if (path / "device").exists()]
    inside = [path for path in interfaces if path.name.startswith(("eth", "en"))]
    return [text for path in real or inside if (text := _text(path / "address"))]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
