"""The stream: `subscribe`."""

from __future__ import annotations

from typing import Annotated

import typer


def subscribe(
    address: Annotated[str, typer.Argument(help="Address of a publisher: tcp://127.0.0.1:5555")],
    topic: Annotated[list[str] | None, typer.Option(help="Topics start with this; repeat for several")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop with an error after so many seconds of silence")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as one line of JSON")] = False,
) -> None:
    """Print the messages of a running engine."""
    from pipelines.subscribe import print_messages

    print_messages(address, topic or ["v1/frame/"], count=count, timeout_s=timeout, as_json=as_json)
