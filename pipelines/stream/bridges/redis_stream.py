"""Bridge to Redis streams: `XADD <prefix>:<kind>:<source_id>` with the body as field `body`."""

from __future__ import annotations

from typing import Any

from engine.optional import require
from engine.wire import Message, kind_of
from pipelines.stream.adapters.forms import Form, native
from pipelines.stream.bridges.base import TargetError

TIMEOUT_S = 5.0
MAX_LENGTH = 10_000


class RedisOutput:
    """Appends messages to Redis streams of bounded length. Needs the package redis.

    Args:
        url: `redis://host:port/db`, with the password if there is one.
        prefix: first part of the stream names.
        max_length: approximate number of entries kept per stream.
        form: formats the bodies.
    """

    def __init__(
        self, url: str, *, prefix: str = "framewire", max_length: int = MAX_LENGTH, form: Form = native
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._max_length = max_length
        self._form = form
        self._redis: Any = None
        self._client: Any = None

    def open(self) -> None:
        """Connect.

        Raises:
            TargetError: the server is away.
            MissingDependencyError: the package redis is not installed.
        """
        self._redis = require("redis", extra="redis")
        self._client = self._redis.Redis.from_url(self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        self._call(self._client.ping)

    def send(self, message: Message) -> None:
        """Append one message. Raises `TargetError` if the connection fails; the caller then sends it again."""
        owner = getattr(message, "source_id", message.engine_id)
        name = f"{self._prefix}:{kind_of(message)}:{owner}"
        for body in self._form(message):
            fields = {"body": body, "seq": message.seq}
            self._call(self._client.xadd, name, fields, maxlen=self._max_length, approximate=True)

    def turn(self) -> None:
        """Do nothing: there is no periodic work."""

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, function: Any, *arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except self._redis.RedisError as error:
            raise TargetError(f"Redis did not accept a message: {type(error).__name__}") from error
