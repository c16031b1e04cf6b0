"""`AsyncSubscriber`: the same messages for asyncio programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, cast

import zmq.asyncio

from engine.errors import ConfigError
from engine.subscriber.reader import ALL_TOPICS, Gap, MessageReader
from engine.transport.connect import HIGH_WATER_MARK, Connection
from engine.wire import MAX_BODY_BYTES, Message

if TYPE_CHECKING:
    from typing_extensions import Self

    from engine.transport.keys import KeyPair


class AsyncSubscriber:
    """Iterates with `async for` over the messages of one or more publishers; see `Subscriber` for the arguments.

    To stop, cancel the task that iterates. Create, use and close it in one event loop.

    Attributes:
        reader: counts messages that were lost or could not be read, and restarts of publishers.

    Raises:
        ConfigError: there is no address or topic, or an address or key is invalid.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        topics: str | Sequence[str] = ALL_TOPICS,
        *,
        on_gap: Callable[[Gap], None] | None = None,
        on_restart: Callable[[Message], None] | None = None,
        server_key: str | None = None,
        keys: KeyPair | None = None,
        high_water_mark: int = HIGH_WATER_MARK,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        addresses = (address,) if isinstance(address, str) else tuple(address)
        topics = (topics,) if isinstance(topics, str) else tuple(topics)
        if not addresses or not topics:
            raise ConfigError("a subscriber needs an address and a topic: the topic v1/ matches everything")
        self.reader = MessageReader(topics, on_gap=on_gap, on_restart=on_restart, max_bytes=max_bytes)
        self._connection = Connection(high_water_mark, max_bytes, server_key, keys, zmq.asyncio.Context())
        (socket,) = self._connection.subscribe(addresses, topics)
        self._connection.start()
        self._socket = cast(zmq.asyncio.Socket, socket)

    @property
    def lost(self) -> Counter[str]:
        """Messages missed so far, by topic."""
        return self.reader.lost

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            WireError: a message is of another major version.
        """
        while True:
            frames = await self._socket.recv_multipart(copy=False)
            message = self.reader.read(self._connection.taken(frames))
            if message is not None:
                return message

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yield messages without end."""
        while True:
            yield await self.receive()

    def close(self) -> None:
        """Disconnect; harmless when repeated."""
        self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
