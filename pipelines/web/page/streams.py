"""Streaming answers: recordings as MP4, images as MJPEG, and events as they happen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Annotated, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engine.clock import NS_PER_S
from engine.errors import ConfigError, EngineError
from engine.events.store.reader import EventReader
from engine.events.store.rows import GapRow, SourceRunRow
from pipelines.web.access import Identity
from pipelines.web.children import BusyError, Jobs
from pipelines.web.page.answers import query_of, record, reply, who
from pipelines.web.page.api import control, source_of
from pipelines.web.page.history import Time, place_of, reading
from pipelines.web.page.hub import Film, Hub, Picture, picture_topic
from pipelines.web.page.rules import answered

MAX_MJPEG = 4
MAX_LISTENERS = 16
MAX_WAITING = 500
ALIVE_S = 15.0
LIST_S, PLAY_S = 30.0, 20.0
MAX_LISTED_S, MAX_PLAYED_S = 8 * 86_400, 6 * 3600
UNSEEING = ("stalled", "offline", "connecting")
OFF = "off"
BOUNDARY = "framewire"


class RecordedQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A time span."""

    begin: Time = msgspec.field(name="from")
    end: Time = msgspec.field(name="to")


class MjpegQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Images per second, and their longer side in pixels."""

    fps: Annotated[int, msgspec.Meta(ge=1, le=30)] = 5
    w: Annotated[int, msgspec.Meta(ge=16, le=8192)] = 640


class Blind(msgspec.Struct):
    """A time span in which the source was not seen, and why: its state, or `off` while no engine watched it."""

    begin: int = msgspec.field(name="from")
    end: int = msgspec.field(name="to")
    cause: str


class Recorded(msgspec.Struct):
    """A source's recordings, and when it was not seen, in UTC ns.

    Attributes:
        is_recorded: whether this run records it.
        pieces: start and end of each recorded piece, in order.
        blind: empty if the run stores no events.
    """

    is_recorded: bool
    pieces: list[tuple[int, int]]
    blind: list[Blind]


class HeldResponse(StreamingResponse):
    """Streams from a stack of contexts, and leaves them at the end, even if the client disconnects."""

    def __init__(self, stack: AsyncExitStack, content: AsyncIterator[bytes], **options: Any) -> None:
        super().__init__(content, **options)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with self._stack:
            await super().__call__(scope, receive, send)


def _span(request: Request, most_s: int) -> RecordedQuery:
    query = query_of(request, RecordedQuery)
    if not 0 < query.end - query.begin <= most_s * NS_PER_S:
        raise HTTPException(422, f"from and to: expected a span of at most {most_s // 3600} hours")
    return query


async def _folder(request: Request) -> str | None:
    """Return the folder of a source's recordings; None if it has none. Raises 404 for an unknown source."""
    view = source_of(request)
    folder: str | None = (await control(request, {"command": "recordings"}))["folders"].get(view.source_id)
    return folder


async def get_recordings(request: Request) -> Response:
    """Return a source's recordings, and when it was not seen, in a span of at most 8 days."""
    span, folder = _span(request, MAX_LISTED_S), await _folder(request)
    name = request.path_params["source_id"]
    blind: list[Blind] = []
    if place_of(request) is not None:

        def work(reader: EventReader) -> list[Blind]:
            return blind_times(reader.source_runs(name), reader.gaps(name, span.begin, span.end), span.begin, span.end)

        blind = await reading(request, work)
    if folder is None:
        return reply(Recorded(False, [], blind))
    job = {"folder": folder, "from_utc_ns": span.begin, "to_utc_ns": span.end}
    found = await answered(request, "recordings", job, LIST_S)
    return reply(Recorded(True, found["pieces"], blind))


def blind_times(runs: Iterable[SourceRunRow], gaps: Iterable[GapRow], begin: int, end: int) -> list[Blind]:
    """Return when a source was not seen within a span: gaps within runs, and the time between runs."""
    found = [Blind(gap.from_utc_ns, gap.to_utc_ns or end, gap.cause) for gap in gaps if gap.cause in UNSEEING]
    at = begin
    for run in sorted(runs, key=lambda run: run.began_utc_ns):
        seen = run.seen_utc_ns if run.reason else max(run.seen_utc_ns, end)
        if seen <= begin or run.began_utc_ns >= end:
            continue
        if run.began_utc_ns > at:
            found.append(Blind(at, run.began_utc_ns, OFF))
        at = max(at, seen)
    if at < end:
        found.append(Blind(at, end, OFF))
    clipped = [Blind(max(each.begin, begin), min(each.end, end), each.cause) for each in found]
    return sorted((each for each in clipped if each.end > each.begin), key=lambda each: each.begin)


