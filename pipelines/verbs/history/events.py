"""`framewire events`: the stored events of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.history.media import clip, tidy
from pipelines.verbs.history.options import ID, ConfigOption, FolderOption, LinesOption, StoreOption

if TYPE_CHECKING:
    from engine.events.store.reader import EventFilter
    from pipelines.history.opening import Log

events = typer.Typer(
    name="events", help="Read, export and delete the stored events of a run (events.folder).", no_args_is_help=True
)

events.command()(clip)
events.command()(tidy)
Source = Annotated[str | None, typer.Option(help="Only this source")]
Rule = Annotated[str | None, typer.Option(help="Only this rule")]
Severity = Annotated[str | None, typer.Option(help="Only info, notice or alert")]
Class = Annotated[str | None, typer.Option("--class", help="Only this class")]
Place = Annotated[str | None, typer.Option(help="Only this zone or line")]
From = Annotated[str | None, typer.Option("--from", help="Only events since then: 24h (ago), 2026-11-30T18:00")]
To = Annotated[str | None, typer.Option("--to", help="That began before")]


@events.command(name="list")
def list_events(
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    source: Source = None,
    rule: Rule = None,
    severity: Severity = None,
    class_name: Class = None,
    place: Place = None,
    begin: From = None,
    end: To = None,
    is_open: Annotated[bool | None, typer.Option("--open/--ended", help="Only open events, or only ended ones")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number; 0: all")] = 50,
    as_json: LinesOption = False,
) -> None:
    """List events, newest first."""
    from itertools import islice

    from engine.events.store.reader import EventFilter
    from pipelines.history.listing import as_json as plain
    from pipelines.history.listing import as_line

    log = _open(config, folder, store)
    wanted = EventFilter(source, rule, severity, class_name, place, *_span(log, begin, end), is_open=is_open)
    _check(wanted)
    with log.reader() as reader:
        found = islice(reader.events(wanted), limit or None)
        for event in found:
            if as_json:
                console.result_json(plain(event))
            else:
                console.result(as_line(event, log.zone))


@events.command()
def watch(
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    source: Source = None,
    severity: Severity = None,
    as_json: LinesOption = False,
) -> None:
    """Print events as they begin, change and end, until Ctrl-C."""
    from threading import Event

    from pipelines.history.listing import as_json as plain
    from pipelines.history.listing import as_line
    from pipelines.history.listing import watch as changes

    log = _open(config, folder, store)
    with log.reader() as reader:
        since = reader.now()
        console.say(f"watching {log.place} (Ctrl-C ends)")
        for event in changes(reader, since, Event()):
            if source not in (None, event.source_id) or severity not in (None, event.severity):
                continue
            if as_json:
                console.result_json(plain(event))
            else:
                console.result(as_line(event, log.zone))


@events.command()
def show(
    event_id: ID,
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    as_json: LinesOption = False,
) -> None:
    """Show one event with the facts behind it, its media and the messages sent."""
    from pipelines.history.listing import as_json as plain

    log = _open(config, folder, store)
    with log.reader() as reader:
        event = reader.event(event_id)
        if event is None:
            raise ConfigError(f"there is no event {event_id}: framewire events list shows the stored ones")
        sent = [
            {"action": row.action, "phase": row.phase, "state": row.state, "tries": row.tries, "cause": row.cause}
            for row in reader.actions(event_id)
        ]
    facts = {name: value for name, value in event.facts.items() if name not in ("why", "track_ids")}
    console.show({**plain(event), **facts, "actions": sent}, as_json=as_json)


@events.command()
def keep(
    event_id: ID,
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    off: Annotated[bool, typer.Option("--off", help="Stop protecting it")] = False,
) -> None:
    """Protect an event, its images and its clip from retention."""
    from engine.events.store.writer import StoreWriter

    log = _open(config, folder, store)
    with StoreWriter.edit(log.place) as writer:
        if not writer.keep(event_id, kept=not off):
            raise ConfigError(f"there is no event {event_id}: framewire events list shows the stored ones")
    console.result(f"{event_id}: {'no longer protected' if off else 'kept'}")


@events.command()
def export(
    target: Annotated[str, typer.Argument(help="ZIP file to write")],
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    source: Source = None,
    severity: Severity = None,
    begin: From = None,
    end: To = None,
    media: Annotated[bool, typer.Option(help="With images and clips")] = True,
) -> None:
    """Write events, counts, paths, images and clips of a time span to a ZIP file."""
    from engine.events.store.reader import EventFilter
    from pipelines.history.exporting import export as write

    log = _open(config, folder, store)
    low, high = _span(log, begin, end)
    wanted = EventFilter(source, severity=severity, from_utc_ns=low, to_utc_ns=high)
    _check(wanted)
    counts = write(log.place, wanted, Path(target), media=media)
    console.result(f"{target}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


@events.command()
def delete(
    source: Annotated[str, typer.Option(help="The source")],
    begin: Annotated[str, typer.Option("--from", help="24h (ago), 2026-11-30T18:00")],
    end: Annotated[str, typer.Option("--to", help="End of the span")],
    config: ConfigOption = None,
    folder: FolderOption = None,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    as_json: LinesOption = False,
) -> None:
    """Delete everything of a source in a time span: events (including kept ones), tracks, images, clips, recordings."""
    from pipelines.build.media import recording_folders
    from pipelines.history.deleting import Span, planned
    from pipelines.history.deleting import delete as remove

    log = _open(config, folder, store)
    low, high = _span(log, begin, end)
    span = Span(source, low or 0, high or 0)
    folders = [] if log.config is None else recording_folders(log.config)
    if not yes:
        plan = planned(log.place, span, folders)
        console.say(f"this deletes {plan.events} events and {_files(plan.files)} of {source} permanently")
        if not (sys.stdin is not None and sys.stdin.isatty() and typer.confirm("delete them?")):
            raise ConfigError("nothing was deleted: give --yes to delete")
    gone = remove(log.place, span, folders)
    if as_json:
        console.result_json(gone.as_dict())
        return
    rows = ", ".join(f"{n} {table}" for table, n in (gone.rows or {}).items() if n) or "no rows"
    console.result(f"deleted {gone.events} events, {_files(gone.files)} ({gone.bytes} bytes), and of the rest {rows}")
    for path in gone.failed or ():
        console.fail(f"{path} could not be deleted")
    if gone.failed:
        raise typer.Exit(1)


def _files(files: dict[str, int] | None) -> str:
    return ", ".join(f"{n} {kind}s" for kind, n in (files or {}).items()) or "no files"


def _open(config: str | None, folder: str | None, store: str | None) -> Log:
    from pipelines.history.opening import open_log

    return open_log(config, folder, store)


def _span(log: Log, begin: str | None, end: str | None) -> tuple[int | None, int | None]:
    low, high = log.utc_ns(begin, "from"), log.utc_ns(end, "to")
    if low is not None and high is not None and low >= high:
        raise ConfigError(f"--from {begin} is not before --to {end}")
    return low, high


def _check(wanted: EventFilter) -> None:
    if wanted.severity not in (None, "info", "notice", "alert"):
        raise ConfigError(f"--severity is {wanted.severity!r}; expected one of: info, notice, alert")
