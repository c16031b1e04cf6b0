"""`framewire demo`: the embedded model on the embedded clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.verbs.options import Json, Settings

if TYPE_CHECKING:
    pass
from pipelines.verbs.running.start import start_run


def demo(
    publish: Annotated[str | None, typer.Option(help="ZeroMQ address to bind, or none")] = None,
    save: Annotated[str | None, typer.Option(help="Write an annotated video")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write the messages, one per line; - is stdout")] = None,
    show: Annotated[bool | None, typer.Option("--show", help="Show a window")] = None,
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Run the embedded model on the embedded clip of pedestrians; needs no other files."""
    from engine.assets import demo_clip

    overrides: dict[str, Any] = {
        "sources": [{"uri": str(demo_clip()), "source_id": "demo", "realtime": True}],
        "publish.address": publish,
        "output.save": save,
        "output.jsonl": jsonl,
        "output.show": show,
    }
    chosen = {key: value for key, value in overrides.items() if value is not None}
    hint = "next: --show opens a window, --save out.mp4 writes a video; framewire run --source 0 takes your camera"
    start_run(None, chosen, setting or [], as_json, hint=None if show or save else hint)
