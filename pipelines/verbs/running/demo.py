"""`framewire demo`: the embedded model on the embedded clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.verbs.options import Json, Settings, Web

if TYPE_CHECKING:
    pass
from pipelines.verbs.running.start import Places, start_run

LINE = ((0.58, 0.74), (0.58, 0.33))
ZONE = ((0.45, 0.40), (0.80, 0.36), (0.87, 0.66), (0.62, 0.69))


def demo(
    publish: Annotated[str | None, typer.Option(help="ZeroMQ address to bind, or none")] = None,
    save: Annotated[str | None, typer.Option(help="Write an annotated video")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write the messages, one per line; - is stdout")] = None,
    show: Annotated[bool | None, typer.Option("--show", help="Show a window")] = None,
    web: Web = None,
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Run the embedded model on the embedded clip of pedestrians; needs no other files."""
    from engine.assets import demo_clip

    overrides: dict[str, Any] = {
        "sources": [{"uri": str(demo_clip()), "source_id": "demo", "realtime": True, "loop": web is not None}],
        "publish.address": publish,
        "output.save": save,
        "output.jsonl": jsonl,
        "output.show": show,
        "web.address": web,
    }
    chosen = {key: value for key, value in overrides.items() if value is not None}
    hint = "next: --show opens a window, --web 127.0.0.1:8080 a page; framewire run --source 0 uses your camera"
    places: Places | None = {"lines": [("path", LINE)], "zones": [("crossing", ZONE)]} if web else None
    start_run(None, chosen, setting or [], as_json, places, hint=None if show or save or web else hint)
