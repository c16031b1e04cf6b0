"""Prints the messages of a running engine, or explains why none arrive."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from engine.clock import SYSTEM_CLOCK
from engine.errors import ConfigError, SinkError
from engine.paths import how_to_write
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import (
    EosMessage,
    EventMessage,
    FrameMessage,
    HeartbeatMessage,
    ImageMessage,
    Message,
    StatsMessage,
    StatusMessage,
    encode,
    kind_of,
)
from pipelines import console

SILENCE_S = 3.0
PROBE_S = 1.0
HEARTBEATS = ("v1/heartbeat/",)


def print_messages(
    address: str,
    topics: Sequence[str],
    *,
    count: int | None,
    timeout_s: float | None,
    as_json: bool,
    pictures: str | None = None,
    **curve: Any,
) -> None:
    """Print up to `count` messages; after three seconds of silence, explain once why none arrive.

    Args:
        address: address of a publisher.
        topics: prefixes.
        count: how many; None: until interrupted.
        timeout_s: longest time without a message; None: unlimited.
        as_json: print each message as one line of JSON; otherwise as a readable line.
        pictures: folder for the JPEGs of `image` and `crop` messages; None: write none.
        curve: `server_key` and `keys` of `Subscriber`, for a publisher that encrypts.

    Raises:
        NoMessageError: nothing arrived within `timeout_s`.
        SinkError: an image cannot be written.
    """
    printed = 0
    with Subscriber(address, topics=topics, **curve) as subscriber:
        while count is None or printed < count:
            message = _next(subscriber, address, topics, timeout_s, curve)
            if message is None:
                return
            path = _write(message, pictures) if isinstance(message, ImageMessage) and pictures is not None else None
            console.result(encode(_without_picture(message)).decode() if as_json else line_of(message, path))
            printed += 1


def _next(
    subscriber: Subscriber, address: str, topics: Sequence[str], timeout_s: float | None, curve: dict[str, Any]
) -> Message | None:
    """Return the next message; explain a silence of `SILENCE_S`. Raises `NoMessageError` after `timeout_s`."""
    if subscriber.received or (timeout_s is not None and timeout_s <= SILENCE_S):
        return subscriber.receive(timeout_s)
    started_ns = SYSTEM_CLOCK.monotonic_ns()
    try:
        return subscriber.receive(SILENCE_S)
    except NoMessageError:
        console.say(f"nothing yet: {why_silent(address, topics, curve)}")
    spent_s = (SYSTEM_CLOCK.monotonic_ns() - started_ns) / 1e9
    return subscriber.receive(None if timeout_s is None else max(timeout_s - spent_s, 0.0))


def why_silent(address: str, topics: Sequence[str], curve: dict[str, Any] | None = None) -> str:
    """Return why a publisher sends nothing on these topics, as far as a reader can tell."""
    url = urlsplit(address)
    if url.scheme == "tcp" and url.hostname and url.port:
        try:
            socket.create_connection((url.hostname, url.port), PROBE_S).close()
        except OSError as error:
            return f"nothing listens at {address} ({error.strerror or error}): is an engine running there?"
    try:
        with Subscriber(address, HEARTBEATS, **(curve or {})) as subscriber:
            heartbeat = subscriber.receive(2 * PROBE_S)
    except (NoMessageError, ConfigError):
        own = "are the keys correct" if curve and curve.get("server_key") else "does it encrypt (--server-key)"
        return f"something listens at {address} but sends no heartbeat: {own}, and is it a framewire publisher?"
    sources = sorted(heartbeat.frame_seq) if isinstance(heartbeat, HeartbeatMessage) else []
    known = ", ".join(f"v1/frame/{quote(name, safe='')}/" for name in sources) or "no frames yet"
    return f"the engine is running, but sends nothing on {', '.join(topics)}: it has {known}"


def line_of(message: Message, path: Path | None = None) -> str:
    """Return a message as a readable line.

    Args:
        message: of any kind.
        path: where its image was written.
    """
    kind, name = kind_of(message), getattr(message, "source_id", message.engine_id)
    if isinstance(message, FrameMessage):
        seen = ", ".join(f"{o.class_name} #{o.track_id} {o.score:.2f}" for o in message.objects) or "nothing"
        return f"{name} frame {message.frame_id} {message.latency_ms:.0f} ms: {seen}"
    if isinstance(message, ImageMessage):
        where = f" -> {path}" if path is not None else ""
        return f"{name} {kind} of frame {message.frame_id}, {message.width}x{message.height}, {_size(message)}{where}"
    return f"{name} {kind}{_details(message)}"


def _details(message: Message) -> str:
    if isinstance(message, StatusMessage):
        return f": {message.state}{f' ({message.reason})' if message.reason else ''}"
    if isinstance(message, EventMessage):
        track = f" {message.class_name} #{message.track_id}" if message.track_id is not None else ""
        facts = "".join(f", {key} {value}" for key, value in message.data.items())
        return f": {message.event}{track}{facts}"
    if isinstance(message, StatsMessage):
        dropped = console.text_of_dropped(message.dropped)
        return f": {message.published} published, {message.fps:.1f} fps, dropped {dropped}"
    if isinstance(message, HeartbeatMessage):
        return f": up {message.uptime_s:.0f} s, {len(message.frame_seq)} sources"
    return f": {message.reason or 'end of stream'}" if isinstance(message, EosMessage) else ""


def _size(message: ImageMessage) -> str:
    return f"{len(message.jpeg) / 1000:.0f} kB"


def _without_picture(message: Message) -> Message:
    return msgspec.structs.replace(message, jpeg=b"") if isinstance(message, ImageMessage) else message


def _write(message: ImageMessage, folder: str) -> Path:
    """Write a JPEG under a name that is safe for any camera name."""
    track = f"_{message.track_id}" if hasattr(message, "track_id") else ""
    name = f"{quote(message.source_id, safe='')}_{kind_of(message)}_{message.frame_id}{track}.jpg"
    path = Path(folder).expanduser() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message.jpeg)
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}: {how_to_write(error)}") from error
    return path