async def play(request: Request) -> Response:
    """Send a recording as fragmented MP4, from the keyframe before `from` up to `to` or a change of video format.

    `X-Framewire-Begin` is the wall clock, in UTC ns, at which the time of the media is 0.
    """
    span, folder = _span(request, MAX_PLAYED_S), await _folder(request)
    if folder is None:
        raise HTTPException(404, "this source is not recorded")
    jobs: Jobs = request.app.state.jobs
    job = {"folder": folder, "from_utc_ns": span.begin, "to_utc_ns": span.end}
    stack = AsyncExitStack()
    try:
        running = await stack.enter_async_context(jobs.stream("play", job, PLAY_S))
    except BusyError as error:
        raise HTTPException(429, str(error), {"Retry-After": "2"}) from error
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error
    except EngineError as error:
        raise HTTPException(503, str(error)) from error
    record(request, "played", request.path_params["source_id"], {"from": span.begin, "to": span.end})
    head = running.head
    headers = {"Cache-Control": "no-store", "X-Framewire-Begin": str(head["t0_ns"])}
    kind = f'video/mp4; codecs="{head["codec"]}"'
    return HeldResponse(stack, running.chunks(), media_type=kind, headers=headers)


class Pictures:
    """A watcher that keeps the newest image of a source."""

    def __init__(self, source_id: str, side: int, fps: int) -> None:
        self._topic = picture_topic(source_id, side, fps)
        self._newest: Picture | None = None
        self._ready = asyncio.Event()

    def topics(self) -> Iterable[str]:
        """Return the topic of the images."""
        return (self._topic,)

    def take_text(self, kind: str, source_id: str, text: str) -> None:
        """Ignore messages."""

    def take_film(self, source_id: str, film: Film) -> None:
        """Ignore video."""

    def take_picture(self, topic: str, picture: Picture) -> None:
        """Accept an image, replacing an older one."""
        if topic == self._topic:
            self._newest = picture
            self._ready.set()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of a multipart answer."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            jpeg = b"" if self._newest is None else self._newest.jpeg
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"


class Listener:
    """A watcher of events; if it reads too slowly, it misses the oldest."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._ready = asyncio.Event()

    def topics(self) -> Iterable[str]:
        """Return nothing, because events need no subscription."""
        return ()

    def take_text(self, kind: str, source_id: str, text: str) -> None:
        """Accept an event of a source that the user may see."""
        if kind == "event" and self._identity.may_see(source_id):
            self._waiting.append(text)
            self._ready.set()

    def take_film(self, source_id: str, film: Film) -> None:
        """Ignore video."""

    def take_picture(self, topic: str, picture: Picture) -> None:
        """Ignore images."""

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield server-sent events, and occasional comments so that dead connections are noticed."""
        yield b": framewire\n\n"
        while True:
            try:
                await asyncio.wait_for(self._ready.wait(), ALIVE_S)
            except asyncio.TimeoutError:
                yield b":\n\n"
                continue
            self._ready.clear()
            while self._waiting:
                yield f"event: event\ndata: {self._waiting.popleft()}\n\n".encode()


def _joined(request: Request, watcher: Any, most: int) -> AsyncExitStack:
    """Let a watcher join the hub until the stack is left.

    Raises 429 if there are already as many of its kind as allowed.
    """
    hub: Hub = request.app.state.hub
    open_now: dict[type, int] = request.app.state.open
    kind = type(watcher)
    if open_now.get(kind, 0) >= most:
        raise HTTPException(429, f"{most} such streams are open: close one", {"Retry-After": "5"})
    open_now[kind] = open_now.get(kind, 0) + 1
    hub.join(watcher)

    def leave() -> None:
        hub.leave(watcher)
        open_now[kind] -= 1

    stack = AsyncExitStack()
    stack.callback(leave)
    return stack


async def mjpeg(request: Request) -> Response:
    """Send the images of a source as MJPEG, for programs that support nothing better; at most 4 at a time."""
    view, query = source_of(request), query_of(request, MjpegQuery)
    pictures = Pictures(view.source_id, query.w, query.fps)
    stack = _joined(request, pictures, MAX_MJPEG)
    kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
    return HeldResponse(stack, pictures.parts(), media_type=kind, headers={"Cache-Control": "no-store"})


async def event_stream(request: Request) -> Response:
    """Send events as they happen, as server-sent events in the form of the stream; at most 16 at a time."""
    listener = Listener(who(request))
    stack = _joined(request, listener, MAX_LISTENERS)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return HeldResponse(stack, listener.lines(), media_type="text/event-stream", headers=headers)


STREAM_ROUTES = [
    Route("/recordings/{source_id}", get_recordings),
    Route("/recordings/{source_id}/play", play),
    Route("/sources/{source_id}/mjpeg", mjpeg),
    Route("/events/stream", event_stream),
]
