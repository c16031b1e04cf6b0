"""Options and helpers shared by the stream verbs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    pass

Address = Annotated[str, typer.Argument(help="Address of a publisher: tcp://127.0.0.1:5555")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Topics start with this; repeat for several")]
ServerKey = Annotated[str | None, typer.Option(help="File NAME.key of a publisher that encrypts")]
Keys = Annotated[str | None, typer.Option(help="File NAME.key_secret of this reader")]


def plain(summary: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; counters become plain tables (`asdict` cannot copy them)."""
    values = {one.name: getattr(summary, one.name) for one in fields(summary)}
    return {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
