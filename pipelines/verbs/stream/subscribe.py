"""`framewire subscribe`: print the messages of a running engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.verbs.options import client_keys

if TYPE_CHECKING:
    pass
from pipelines.verbs.stream.options import Address, Keys, ServerKey, Topics


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
