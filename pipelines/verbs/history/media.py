"""`framewire events clip` and `tidy`: the media of the event log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.history.options import ID, ConfigOption, FolderOption, LinesOption, StoreOption


def clip(
    event_id: ID,
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Copy it to this file (.mp4)")] = None,
    before: Annotated[
        float | None, typer.Option(min=0, max=3600, help="Other seconds before the event; needs --output")
    ] = None,
    after: Annotated[float | None, typer.Option(min=0, max=3600, help="Other seconds after it; needs --output")] = None,
    as_json: LinesOption = False,
) -> None:
    """Show where the clip of an event is, or cut it from the recording if there is none."""
    from pipelines.history.clipping import clip_of
    from pipelines.history.opening import open_log

    log = open_log(config, folder, store)
    found = clip_of(log, event_id, None if output is None else Path(output), before, after)
    console.show(found.as_dict(), as_json=as_json)
    if not found.paths:
        raise typer.Exit(1)


def tidy(
    config: Annotated[str, typer.Option(help="Configuration of the run")],
    yes: Annotated[bool, typer.Option("--yes", help="Also delete more than a third at once")] = False,
    as_json: LinesOption = False,
) -> None:
    """Adopt media missing from the log, and delete what exceeds the limits of events.keep."""
    from pipelines.history.opening import open_log
    from pipelines.history.tidying import as_lines, tidy_log

    report = tidy_log(open_log(config, None), yes=yes)
    if as_json:
        console.result_json(report)
    else:
        for line in as_lines(report):
            console.result(line)
    if report["asks"]:
        console.fail(report["asks"])
        raise typer.Exit(1)
