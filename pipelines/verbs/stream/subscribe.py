"""`framewire subscribe`: print the messages of a running engine."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.verbs.options import client_keys
from pipelines.verbs.stream.options import Address, Keys, ServerKey, Topics

DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"


def subscribe(
    address: Address = DEFAULT_ADDRESS,
    topic: Topics = None,
    camera: Annotated[list[str] | None, typer.Option(help="Frames of this camera; repeat for several")] = None,
    pictures: Annotated[str | None, typer.Option(help="Folder for the JPEGs of image and crop messages")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many messages")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop with an error after this many seconds of silence")] = None,
    server_key: ServerKey = None,
    keys: Keys = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as one line of JSON")] = False,
) -> None:
    """Print the messages of a running engine."""
    from engine.wire import topic_for
    from pipelines.stream.subscribe import print_messages

    options = {"count": count, "timeout_s": timeout, "pictures": pictures, **client_keys(server_key, keys)}
    shown = [f"v1/{kind}/" for kind in ("image", "crop")] if pictures is not None and not topic else []
    topics = [*(topic or []), *(topic_for("frame", name) for name in camera or [])]
    print_messages(address, [*topics, *shown] or ["v1/frame/"], as_json=as_json, **options)
