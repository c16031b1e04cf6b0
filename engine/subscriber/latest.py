"""Reading only the current state, from a publisher's `latest` address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

from engine.clock import NS_PER_MS, NS_PER_S
from engine.errors import WireError
from engine.subscriber.client import NoMessageError
from engine.transport.connect import Connection
from engine.wire import MAX_BODY_BYTES, SnapshotMessage, decode

if TYPE_CHECKING:
    from typing_extensions import Self

    from engine.transport.keys import KeyPair


class LatestReader:
    """Returns the newest snapshot at each read, however long the reader was busy. For one thread.

    Args:
        address: the publisher's `latest` address.
        server_key: public key of a publisher that encrypts.
        keys: CURVE keys of this reader.

    Raises:
        ConfigError: the address is not valid.
    """

    def __init__(self, address: str, *, server_key: str | None = None, keys: KeyPair | None = None) -> None:
        self.address = address
        self._connection = Connection(1, MAX_BODY_BYTES, server_key, keys)
        self._connection.conflate()
        (self._socket,) = self._connection.subscribe((address,), ("",))

    def read(self, timeout_s: float | None = None) -> SnapshotMessage:
        """Wait for a snapshot newer than the last one read, and return the newest.

        Raises:
            NoMessageError: nothing arrived within `timeout_s`.
            WireError: the message is not a snapshot of this major version.
        """
        if not self._socket.poll(None if timeout_s is None else int(timeout_s * NS_PER_S / NS_PER_MS)):
            raise NoMessageError(f"nothing from {self.address} in {timeout_s} s: is this a publisher's latest address?")
        message = decode(self._socket.recv(zmq.NOBLOCK))
        if not isinstance(message, SnapshotMessage):
            raise WireError(f"{self.address} sends {message.schema}: is this a publisher's latest address?")
        return message

    def close(self) -> None:
        """Disconnect; harmless when repeated."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
