"""Inputs in shared memory, for a server on the same host: images are then not sent at all.

The region has no name in the file system once the server has opened it, so nothing is left behind by a process that is
killed; the server holds it until it is unregistered or ends.
"""

from __future__ import annotations

import ipaddress
import mmap
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.remote.address import Host
from engine.backends.remote.datatypes import DATATYPE_BY_DTYPE

EXTENSION = "system_shared_memory"
FOLDER = "/dev/shm"
REGIONS = "/v2/systemsharedmemory/region"
RESTRICTED_VARIABLE = "FRAMEWIRE_KSERVE_SHARED_MEMORY"
ALIGNMENT = 64
LOST = "shared memory region"
"""What a server that was started again says of a region that it does not know."""


class SharedInputs:
    """One region of shared memory for the inputs of one request.

    Attributes:
        name: of the region, as the server knows it; empty: it has none yet.
    """

    def __init__(self) -> None:
        self.name = ""
        self._memory: mmap.mmap | None = None

    def rows(
        self, feeds: Mapping[str, NDArray[Any]], register: Callable[[str, int], object], forget: Callable[[str], object]
    ) -> list[dict[str, Any]]:
        """Copy the inputs into the region and return how a request names them.

        Args:
            feeds: the inputs by name, of any shape.
            register: tells the server of a new region: its name and size.
            forget: tells it that a region is no longer used.
        """
        size = sum(-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in feeds.values())
        if self._memory is None or len(self._memory) < size:
            self.end(forget)
            self._begin(size, register)
        assert self._memory is not None
        rows, at = [], 0
        for name, array in feeds.items():
            place = np.frombuffer(self._memory, array.dtype, array.size, at).reshape(array.shape)
            np.copyto(place, array)
            where = {
                "shared_memory_region": self.name,
                "shared_memory_offset": at,
                "shared_memory_byte_size": array.nbytes,
            }
            datatype = DATATYPE_BY_DTYPE[array.dtype.name]
            rows.append({"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": where})
            at += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return rows

    def _begin(self, size: int, register: Callable[[str, int], object]) -> None:
        name = f"framewire-{os.getpid()}-{secrets.token_hex(8)}"
        path = f"{FOLDER}/{name}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a full /dev/shm is an error here, not a signal later
            memory = mmap.mmap(descriptor, size)
            register(name, size)
        finally:
            os.close(descriptor)
            os.unlink(path)
        self.name, self._memory = name, memory

    def lose(self) -> None:
        """Record that the server has forgotten the region."""
        self.name, self._memory = "", None

    def end(self, forget: Callable[[str], object]) -> None:
        """Give the region back; safe to call again."""
        name = self.name
        self.lose()
        if name:
            forget(name)


def is_this_host(host: Host) -> bool:
    """Return whether a server is on this machine, by its address."""
    try:
        return ipaddress.ip_address(host.name.strip("[]")).is_loopback and os.path.isdir(FOLDER)
    except ValueError:
        return host.name == "localhost" and os.path.isdir(FOLDER)


def restricted_headers() -> dict[str, str]:
    """Return the header that a server wants for requests about shared memory, from `NAME=VALUE` in the environment."""
    name, _, value = os.environ.get(RESTRICTED_VARIABLE, "").strip().partition("=")
    is_fit = name.isascii() and name.replace("-", "").isalnum() and value.isprintable()
    return {name: value} if value and is_fit else {}


def is_switched_off() -> bool:
    """Return whether the environment says `off`."""
    return os.environ.get(RESTRICTED_VARIABLE, "").strip() == "off"
