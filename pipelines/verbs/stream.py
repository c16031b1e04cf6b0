"""The stream: `subscribe`, `record`, `replay`, `bridge`, `proxy`, `keys`."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json, client_keys

if TYPE_CHECKING:
    from pipelines.stream.bridges.base import BridgeOutput

Address = Annotated[str, typer.Argument(help="Address of a publisher: tcp://127.0.0.1:5555")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Topics start with this; repeat for several")]
ServerKey = Annotated[str | None, typer.Option(help="File NAME.key of a publisher that encrypts")]
Keys = Annotated[str | None, typer.Option(help="File NAME.key_secret of this reader")]


def subscribe(
    address: Address,
    topic: Topics = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop with an error after so many seconds of silence")] = None,
    server_key: ServerKey = None,
    keys: Keys = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as one line of JSON")] = False,
) -> None:
    """Print the messages of a running engine."""
    from pipelines.stream.subscribe import print_messages

    options = {"count": count, "timeout_s": timeout, **client_keys(server_key, keys)}
    print_messages(address, topic or ["v1/frame/"], as_json=as_json, **options)


def record(
    address: Address,
    out: Annotated[str, typer.Option(help="File to write; an existing recording is continued")],
    topic: Topics = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages")] = None,
    duration: Annotated[float | None, typer.Option(help="Stop after so many seconds")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop with an error after so many seconds of silence")] = None,
    server_key: ServerKey = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Record a stream to a file that survives a kill at any byte."""
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.record import record as record_stream

    with Interrupt() as interrupt:
        done = record_stream(
            address,
            out,
            topics=topic or ["v1/"],
            count=count,
            duration_s=duration,
            timeout_s=timeout,
            stopping=lambda: interrupt.requested,
            **client_keys(server_key, keys),
        )
    console.show(_plain(done), as_json=as_json)


def replay(
    path: Annotated[str, typer.Argument(help="File made by record")],
    publish: Annotated[str, typer.Option(help="Address to bind")] = "tcp://127.0.0.1:5555",
    speed: Annotated[str, typer.Option(help="1.0 is the original pace; max: as fast as the slowest reader")] = "1.0",
    start: Annotated[float, typer.Option(help="Begin so many seconds into the recording")] = 0.0,
    end: Annotated[float | None, typer.Option(help="End there")] = None,
    wait: Annotated[float, typer.Option(help="Wait so many seconds at most for a first reader")] = 5.0,
    as_json: Json = False,
) -> None:
    """Publish a recording as if it were live."""
    from pipelines.stream.replay import ReplayOptions
    from pipelines.stream.replay import replay as replay_file

    try:
        pace = None if speed == "max" else float(speed)
    except ValueError as error:
        raise ConfigError(f"speed is {speed!r}: give a number such as 2.0, or max") from error
    console.show(_plain(replay_file(path, publish, ReplayOptions(pace, start, end, wait))), as_json=as_json)


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
        console.show(_plain(done), as_json=as_json)


def proxy(
    engines: Annotated[list[str], typer.Argument(help="Addresses of publishers")],
    publish: Annotated[str, typer.Option(help="Address to bind for readers")] = "tcp://127.0.0.1:5550",
    keys: Annotated[str | None, typer.Option(help="File NAME.key_secret of the proxy: encrypt")] = None,
    allowed_key: Annotated[list[str] | None, typer.Option(help="File NAME.key of a reader that may connect")] = None,
    engine_key: Annotated[str | None, typer.Option(help="File NAME.key of engines that encrypt")] = None,
    as_json: Json = False,
) -> None:
    """Offer the streams of many engines at one address."""
    from engine.transport.keys import load_key_pair, load_public_key, load_public_keys
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.proxy import Proxy

    middle = Proxy(
        engines,
        publish,
        keys=load_key_pair(keys) if keys else None,
        allowed_keys=load_public_keys(allowed_key) if allowed_key else None,
        engine_key=load_public_key(engine_key) if engine_key else None,
    )
    with Interrupt(middle.stop):
        try:
            middle.open()
            console.say(f"proxy at {middle.address} for {', '.join(engines)} (Ctrl-C ends)")
            done = middle.run()
        finally:
            middle.close()
    console.show({**_plain(done), "wanted": sorted(done.wanted)}, as_json=as_json)


def keys(
    name: Annotated[str, typer.Argument(help="Whose keys: gate, dashboard, ...")],
    folder: Annotated[str, typer.Option(help="Where to write NAME.key and NAME.key_secret")] = "keys",
) -> None:
    """Make a pair of CURVE keys: the secret one stays here (mode 0600), the public one goes to the other side."""
    from engine.transport.keys import make_keys

    public, secret = make_keys(folder, name)
    console.result(f"{public}: public, give it to the other side")
    console.result(f"{secret}: secret, leave it here")


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


def _plain(summary: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; counters become plain tables (`asdict` cannot copy them)."""
    values = {one.name: getattr(summary, one.name) for one in fields(summary)}
    return {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
