"""Options shared by several commands on the event log."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigOption = Annotated[str | None, typer.Option(help="Configuration of the run")]
FolderOption = Annotated[str | None, typer.Option(help="Its events.folder, instead of --config")]
StoreOption = Annotated[str | None, typer.Option(help="With --folder: its events.store (postgresql://…)")]
LinesOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line")]
ID = Annotated[str, typer.Argument(help="event_id", metavar="ID")]
