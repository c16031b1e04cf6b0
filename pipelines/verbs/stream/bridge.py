"""`framewire bridge`: hand a stream on to another system."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json, client_keys

if TYPE_CHECKING:
    from pipelines.stream.bridges.base import BridgeOutput
from pipelines.verbs.stream.options import Address, Keys, ServerKey, Topics, plain


def bridge(
    address: Address,
    to: Annotated[str, typer.Argument(help="mqtt://, redis://, http(s)://, ws://HOST:PORT, x.csv, x.parquet or -")],
    topic: Topics = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages")] = None,
    server_key: ServerKey = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Hand a stream on: to MQTT (Home Assistant finds it), Redis, a web hook, browsers, CSV, Parquet, or lines (-)."""
    from engine.subscriber import Subscriber
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.bridges.base import run_bridge

    if to.startswith("ws://"):
        _serve_browsers(address, to, topic or ["v1/"])
        return
    with (
        Interrupt() as interrupt,
        Subscriber(address, topic or ["v1/"], **client_keys(server_key, keys)) as subscriber,
    ):
        done = run_bridge(subscriber, _target(to), count=count, stopping=lambda: interrupt.requested)
    if to != "-":
        console.show(plain(done), as_json=as_json)


def _target(to: str) -> BridgeOutput:
    from pipelines.stream.bridges import lines, mqtt, redis_stream, webhook

    url = urlsplit(to)
    if to == "-":
        return lines.NdjsonOutput(sys.stdout.buffer)
    if url.scheme in ("mqtt", "mqtts"):
        port = url.port or (8883 if url.scheme == "mqtts" else 1883)
        login = {"username": url.username, "password": url.password, "tls": url.scheme == "mqtts"}
        return mqtt.MqttOutput(url.hostname or "127.0.0.1", port, **login)  # type: ignore[arg-type]
    if url.scheme in ("redis", "rediss"):
        return redis_stream.RedisOutput(to)
    if url.scheme in ("http", "https"):
        return webhook.WebhookOutput(to)
    if Path(to).suffix == ".csv":
        return lines.CsvOutput(to)
    if Path(to).suffix == ".parquet":
        return lines.ParquetOutput(to)
    known = "mqtt://HOST, redis://HOST, http(s)://HOST/PATH, ws://HOST:PORT, FILE.csv, FILE.parquet or - (lines)"
    raise ConfigError(f"no bridge goes to {to!r}: expected {known}")


def _serve_browsers(address: str, to: str, topics: list[str]) -> None:
    import asyncio

    from pipelines.stream.bridges.websocket import WebSocketBridge

    url = urlsplit(to)
    asyncio.run(WebSocketBridge(address, host=url.hostname or "127.0.0.1", port=url.port or 8765, topics=topics).run())
