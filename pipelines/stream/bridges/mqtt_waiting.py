"""Messages that an MQTT broker has not taken yet."""

from __future__ import annotations

MAX_MESSAGES = 1000
MAX_BYTES = 8_000_000


class Waiting:
    """Counts the messages that wait to be sent or acknowledged: the client itself keeps as many as it is given."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._resent: set[int] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def unacknowledged(self) -> int:
        """Number of waiting messages that the broker has to acknowledge."""
        return len(self._resent)

    @property
    def is_full(self) -> bool:
        """Whether no further message should be published now."""
        return len(self._sizes) >= MAX_MESSAGES or self._bytes >= MAX_BYTES

    def add(self, number: int, size: int, qos: int) -> None:
        """Count a message of `size` bytes, which the client numbers; with `qos` 1 it is resent on reconnect."""
        self.remove(number)
        self._sizes[number] = size
        self._bytes += size
        if qos:
            self._resent.add(number)

    def remove(self, number: int) -> None:
        """Forget a message that was sent and, with `qos` 1, acknowledged.

        >>> waiting = Waiting()
        >>> waiting.add(1, MAX_BYTES, qos=0), waiting.is_full
        (None, True)
        >>> waiting.remove(1), waiting.is_full
        (None, False)
        """
        self._bytes -= self._sizes.pop(number, 0)
        self._resent.discard(number)

    def disconnected(self) -> None:
        """Forget the messages that are not resent on reconnect."""
        for number in self._sizes.keys() - self._resent:
            self.remove(number)
