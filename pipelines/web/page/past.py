"""The API of past observations: paths of tracks, occupancy, dwell and heat, and deleting a time span."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.events.store.reader import EventReader
from engine.events.track_paths import unpack
from pipelines.history.heat import heat_between, heat_png
from pipelines.web.access import Identity
from pipelines.web.page.answers import body_of, need, query_of, record, reply, who
from pipelines.web.page.api import control
from pipelines.web.page.history import MAX_ASKED_S, Time, find_event, place_of, reading
from pipelines.web.page.rules import answered

DAY_NS = 86_400 * NS_PER_S
MAX_TRACKS = 2000
DELETE_S = 120.0
CONFIRM_NS = 300 * NS_PER_S
MAX_CONFIRMATIONS = 100
DECIMALS = 4
BOUNDS_S = (5, 10, 30, 60, 120, 300, 600, 1800)
Format = Literal["json", "csv"]


class SpanQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A time span of a source; by default the last day."""

    source: str
    begin: Time | None = msgspec.field(default=None, name="from")
    end: Time | None = msgspec.field(default=None, name="to")


class PlaceQuery(SpanQuery):
    """A time span at a zone."""

    place: str | None = None
    format: Format = "json"


class HeatQuery(SpanQuery):
    """A time span, one class or all, and the form of the answer."""

    class_name: str | None = msgspec.field(default=None, name="class")
    format: Literal["json", "png"] = "json"


class TrackPath(msgspec.Struct):
    """A piece of a track's path.

    Attributes:
        track_id: of the object in its run.
        class_name: its class.
        began_utc_ns: time of the first point.
        ended_utc_ns: of the last one.
        points: seconds since the start, then the middle of the box's lower edge, its width and its height, as fractions
            of the frame; from a point of height 0 to the next one, the object was not seen.
    """

    track_id: int
    class_name: str
    began_utc_ns: int
    ended_utc_ns: int
    points: list[tuple[float, float, float, float, float]]


class TracksPage(msgspec.Struct):
    """Paths by start; `is_whole` is false if there were more than 2000."""

    tracks: list[TrackPath]
    is_whole: bool


class Occupancy(msgspec.Struct):
    """A zone's occupancy in a minute: mean and largest number of objects, busy seconds, and observed seconds."""

    begin_utc_ns: int
    place: str
    mean: float
    most: int
    busy_s: float
    seen_s: float


class Visit(msgspec.Struct):
    """A visit to a zone; `duration_s` is null while it continues."""

    began_utc_ns: int
    place: str
    class_name: str
    duration_s: float | None


class Dwell(msgspec.Struct):
    """How long visits lasted: statistics in seconds, and the number of visits up to each bound (the last: longer)."""

    visits: int
    mean_s: float
    median_s: float
    p90_s: float
    longest_s: float
    histogram: list[tuple[float | None, int]]
    newest: list[Visit]


class HeatMap(msgspec.Struct):
    """Seconds in which the lower middle of objects was in each cell: rows from the top, cells from the left."""

    rows: list[list[float]]


class DeleteWish(msgspec.Struct, forbid_unknown_fields=True):
    """A time span of a source to delete; `token` confirms the plan from a request without it."""

    source: str
    begin: Time = msgspec.field(name="from")
    end: Time = msgspec.field(name="to")
    token: Annotated[str, msgspec.Meta(max_length=100)] | None = None


class TokenQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The token from the answer to a request without it."""

    token: Annotated[str, msgspec.Meta(max_length=100)] | None = None


class Deletion(msgspec.Struct):
    """What was or would be deleted. `token` confirms it within five minutes; null: it is done.

    Attributes:
        token: send it with the same request.
        events: number of events, kept ones included.
        files: number of files by kind.
        bytes: of the files.
        failed: files that could not be removed.
    """

    token: str | None
    events: int
    files: dict[str, int]
    bytes: int
    failed: list[str] = []


class _Span(NamedTuple):
    source: str
    begin: int
    end: int


def _span(request: Request, query: SpanQuery, most_ns: int = MAX_ASKED_S * NS_PER_S) -> _Span:
    """Return the time span of a request. Raises 404 for a source that the user may not see, 422."""
    if not who(request).may_see(query.source):
        raise HTTPException(404, "there is no such source")
    end = SYSTEM_CLOCK.utc_ns() if query.end is None else query.end
    begin = end - DAY_NS if query.begin is None else query.begin
    if not 0 < end - begin <= most_ns:
        raise HTTPException(422, f"from and to: expected a span of at most {most_ns // DAY_NS} days")
    return _Span(query.source, begin, end)


async def get_tracks(request: Request) -> Response:
    """Return the stored paths of the tracks of a source that overlap a span of at most a day."""
    span = _span(request, query_of(request, SpanQuery), DAY_NS)

    def work(reader: EventReader) -> TracksPage:
        found: list[TrackPath] = []
        for row in reader.tracks(*span):
            if len(found) == MAX_TRACKS:
                return TracksPage(found, False)
            seconds, boxes = unpack(row.path)
            points = np.round(np.column_stack((seconds, boxes)), DECIMALS).tolist()
            ids = row.track_id, row.class_name, row.began_utc_ns, row.ended_utc_ns
            found.append(TrackPath(*ids, points))
        return TracksPage(found, True)

    return reply(await reading(request, work))


async def get_occupancy(request: Request) -> Response:
    """Return the occupancy of a source's zones, minute by minute."""
    query = query_of(request, PlaceQuery)
    span = _span(request, query)

    def work(reader: EventReader) -> list[Occupancy]:
        return [
            Occupancy(
                row.minute * 60 * NS_PER_S,
                row.place,
                round(row.object_s / row.seen_s, DECIMALS) if row.seen_s else 0.0,
                row.most,
                round(row.busy_s, 3),
                round(row.seen_s, 3),
            )
            for row in reader.occupancy(*span, query.place)
        ]

    found = await reading(request, work)
    return _table(found, Occupancy) if query.format == "csv" else reply(found)


