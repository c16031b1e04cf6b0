"""Addresses of models on inference servers: `kserve+http://host:8000/NAME`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.paths import REMOTE_MODEL

EXPECTED = (
    "kserve+http://HOST:8000/NAME, kserve+https://... or kserve+grpc://HOST:8001/NAME, with a comma between two hosts"
)
PORTS = {"http": 8000, "https": 443, "grpc": 8001}
_FORM = re.compile(
    r"kserve\+(https?|grpc):/{1,2}([A-Za-z0-9.,:\[\]_-]{1,500})/([A-Za-z0-9._-]{1,200})(?:/versions/(\d{1,9}))?"
)


@dataclass(frozen=True, slots=True)
class Host:
    """Where a server listens.

    Attributes:
        name: host name or address, without brackets.
        port: of TCP.
    """

    name: str
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.name}]' if ':' in self.name else self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on one server, or on two, the second of which takes over after a failure.

    Attributes:
        protocol: `http`, `https` or `grpc`.
        hosts: of the servers.
        name: of the model there.
        version: of the model; empty: the server chooses.
    """

    protocol: str
    hosts: tuple[Host, ...]
    name: str
    version: str = ""

    @classmethod
    def parse(cls, address: str | Path) -> RemoteModel:
        """Return the model of an address.

        Raises:
            ConfigError: it is malformed.

        >>> RemoteModel.parse("kserve+http://a,b:9000/yolo").hosts
        (Host(name='a', port=8000), Host(name='b', port=9000))
        """
        text = os.fspath(address)
        found = _FORM.fullmatch(text)
        if found is None:
            raise ConfigError(f"{text!r} is not the address of a model on a server: expected {EXPECTED}")
        protocol, hosts, name, version = found.groups()
        return cls(
            protocol, tuple(_host(each, PORTS[protocol], text) for each in hosts.split(",")), name, version or ""
        )

    def __str__(self) -> str:
        return f"{REMOTE_MODEL}{self.protocol}://{','.join(map(str, self.hosts))}/{self.name}"


def _host(text: str, port: int, address: str) -> Host:
    name, sign, number = text.rpartition(":")
    if not sign or text.endswith("]"):
        name, number = text, str(port)
    bracketed = name.startswith("[") and name.endswith("]")
    if not name.strip("[]") or (":" in name) != bracketed or not number.isdigit() or not 0 < int(number[:6]) < 65536:
        raise ConfigError(f"{address!r}: {text!r} is not a host: expected HOST or HOST:PORT, IPv6 in brackets")
    return Host(name.strip("[]"), int(number))
