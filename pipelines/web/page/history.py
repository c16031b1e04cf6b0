"""The API of past events: events, their images and clips, counts, and questions about the past."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.analytics.rules.lines import Crossed
from engine.analytics.rules.zones import Presence
from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError
from engine.events.store.periods import Bucket, periods
from engine.events.store.place import StorePlace, store_place
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.rows import EventRow
from engine.events.store.writer import StoreWriter
from engine.wire import EventMessage
from pipelines.history.listing import as_json
from pipelines.history.replay import replay
from pipelines.web.page.answers import body_of, need, query_of, reply, who
from pipelines.web.page.hub import Hub
from pipelines.web.page.types import LineEdit, ZoneEdit

T = TypeVar("T")
Time = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
MAX_ASKED_S = 31 * 86_400
ASKED = "asked"
MEDIA_TYPES = {".jpg": "image/jpeg", ".webp": "image/webp", ".png": "image/png", ".mp4": "video/mp4"}


class EventQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which events to list; all keys are optional."""

    source: str | None = None
    rule: str | None = None
    severity: str | None = None
    class_name: str | None = msgspec.field(default=None, name="class")
    place: str | None = None
    begin: Time | None = msgspec.field(default=None, name="from")
    end: Time | None = msgspec.field(default=None, name="to")
    reviewed: bool | None = None
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class CountQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which counts to return."""

    source: str
    place: str
    bucket: Bucket = "1h"
    begin: Time | None = msgspec.field(default=None, name="from")
    end: Time | None = msgspec.field(default=None, name="to")
    format: str = "json"


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """A line or zone, which need not exist, to evaluate on the stored paths of a source."""

    source: str
    begin: Time = msgspec.field(name="from")
    end: Time = msgspec.field(name="to")
    line: LineEdit | None = None
    zone: ZoneEdit | None = None


class EventInfo(msgspec.Struct):
    """An event. `snapshot`, `best` and `clip` say whether there is one; `reviewed` refers to the current user."""

    event_id: str
    source_id: str
    rule: str
    severity: str
    place: str
    phase: str
    began_utc_ns: int | None
    ended_utc_ns: int | None
    duration_s: float | None
    reason: str
    class_name: str
    track_ids: list[int]
    why: list[str]
    score: float | None
    snapshot: bool
    best: bool
    clip: bool
    clip_state: str
    clip_reason: str
    kept: bool
    reviewed: bool


class EventPage(msgspec.Struct):
    """Some events, newest first; `cursor` continues after the last one. `stored`: whether the run stores events."""

    events: list[EventInfo]
    cursor: str | None
    stored: bool


class Crossing(msgspec.Struct):
    """A crossing of a line in its direction, or a visit to a zone (`visit`)."""

    utc_ns: int
    class_name: str
    direction: str


class Answer(msgspec.Struct):
    """The counts that a line or zone would have made: totals by direction (or `visit`), and their times."""

    totals: dict[str, int]
    events: list[Crossing]


def place_of(request: Request) -> StorePlace | None:
    """Return where the run stores its events; None if it stores none."""
    settings = request.app.state.hub.settings
    return None if settings.events is None else store_place(settings.events, settings.store)


async def reading(request: Request, work: Callable[[EventReader], T]) -> T:
    """Run a function with a reader of the store, in a thread. Raises 404 without a store, 503 if it cannot be read."""
    place = place_of(request)
    if place is None:
        raise HTTPException(404, "this run stores no events: set events.folder")

    def run() -> T:
        with EventReader(place) as reader:
            return work(reader)

    return await _tried(run)


async def editing(request: Request, work: Callable[[StoreWriter], T]) -> T:
    """Change the store, in a thread. Raises like `reading`."""
    place = place_of(request)
    if place is None:
        raise HTTPException(404, "this run stores no events: set events.folder")

    def run() -> T:
        with StoreWriter.edit(place) as writer:
            return work(writer)

    return await _tried(run)


async def _tried(run: Callable[[], T]) -> T:
    try:
        return await run_in_threadpool(run)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error
    except EngineError as error:
        raise HTTPException(503, str(error)) from error


async def get_events(request: Request) -> Response:
    """Return a page of events, newest first; without a store, those since this process started."""
    query, me = query_of(request, EventQuery), who(request)
    if query.source is not None and not me.may_see(query.source):
        raise HTTPException(404, "there is no such source")
    if place_of(request) is None:
        return reply(EventPage(_heard(request.app.state.hub, query, me.may_see), None, False))
    wanted = EventFilter(
        source_id=query.source,
        rule=query.rule,
        severity=query.severity,
        class_name=query.class_name,
        place=query.place,
        from_utc_ns=query.begin,
        to_utc_ns=query.end,
        reviewed_by=me.name if query.reviewed else None,
        not_reviewed_by=me.name if query.reviewed is False else None,
    )

    def work(reader: EventReader) -> EventPage:
        page = reader.page(wanted, query.cursor, query.limit)
        seen = reader.reviewed(me.name, [event.event_id for event in page.events])
        events = [_event(event, event.event_id in seen) for event in page.events if me.may_see(event.source_id)]
        return EventPage(events, page.cursor, True)

    return reply(await reading(request, work))


def _event(event: EventRow, reviewed: bool) -> EventInfo:
    plain = {**as_json(event), "score": event.facts.get("score"), "reviewed": reviewed}
    return EventInfo(**{**plain, **{name: bool(plain[name]) for name in ("snapshot", "best", "clip")}})


def _heard(hub: Hub, query: EventQuery, may_see: Callable[[str], bool]) -> list[EventInfo]:
    """Return the last message of each event received on the stream, newest first, in the form of stored events."""
    by_id = {message.event_id: message for message in hub.events if may_see(message.source_id)}
    found = [_from_message(message) for message in reversed(by_id.values())]
    wanted = {"source_id": query.source, "rule": query.rule, "severity": query.severity, "place": query.place}
    return [
        event for event in found if all(value is None or getattr(event, key) == value for key, value in wanted.items())
    ]


def _from_message(message: EventMessage) -> EventInfo:
    def of(name: str, other: Any = None) -> Any:
        value = getattr(message, name)
        return other if value is msgspec.UNSET or value is None else value

    names = ("place", "severity", "reason", "class_name")
    fields = {
        "event_id": message.event_id,
        "source_id": message.source_id,
        "rule": of("rule", "") or message.event,
        "phase": of("phase", "point"),
        **{name: of(name, "") for name in names},
        "began_utc_ns": of("began_utc_ns", message.captured_utc_ns),
        "ended_utc_ns": of("ended_utc_ns"),
        "duration_s": of("duration_s"),
        "track_ids": of("track_ids", []),
        "why": of("why", []),
        "score": message.score,
        **dict.fromkeys(("snapshot", "best", "clip", "kept", "reviewed"), False),
        "clip_state": "",
        "clip_reason": "",
    }
    return EventInfo(**fields)


async def find_event(request: Request) -> EventRow:
    """Return the event named in the path. Raises 404."""
    event_id = request.path_params["event_id"]
    found = await reading(request, lambda reader: reader.event(event_id))
    if found is None or not who(request).may_see(found.source_id):
        raise HTTPException(404, "there is no such event")
    return found


async def get_event(request: Request) -> Response:
    """Return one event."""
    event, name = await find_event(request), who(request).name
    seen = await reading(request, lambda reader: reader.reviewed(name, [event.event_id]))
    return reply(_event(event, bool(seen)))


async def get_media(request: Request) -> Response:
    """Return an image or the clip of an event; clips support ranges."""
    event, name = await find_event(request), request.path_params["name"]
    file = {"trigger.jpg": event.snapshot, "best.jpg": event.best, "clip.mp4": event.clip}.get(name)
    place = place_of(request)
    if not file or place is None:
        raise HTTPException(404, event.clip_reason or "this event has none")
    path = inside(place.folder, file)
    if path is None:
        raise HTTPException(404, "the file is gone")
    kind = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


def inside(folder: Path, name: str) -> Path | None:
    """Return the file with a name from the store, if it exists inside the folder."""
    base = folder.resolve()
    path = (base / name).resolve()
    return path if path.is_relative_to(base) and path.is_file() else None


async def change_event(request: Request) -> Response:
    """Mark an event as reviewed or kept by the current user, or undo that."""
    action, me = request.path_params["action"], need(request, "operator")
    event = await find_event(request)
    now = SYSTEM_CLOCK.utc_ns()
    work: dict[str, Callable[[StoreWriter], Any]] = {
        "review": lambda store: store.review(event.event_id, me.name, now),
        "unreview": lambda store: store.review(event.event_id, me.name, None),
        "keep": lambda store: store.keep(event.event_id, kept=True),
        "unkeep": lambda store: store.keep(event.event_id, kept=False),
    }
    if action not in work:
        raise HTTPException(404, "there is no such action")
    await editing(request, work[action])
    return await get_event(request)


async def get_counts(request: Request) -> Response:
    """Return the counts of a line or zone, period by period; days are those of the site."""
    query = query_of(request, CountQuery)
    if not who(request).may_see(query.source):
        raise HTTPException(404, "there is no such source")
    end = SYSTEM_CLOCK.utc_ns() if query.end is None else query.end
    begin = end - 86_400 * NS_PER_S if query.begin is None else query.begin
    zone = request.app.state.zone
    found = await reading(
        request, lambda reader: periods(reader, query.source, query.place, query.bucket, begin, end, zone)
    )
    if query.format == "csv":
        return Response(_csv([asdict(period) for period in found]), media_type="text/csv")
    return reply(found)


def _csv(rows: list[dict[str, Any]]) -> str:
    """Return one line per period, direction and class; a period without counts has one line."""
    text = io.StringIO()
    head = ("begin_utc_ns", "end_utc_ns", "name", "class", "count", "mean", "most", "busy_s", "seen_s", "blind_s")
    writer = csv.writer(text)
    writer.writerow(head)
    for row in rows:
        counts = [(name, kind, n) for name, by in row["counts"].items() for kind, n in by.items()] or [("", "", 0)]
        tail = [row[name] for name in head[5:]]
        writer.writerows([row["begin_utc_ns"], row["end_utc_ns"], *count, *tail] for count in counts)
    return text.getvalue()


async def ask_past(request: Request) -> Response:
    """Return the counts that a line or zone would have made on the stored paths: crossings by direction, or visits."""
    question: Question = await body_of(request, Question)
    if not who(request).may_see(question.source):
        raise HTTPException(404, "there is no such source")
    if (question.line is None) == (question.zone is None):
        raise HTTPException(422, "give either a line or a zone")
    if not 0 < question.end - question.begin <= MAX_ASKED_S * NS_PER_S:
        raise HTTPException(422, "from and to: expected a span of at most 31 days")

    def work(reader: EventReader) -> list[EventRow]:
        return replay(reader, question.source, _scene(question), question.begin, question.end)

    events = await reading(request, work)
    at = [Crossing(event.began_utc_ns, event.class_name, _direction(event)) for event in events]
    totals: dict[str, int] = {} if question.line is None else dict.fromkeys(_directions(question.line), 0)
    for each in at:
        totals[each.direction] = totals.get(each.direction, 0) + 1
    return reply(Answer(totals, at))


def _scene(question: Question) -> Analytics:
    """Return analytics with only the line or zone of a question, and a rule that reports its findings."""
    if question.line is not None:
        line = Line(ASKED, **msgspec.to_builtins(question.line))
        return Analytics((), (line,), (Crossed(ASKED, line=ASKED),))
    zone = msgspec.to_builtins(question.zone)
    zone.pop("ground", None)
    return Analytics((Zone(ASKED, **zone),), (), (Presence(ASKED, zone=ASKED, for_s=0.0),))


def _directions(line: LineEdit) -> tuple[str, str]:
    return line.left_to_right, line.right_to_left


def _direction(event: EventRow) -> str:
    return str(event.facts.get("data", {}).get("direction", "visit"))


HISTORY_ROUTES = [
    Route("/events", get_events),
    Route("/events/{event_id}", get_event, methods=["GET"]),
    Route("/events/{event_id}/{name}", get_media, methods=["GET"]),
    Route("/events/{event_id}/{action}", change_event, methods=["POST"]),
    Route("/counts", get_counts),
    Route("/query/crossings", ask_past, methods=["POST"]),
    Route("/query/visits", ask_past, methods=["POST"]),
]
