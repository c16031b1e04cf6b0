"""`framewire proxy`: serve the streams of many engines at one address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json, Metrics

if TYPE_CHECKING:
    pass
from pipelines.verbs.stream.options import plain


def proxy(
    engines: Annotated[list[str] | None, typer.Argument(help="Addresses of publishers to connect to")] = None,
    publish: Annotated[str, typer.Option(help="Address to bind for readers")] = "tcp://127.0.0.1:5550",
    keys: Annotated[str | None, typer.Option(help="File NAME.key_secret of the proxy: encrypt")] = None,
    allowed_key: Annotated[list[str] | None, typer.Option(help="File NAME.key of a reader that may connect")] = None,
    engine_key: Annotated[str | None, typer.Option(help="File NAME.key of engines that encrypt")] = None,
    collect: Annotated[
        str | None, typer.Option(help="Address to bind for engines with publish.connect; only the newest owner passes")
    ] = None,
    allowed_engine: Annotated[
        list[str] | None, typer.Option(help="File NAME.key of an engine that may connect there")
    ] = None,
    metrics: Metrics = None,
    as_json: Json = False,
) -> None:
    """Serve the streams of many engines at one address."""
    from engine.transport.keys import load_key_pair, load_public_key, load_public_keys
    from pipelines.metrics.answering import serve_loop
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.figures import add_proxy
    from pipelines.stream.proxy import Proxy

    middle = Proxy(
        engines or [],
        publish,
        keys=load_key_pair(keys) if keys else None,
        allowed_keys=load_public_keys(allowed_key) if allowed_key else None,
        engine_key=load_public_key(engine_key) if engine_key else None,
        collect=collect,
        allowed_engines=load_public_keys(allowed_engine) if allowed_engine else None,
    )
    with (
        serve_loop(metrics, lambda page: add_proxy(page, middle.summary), say=console.say) as beat,
        Interrupt(middle.stop),
    ):
        middle.on_turn = beat
        try:
            middle.open()
            whom = [*(engines or []), *([f"engines at {middle.collect_address}"] if collect else [])]
            console.say(f"proxy at {middle.address} for {', '.join(whom)} (Ctrl-C ends)")
            done = middle.run()
        finally:
            middle.close()
    console.show({**plain(done), "wanted": sorted(done.wanted)}, as_json=as_json)
