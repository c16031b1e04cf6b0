"""Print the messages of a running engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.subscriber import Subscriber
from pipelines import console


def print_messages(
    address: str, topics: Sequence[str], *, count: int | None, timeout_s: float | None, as_json: bool, **curve: Any
) -> None:
    """Print messages until `count` have come.

    Args:
        address: address of a publisher.
        topics: prefixes.
        count: how many; None: until interrupted.
        timeout_s: how long a silence may last; None: for ever.
        as_json: the message as one line of JSON; else a line for people.
        curve: `server_key` and `keys` of `Subscriber`, for a publisher that encrypts.

    Raises:
        WireError: nothing came within `timeout_s`.
    """
    with Subscriber(address, topics=topics, timeout_s=timeout_s, **curve) as subscriber:
        for number, message in enumerate(subscriber, start=1):
            console.result(msgspec.json.encode(message).decode() if as_json else _line(message))
            if number == count:
                return


def _line(message: object) -> str:
    objects = getattr(message, "objects", None)
    if objects is None:
        return str(message)
    seen = ", ".join(f"{o.class_name} #{o.track_id} {o.score:.2f}" for o in objects) or "nothing"
    return f"{message.source_id} frame {message.frame_id} {message.latency_ms:.0f} ms: {seen}"  # type: ignore[attr-defined]