async def get_dwell(request: Request) -> Response:
    """Return how long the visits to a source's zones lasted."""
    query = query_of(request, PlaceQuery)
    span = _span(request, query)

    def work(reader: EventReader) -> list[Visit]:
        rows = [row for row in reader.facts(*span, query.place) if row.kind == "visit"]
        return [Visit(row.began_utc_ns, row.place, row.class_name, row.duration_s) for row in rows]

    visits = await reading(request, work)
    return _table(visits, Visit) if query.format == "csv" else reply(_dwell(visits))


def _dwell(visits: Sequence[Visit]) -> Dwell:
    lasted = np.array([visit.duration_s for visit in visits if visit.duration_s is not None])
    newest = list(visits[:-101:-1])
    if not len(lasted):
        return Dwell(len(visits), 0.0, 0.0, 0.0, 0.0, [(bound, 0) for bound in (*BOUNDS_S, None)], newest)
    counts = np.bincount(np.searchsorted(BOUNDS_S, lasted), minlength=len(BOUNDS_S) + 1).tolist()
    return Dwell(
        visits=len(visits),
        mean_s=round(float(lasted.mean()), 3),
        median_s=round(float(np.median(lasted)), 3),
        p90_s=round(float(np.percentile(lasted, 90)), 3),
        longest_s=round(float(lasted.max()), 3),
        histogram=list(zip((*BOUNDS_S, None), counts, strict=True)),
        newest=newest,
    )


def _table(rows: Iterable[msgspec.Struct], kind: type[msgspec.Struct]) -> Response:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(kind.__struct_fields__)
    writer.writerows([getattr(row, name) for name in kind.__struct_fields__] for row in rows)
    return Response(text.getvalue(), media_type="text/csv")


async def get_heat(request: Request) -> Response:
    """Return where objects have spent their time, as 36 rows of 64 cells, or as a PNG to overlay on an image."""
    query = query_of(request, HeatQuery)
    span = _span(request, query)
    grid = await reading(request, lambda reader: heat_between(reader, *span, query.class_name))
    if query.format == "png":
        return Response(heat_png(grid), headers={"Cache-Control": "no-store"}, media_type="image/png")
    return reply(HeatMap(np.round(grid, 1).tolist()))


class Confirmations:
    """Planned deletions waiting for confirmation by the same person."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, Any, int]] = {}

    def plan(self, name: str, what: Any) -> str:
        """Store a planned deletion, and return the token that confirms it."""
        now = SYSTEM_CLOCK.monotonic_ns()
        self._waiting = {key: each for key, each in self._waiting.items() if each[2] > now}
        while len(self._waiting) >= MAX_CONFIRMATIONS:
            del self._waiting[next(iter(self._waiting))]
        token = secrets.token_urlsafe(16)
        self._waiting[token] = name, what, now + CONFIRM_NS
        return token

    def take(self, token: str, name: str, what: Any) -> bool:
        """Return whether a token confirms exactly this deletion; each token works once."""
        return self._waiting.pop(token, ("", None, 0))[:2] == (name, what)


async def delete_span(request: Request) -> Response:
    """Delete events, tracks, images, clips and recordings of a source's time span; first plan it, then confirm it."""
    me = need(request, "admin")
    wish: DeleteWish = await body_of(request, DeleteWish)
    if not me.may_see(wish.source):
        raise HTTPException(404, "there is no such source")
    if wish.end <= wish.begin:
        raise HTTPException(422, "from and to: expected a time span")
    return await _delete(request, me, _Span(wish.source, wish.begin, wish.end), None, wish.token)


async def delete_event(request: Request) -> Response:
    """Delete one event with its images and its clip; first plan it, then confirm it."""
    me, event = need(request, "admin"), await find_event(request)
    token = query_of(request, TokenQuery).token
    return await _delete(request, me, _Span(event.source_id, 0, 0), event.event_id, token)


async def _delete(request: Request, me: Identity, span: _Span, event_id: str | None, token: str | None) -> Response:
    settings, confirmations = request.app.state.hub.settings, request.app.state.confirmations
    if place_of(request) is None:
        raise HTTPException(404, "this run stores no events: set events.folder")
    what = (*span, event_id)
    if token is not None and not confirmations.take(token, me.name, what):
        raise HTTPException(409, "the token does not confirm this: ask again without it, and confirm within 5 minutes")
    job = {
        "events": settings.events,
        "store": settings.store,
        "source": span.source,
        "from_utc_ns": span.begin,
        "to_utc_ns": span.end,
        "event_id": event_id,
        "folders": [] if event_id else list((await control(request, {"command": "recordings"}))["folders"].values()),
        "yes": token is not None,
    }
    found = await answered(request, "delete", job, DELETE_S)
    if token is not None:
        record(request, "deleted", event_id or span.source, {"from": span.begin, "to": span.end, **found})
    done = Deletion(None if token is not None else confirmations.plan(me.name, what), **found)
    return reply(done, headers={"Cache-Control": "no-store"})


PAST_ROUTES = [
    Route("/tracks", get_tracks),
    Route("/occupancy", get_occupancy),
    Route("/dwell", get_dwell),
    Route("/heat", get_heat),
    Route("/delete", delete_span, methods=["POST"]),
    Route("/events/{event_id}", delete_event, methods=["DELETE"]),
]
