"""`framewire bridge`: forward a stream to another system."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, unquote, urlsplit

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json, Metrics, client_keys
from pipelines.verbs.stream.options import Address, Keys, ServerKey, Topics, plain

if TYPE_CHECKING:
    from engine.wire import SnapshotMessage
    from pipelines.stream.bridges.base import BridgeOutput
    from pipelines.stream.bridges.mqtt_commands import MqttCommands

SNAPSHOT_S = 1.0
COMMAND_S = 2.0
NOTHING = ("v1/none/",)
KNOWN = "mqtt://HOST, redis://HOST, http(s)://HOST/PATH, ws://HOST:PORT, FILE.csv, FILE.parquet or - (lines)"


def bridge(
    address: Address,
    to: Annotated[str, typer.Argument(help="mqtt://, redis://, http(s)://, ws://HOST:PORT, x.csv, x.parquet or -")],
    topic: Topics = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many messages")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="framewire, deepstream, savant, frigate or onvif")
    ] = "framewire",
    command: Annotated[
        list[str] | None, typer.Option(help="mqtt://: camera that may be paused, resumed and snoozed; repeat")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="mqtt://: control address of the run for --command; optional if there is one run")
    ] = None,
    origin: Annotated[list[str] | None, typer.Option(help="ws://: origins that may read; * allows any")] = None,
    server_key: ServerKey = None,
    keys: Keys = None,
    metrics: Metrics = None,
    as_json: Json = False,
) -> None:
    """Forward a stream to MQTT (Home Assistant discovers it), Redis, a webhook, browsers, CSV, Parquet or lines (-)."""
    from engine.subscriber import Subscriber
    from pipelines.metrics.answering import serve_loop
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.bridges.base import Forwarder, Interruptible, Watcher, run_bridge
    from pipelines.stream.figures import add_bridge

    curve, topics = client_keys(server_key, keys), topic or ["v1/"]
    if to.startswith("ws://"):
        _refuse_format(format_, to)
        served = _serve_browsers(address, to, topics, count, {**curve, "origins": origin}, metrics)
        console.show(served, as_json=as_json)
        return
    target = output_for(to, format_, commands=command or (), control=control)
    wanted = [*topics, *(target.watched_topics if isinstance(target, Watcher) else ())]
    ends_a_wait = target.interrupt if isinstance(target, Interruptible) else lambda: None
    forwarder = Forwarder(target)
    with (
        serve_loop(metrics, lambda page: add_bridge(page, forwarder), say=console.say) as beat,
        Interrupt(ends_a_wait) as interrupt,
        Subscriber(address, wanted, **curve) as subscriber,
    ):
        done = run_bridge(
            subscriber,
            target,
            count=count,
            stopping=lambda: beat() or interrupt.requested,
            forwarder=forwarder,
            topics=topics,
            ask=partial(snapshot_at, address, curve),
        )
    if to != "-":
        console.show(plain(done), as_json=as_json)


def output_for(
    to: str, format_: str = "framewire", *, commands: Sequence[str] = (), control: str | None = None
) -> BridgeOutput:
    """Return the output of a bridge, not yet open.

    Args:
        to: its address.
        format_: form of the bodies.
        commands: cameras that accept commands over MQTT.
        control: control address of the run that they belong to; None: the only one of this user.

    Raises:
        ConfigError: no bridge supports this address or this format.
    """
    from pipelines.stream.adapters.forms import NATIVE, content_type, form_by_name
    from pipelines.stream.bridges import lines, mqtt, redis_stream, webhook

    form, scheme = form_by_name(format_), to.partition("://")[0].lower() if "://" in to else ""
    if commands and scheme not in ("mqtt", "mqtts"):
        raise ConfigError("--command requires mqtt://: other bridges take no commands")
    if to == "-":
        return lines.NdjsonOutput(sys.stdout.buffer, form)
    if scheme in ("mqtt", "mqtts"):
        own_form = None if format_ == NATIVE else form
        make = partial(mqtt.MqttOutput, **_broker(to), form=own_form, commands=_commands(commands, control))
        return mqtt.MqttBridge(lambda engine_id: make(engine_id=engine_id))
    if scheme in ("redis", "rediss"):
        return redis_stream.RedisOutput(to, form=form)
    if scheme in ("http", "https"):
        return webhook.WebhookOutput(to, headers={"Content-Type": content_type(format_)}, form=form)
    suffix = Path(to).suffix.lower()
    if suffix in (".csv", ".parquet") and not scheme:
        _refuse_format(format_, to)
        return lines.CsvOutput(to) if suffix == ".csv" else lines.ParquetOutput(to)
    shown = f"{scheme}://..." if scheme else repr(to)
    raise ConfigError(f"no bridge supports {shown}: expected {KNOWN}")


def _commands(sources: Sequence[str], control: str | None) -> MqttCommands | None:
    from pipelines.running.control import ask
    from pipelines.running.control_access import find_run
    from pipelines.stream.bridges.mqtt_commands import MqttCommands

    if not sources:
        return None
    return MqttCommands(
        sources, lambda request: ask(control or find_run(option="--control").address, request, COMMAND_S)
    )


def snapshot_at(address: str, curve: dict[str, Any], endpoint: str) -> SnapshotMessage | None:
    """Return the snapshot of a publisher, or None if it does not arrive within a second.

    Args:
        address: address of the publisher's stream.
        curve: keys of the reader, as for `Subscriber`.
        endpoint: the publisher's snapshot address; its host may be a wildcard.
    """
    from engine.subscriber import NoMessageError, Subscriber
    from engine.wire import SnapshotMessage

    host = urlsplit(address).hostname or "127.0.0.1"
    for wildcard in ("//0.0.0.0:", "//[::]:", "//*:"):
        endpoint = endpoint.replace(wildcard, f"//[{host}]:" if ":" in host else f"//{host}:")
    try:
        with Subscriber(address, NOTHING, snapshot=endpoint, **curve) as subscriber:
            message = subscriber.receive(SNAPSHOT_S)
    except (NoMessageError, ConfigError):
        return None
    return message if isinstance(message, SnapshotMessage) else None


def _refuse_format(format_: str, to: str) -> None:
    if format_ != "framewire":
        raise ConfigError(
            f"--format {format_} does not work with {to.partition('://')[0]}: expected mqtt, redis, http or -"
        )


def _broker(to: str) -> dict[str, Any]:
    """Return host, port, user and password.

    The password may be percent-encoded, or contain `#`, `/` and `?` unencoded.
    """
    scheme, _, rest = to.partition("://")
    login, _, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    url = _address(f"{scheme}://{place}")
    return {
        "host": url.hostname or "127.0.0.1",
        "port": url.port or (8883 if scheme == "mqtts" else 1883),
        "username": unquote(user) if login else None,
        "password": unquote(password) if login else None,
        "tls": scheme == "mqtts",
    }


def _address(to: str) -> SplitResult:
    try:
        url = urlsplit(to)
        _ = url.port
    except ValueError as error:
        raise ConfigError(f"the address of the bridge is invalid ({error}): expected HOST or HOST:PORT") from error
    return url


def _serve_browsers(
    address: str, to: str, topics: list[str], count: int | None, curve: dict[str, Any], metrics: str | None
) -> dict[str, Any]:
    """Serve until a signal or enough messages have arrived; return the counters."""
    import asyncio

    from pipelines.metrics.answering import serve_loop
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.bridges.websocket import WebSocketBridge
    from pipelines.stream.figures import add_browsers

    url = _address(to)
    host, port = url.hostname or "127.0.0.1", url.port if url.port is not None else 8765
    served = WebSocketBridge(address, host=host, port=port, topics=topics, count=count, **curve)

    async def serve(beat: Callable[[], bool]) -> None:
        serving = asyncio.ensure_future(served.run())
        beating = asyncio.ensure_future(_beat(beat))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(serving.cancel)

        with Interrupt(stop):
            ready = asyncio.ensure_future(served.serving.wait())
            await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                console.say(f"serving browsers at ws://{host}:{served.port} (Ctrl-C ends)")
            ready.cancel()
            try:
                await serving
            except asyncio.CancelledError:
                return
            finally:
                beating.cancel()

    with serve_loop(metrics, lambda page: add_browsers(page, served), say=console.say) as beat:
        asyncio.run(serve(beat))
    return {"sent": dict(served.taken), "dropped": served.dropped}


async def _beat(beat: Callable[[], bool]) -> None:
    """Record once a second that the loop is still running."""
    import asyncio

    while True:
        beat()
        await asyncio.sleep(1.0)
