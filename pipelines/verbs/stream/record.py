"""`framewire record`: record a stream to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json, Metrics, client_keys

if TYPE_CHECKING:
    pass
from pipelines.verbs.stream.options import Address, Keys, ServerKey, Topics, plain


def record(
    address: Address,
    out: Annotated[str, typer.Option(help="File to write; an existing recording is continued")],
    topic: Topics = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many messages")] = None,
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop with an error after this many seconds of silence")] = None,
    server_key: ServerKey = None,
    keys: Keys = None,
    metrics: Metrics = None,
    as_json: Json = False,
) -> None:
    """Record a stream to a file that survives a kill at any byte."""
    from pipelines.metrics.answering import serve_loop
    from pipelines.running.detect_and_publish import Interrupt
    from pipelines.stream.figures import add_record
    from pipelines.stream.record import RecordSummary
    from pipelines.stream.record import record as record_stream

    summary = RecordSummary()
    with serve_loop(metrics, lambda page: add_record(page, summary), say=console.say) as beat, Interrupt() as interrupt:
        done = record_stream(
            address,
            out,
            topics=topic or ["v1/"],
            count=count,
            duration_s=duration,
            timeout_s=timeout,
            stopping=lambda: beat() or interrupt.requested,
            summary=summary,
            **client_keys(server_key, keys),
        )
    console.show(plain(done), as_json=as_json)
