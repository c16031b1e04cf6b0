"""The WebSocket: one per page, for all cameras. A viewer that reads slowly misses images without affecting others."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.wire import encode, topic_for
from pipelines.web.access import Identity
from pipelines.web.access.gate import IDENTITY
from pipelines.web.page.hub import Film, Hub, Picture, picture_topic

logger = logging.getLogger(__name__)
MAX_WATCHED = 64
MAX_VIEWERS = 64
MAX_WAITING_BYTES = 2_000_000
SEND_TIMEOUT_S = 20.0
TOO_MANY, BAD_MESSAGE = 1013, 1008
JPEG, INIT, FRAGMENT = 1, 2, 3
KEY = 1
HEADER = struct.Struct(">BBHIqq")
"""Binary messages: kind, flags, index of the source, stream_epoch, frame_id, captured_utc_ns; then the payload.

For video, the number of the media's start replaces `stream_epoch`, and `pts_ns` replaces `frame_id`; an init segment
begins with the codec's name and a zero, and has `t0_ns` instead.
"""


class JpegWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """JPEGs that a page wants.

    Attributes:
        fps: at most this many per second.
        w: width of the tile in device pixels.
    """

    fps: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10
    w: Annotated[int, msgspec.Meta(ge=1, le=8192)] = 640


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page wants of one source.

    Attributes:
        boxes: its frame messages.
        jpeg: its images.
        video: the camera's own video.
    """

    boxes: bool = False
    jpeg: JpegWish | None = None
    video: bool = False


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message from the page: everything that it watches from now on, by source."""

    watch: dict[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], Wish]


class Viewer:
    """One connected page.

    Args:
        socket: its connection.
        hub: the streams.
        identity: its user.

    Attributes:
        skipped: images that it was too slow for.
    """

    kind = "live"

    def __init__(self, socket: WebSocket, hub: Hub, identity: Identity) -> None:
        self.skipped = 0
        self._identity = identity
        self._socket = socket
        self._hub = hub
        self._wishes: dict[str, Wish] = {}
        self._topics: dict[str, str] = {}
        self._index: dict[str, int] = {}
        self._texts: deque[str] = deque()
        self._text_bytes = 0
        self._pictures: dict[str, bytes] = {}
        self._films: deque[tuple[str, bytes]] = deque()
        self._film_bytes = 0
        self._behind: set[str] = set()
        self._last_init: dict[str, tuple[int, bytes]] = {}
        self._ready = asyncio.Event()
        self._sending_since: float | None = None

    def topics(self) -> Iterable[str]:
        """Return the topics that the viewer wants."""
        return self._topics

    def take_text(self, kind: str, source_id: str, text: str) -> None:
        """Queue a message of the stream; frames only of the sources that it watches."""
        if source_id and not self._identity.may_see(source_id):
            return
        if kind == "frame":
            wish = self._wishes.get(source_id)
            if wish is None or not wish.boxes:
                return
        self._put(text)

    def take_picture(self, topic: str, picture: Picture) -> None:
        """Queue an image, replacing an older one of the same source that is still waiting."""
        if topic not in self._topics or picture.source_id not in self._index:
            return
        if picture.source_id in self._pictures:
            self._skip(picture.source_id)
        head = HEADER.pack(
            JPEG,
            0,
            self._index[picture.source_id],
            picture.stream_epoch & 0xFFFFFFFF,
            picture.frame_id,
            picture.captured_utc_ns,
        )
        self._pictures[picture.source_id] = head + picture.jpeg
        self._ready.set()

    def take_film(self, source_id: str, film: Film) -> None:
        """Queue a piece of video; a viewer that is too slow continues at the next keyframe."""
        wish = self._wishes.get(source_id)
        if wish is None or not wish.video:
            return
        head = film.head
        if head.init:
            init = head.start, film.data  # same bytes, another start: the camera has reconnected
            if self._last_init.get(source_id) == init:
                return
            self._last_init[source_id] = init
        elif self._film_bytes > MAX_WAITING_BYTES and source_id not in self._behind:
            self._behind.add(source_id)
        if source_id in self._behind and not head.init:
            if not head.key or self._film_bytes > MAX_WAITING_BYTES // 2:
                self._skip(source_id)
                return
            self._behind.discard(source_id)
        kind, at_ns = (INIT, head.t0_ns) if head.init else (FRAGMENT, head.pts_ns)
        payload = head.codec.encode() + b"\0" + film.data if head.init else film.data
        packed = HEADER.pack(
            kind, KEY * head.key, self._index[source_id], head.start & 0xFFFFFFFF, at_ns, head.captured_utc_ns
        )
        self._films.append((source_id, packed + payload))
        self._film_bytes += len(packed) + len(payload)
        self._ready.set()

    async def run(self) -> None:
        """Serve the page until it leaves, stops reading or sends something invalid."""
        self._greet()
        self._hub.join(self)
        tasks = [asyncio.create_task(work) for work in (self._send(), self._receive(), self._stuck())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError | OSError):
                    raise error
        finally:
            self._hub.leave(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _greet(self) -> None:
        """Queue the last state of every source."""
        self._put('{"schema":"engine","lost":%s}' % ("true" if self._hub.is_silent else "false"))
        for view in self._hub.sources.values():
            if not self._identity.may_see(view.source_id):
                continue
            for message in (view.status, view.stats, view.analytics):
                if message is not None:
                    self._put(encode(message).decode())

    def _skip(self, source_id: str) -> None:
        self.skipped += 1
        self._hub.skipped[source_id] += 1

    def _put(self, text: str) -> None:
        self._texts.append(text)
        self._text_bytes += len(text)
        while self._text_bytes > MAX_WAITING_BYTES:
            self._text_bytes -= len(self._texts.popleft())
            self.skipped += 1
        self._ready.set()

    async def _send(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._texts or self._pictures or self._films:
                while self._texts:
                    text = self._texts.popleft()
                    self._text_bytes -= len(text)
                    await self._pass_on(self._socket.send_text(text))
                for _ in range(len(self._films)):
                    source_id, data = self._films.popleft()
                    self._film_bytes -= len(data)
                    self._hub.video_bytes[source_id] += len(data)
                    await self._pass_on(self._socket.send_bytes(data))
                if self._pictures:
                    source_id = next(iter(self._pictures))
                    data = self._pictures.pop(source_id)
                    self._hub.picture_bytes[source_id] += len(data)
                    await self._pass_on(self._socket.send_bytes(data))

    async def _pass_on(self, sending: Awaitable[None]) -> None:
        self._sending_since = asyncio.get_running_loop().time()
        await sending
        self._sending_since = None

    async def _stuck(self) -> None:
        """Return when a message could not be sent for `SEND_TIMEOUT_S`. One timer costs less than one per message."""
        while self._sending_since is None or asyncio.get_running_loop().time() - self._sending_since < SEND_TIMEOUT_S:
            await asyncio.sleep(1.0)

    async def _receive(self) -> None:
        while True:
            text = await self._socket.receive_text()
            try:
                request = msgspec.json.decode(text, type=Request)
                if len(request.watch) > MAX_WATCHED:
                    raise msgspec.ValidationError(f"more than {MAX_WATCHED} sources")
            except (msgspec.MsgspecError, RecursionError) as error:
                await self._socket.close(BAD_MESSAGE, str(error)[:100])
                return
            self._watch(request.watch)

    def _watch(self, wishes: dict[str, Wish]) -> None:
        known = {name: wish for name, wish in wishes.items() if self._identity.may_see(name)}
        for name in known:
            self._index.setdefault(name, len(self._index))
        begun = [name for name, wish in known.items() if wish.video and not self._has_video(name)]
        for name in [name for name in self._last_init if name not in known or not known[name].video]:
            del self._last_init[name]
        self._wishes = known
        self._topics = {}
        for name, wish in known.items():
            if wish.boxes:
                self._topics[topic_for("frame", name)] = name
            if wish.video:
                self._topics[topic_for("video", name)] = name
            if wish.jpeg is not None:
                self._topics[picture_topic(name, wish.jpeg.w, wish.jpeg.fps)] = name
        names = msgspec.json.encode({"schema": "index", "sources": self._index}).decode()
        self._put(names)
        for name in begun:
            for film in self._hub.films(name):
                self.take_film(name, film)
        self._hub.demand_changed()

    def _has_video(self, name: str) -> bool:
        wish = self._wishes.get(name)
        return wish is not None and wish.video


async def live(socket: WebSocket) -> None:
    """Serve one page; beyond 64 pages, ask the client to try again later."""
    hub: Hub = socket.app.state.hub
    identity: Identity | None = socket.scope.get(IDENTITY)
    if identity is None:
        await socket.close(BAD_MESSAGE, "log in first")
        return
    await socket.accept()
    if hub.watchers >= MAX_VIEWERS:
        await socket.close(TOO_MANY, "too many viewers")
        return
    with suppress(asyncio.TimeoutError):
        await Viewer(socket, hub, identity).run()
    with suppress(RuntimeError, OSError, WebSocketDisconnect):
        await socket.close()


class OnePicture:
    """A watcher that waits for a single image, for stills."""

    kind = "still"

    def __init__(self, source_id: str, side: int) -> None:
        self._topic = picture_topic(source_id, side, 30)
        self.picture: asyncio.Future[Picture] = asyncio.get_running_loop().create_future()

    def topics(self) -> Iterable[str]:
        """Return the topic of the image."""
        return (self._topic,)

    def take_text(self, kind: str, source_id: str, text: str) -> None:
        """Ignore messages."""

    def take_film(self, source_id: str, film: Film) -> None:
        """Ignore video."""

    def take_picture(self, topic: str, picture: Picture) -> None:
        """Accept the first image of the right size."""
        if topic == self._topic and not self.picture.done():
            self.picture.set_result(picture)


async def still(hub: Hub, source_id: str, side: int, timeout_s: float = 3.0) -> Picture | None:
    """Return the next image of a source; None if none arrives in time."""
    one: Any = OnePicture(source_id, side)
    hub.join(one)
    try:
        return await asyncio.wait_for(one.picture, timeout_s)
    except asyncio.TimeoutError:
        return None
    finally:
        hub.leave(one)
