"""The engine's stream as the page sees it: the last state of every source, and the watchers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import zmq
import zmq.asyncio

from engine.errors import WireError
from engine.transport.connect import Connection
from engine.transport.keys import load_key_pair, load_public_key
from engine.wire import (
    AnalyticsMessage,
    EosMessage,
    EventMessage,
    FrameMessage,
    HeartbeatMessage,
    Message,
    SnapshotMessage,
    StatsMessage,
    StatusMessage,
    decode,
    encode,
    topic_for,
)
from engine.wire.codec import MAX_BODY_BYTES, source_in_topic
from engine.wire.media import VideoMessage
from pipelines.web.page.settings import Settings

logger = logging.getLogger(__name__)
ALWAYS = ("status", "stats", "event", "analytics", "heartbeat", "eos")
STREAM_QUEUE = 2000
MEDIA_QUEUE = 1000
SNAPSHOT_RETRY_S = 1.0
LOST_AFTER_S = 3.5
MAX_SOURCES = 1000
GATHER_S, MAX_GATHERED = 0.03, 256
MAX_EVENTS = 500
MAX_KEPT_BYTES = 8_000_000
_VIDEO = msgspec.json.Decoder(VideoMessage)
SIDES = (320, 640, 960, 1280, 1920)
RATES = (1, 2, 5, 10, 15, 30)


class Picture(msgspec.Struct, frozen=True):
    """A JPEG of one frame.

    Attributes:
        source_id: the camera or file.
        stream_epoch: of the frame.
        frame_id: of the frame.
        captured_utc_ns: when it was captured.
        jpeg: the file.
    """

    source_id: str
    stream_epoch: int
    frame_id: int
    captured_utc_ns: int
    jpeg: bytes


class Film(msgspec.Struct, frozen=True):
    """An init segment or a fragment of a camera's own video.

    Attributes:
        head: what it is.
        data: of the MP4.
    """

    head: VideoMessage
    data: bytes


class Watcher(Protocol):
    """A watcher, which is offered every message that arrives."""

    kind: str
    """How it watches, such as `live`."""

    def topics(self) -> Iterable[str]:
        """Return the topics of frames and images that the watcher currently wants."""

    def take_text(self, kind: str, source_id: str, text: str) -> None:
        """Accept a message of the stream as JSON."""

    def take_picture(self, topic: str, picture: Picture) -> None:
        """Take an image."""

    def take_film(self, source_id: str, film: Film) -> None:
        """Accept a piece of video."""


@dataclass
class SourceView:
    """The newest messages about one source."""

    source_id: str
    status: StatusMessage | None = None
    stats: StatsMessage | None = None
    analytics: AnalyticsMessage | None = None
    frame: FrameMessage | None = None
    is_over: bool = False
    log: deque[StatusMessage] = field(default_factory=lambda: deque(maxlen=50))
    rates: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=600))


def picture_topic(source_id: str, side: int, fps: int) -> str:
    """Return the media topic for images of at least this size and rate, among those that the engine offers.

    >>> picture_topic("gate", 500, 4)
    'v1/picture/gate/640/5/'
    """
    wide = next((each for each in SIDES if each >= side), SIDES[-1])
    fast = next((each for each in RATES if each >= fps), RATES[-1])
    return f"{topic_for('picture', source_id)}{wide}/{fast}/"


class Hub:
    """Reads the engine's sockets, and offers every message to the watchers that want it.

    Args:
        settings: the addresses.

    Attributes:
        sources: by name.
        events: the newest events about zones, lines and rules, oldest first.
        heartbeat: the newest one; `heard_s` is its arrival by the monotonic clock.
        video_bytes: bytes of video sent to viewers, by source; `picture_bytes` likewise.
        skipped: images and pieces of video that viewers were too slow for, by source.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sources: dict[str, SourceView] = {}
        self.events: deque[EventMessage] = deque(maxlen=MAX_EVENTS)
        self.heartbeat: HeartbeatMessage | None = None
        self.heard_s = time.monotonic()
        self.malformed = 0
        self.video_bytes: Counter[str] = Counter()
        self.picture_bytes: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._watchers: set[Watcher] = set()
        self._wanted: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._needs_snapshot: list[asyncio.Event] = []
        self._runs: dict[str, int] = {}
        self._is_lost = False
        self._films: dict[str, list[Film]] = {}
        self._film_seq: dict[str, int] = {}
        self._stream: Any = None
        self._media: Any = None

    @property
    def is_connected(self) -> bool:
        """Whether the engine has been heard from recently."""
        return self.heartbeat is not None and time.monotonic() - self.heard_s < LOST_AFTER_S

    @property
    def is_silent(self) -> bool:
        """Whether nothing has been heard from the engine for several heartbeats."""
        return time.monotonic() - self.heard_s >= LOST_AFTER_S

    async def open(self) -> None:
        """Connect and start reading."""
        settings = self.settings
        server_key = load_public_key(settings.server_key) if settings.server_key else None
        keys = load_key_pair(settings.keys) if settings.keys else None
        topics = [f"v1/{kind}/" for kind in ALWAYS]
        self._connection = Connection(STREAM_QUEUE, MAX_BODY_BYTES, server_key, keys, zmq.asyncio.Context())
        self._connections = [self._connection]
        (self._stream,) = self._connection.subscribe(_each(settings.publish), topics)
        self._tasks = [asyncio.create_task(self._read_stream()), asyncio.create_task(self._watch_engine())]
        if settings.media is not None:
            media = Connection(MEDIA_QUEUE, MAX_BODY_BYTES, server_key, keys, zmq.asyncio.Context())
            (self._media,) = media.subscribe(_each(settings.media), ())
            media.start()
            self._connections.append(media)
            self._tasks.append(asyncio.create_task(self._read_media(media)))
        if settings.snapshot is not None:
            for address in _each(settings.snapshot):
                needed = asyncio.Event()
                self._needs_snapshot.append(needed)
                self._ask_for_snapshots()
                reading = self._read_snapshots(self._connection.dealer(address), needed)
                self._tasks.append(asyncio.create_task(reading))
        self._connection.start()

    async def close(self) -> None:
        """Disconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.close()

    def join(self, watcher: Watcher) -> None:
        """Offer messages to this watcher from now on."""
        self._watchers.add(watcher)
        self.demand_changed()

    def leave(self, watcher: Watcher) -> None:
        """Offer no more messages to this watcher."""
        self._watchers.discard(watcher)
        self.demand_changed()

    @property
    def watchers(self) -> int:
        """Number of watchers."""
        return len(self._watchers)

    def viewers(self) -> Counter[str]:
        """Return the number of watchers of each kind. May be called from any thread."""
        return Counter(watcher.kind for watcher in self._watchers.copy())

    @property
    def wanted(self) -> list[str]:
        """Topics of frames, images and video that are being watched."""
        return sorted(self._wanted)

    def demand_changed(self) -> None:
        """Subscribe to exactly what the watchers want, because the engine produces nothing else."""
        wanted = Counter(topic for watcher in self._watchers for topic in set(watcher.topics()))
        for topic in wanted.keys() - self._wanted.keys():
            self._set(zmq.SUBSCRIBE, topic)
        for topic in self._wanted.keys() - wanted.keys():
            self._set(zmq.UNSUBSCRIBE, topic)
            self._films.pop(topic, None)
        self._wanted = wanted

    def films(self, source_id: str) -> list[Film]:
        """Return the video since the last keyframe, preceded by its init segment, for a watcher that joins."""
        kept = self._films.get(topic_for("video", source_id))
        return [] if kept is None else list(kept)

    def _set(self, option: int, topic: str) -> None:
        socket = self._media if topic.startswith(("v1/picture/", "v1/video/")) else self._stream
        if socket is not None:
            socket.setsockopt(option, topic.encode())

    async def _read_stream(self) -> None:
        async for parts in _gathered(self._stream, self._connection):
            try:
                self._take(parts[0].decode(), parts[1])
            except (WireError, ValueError, IndexError) as error:
                self.malformed += 1
                logger.debug("a message was skipped: %s", error)

    def _take(self, topic: str, body: bytes) -> None:
        kind = topic.split("/")[1]
        if kind == "frame":  # the most frequent kind: forwarded without decoding
            source_id = source_in_topic(topic)
            text = body.decode() if body[:1] == b"{" else encode(decode(body)).decode()
            for watcher in self._watchers:
                watcher.take_text(kind, source_id, text)
            return
        message = decode(body)
        self._apply(message)
        source_id = getattr(message, "source_id", "")
        text = encode(message).decode()
        for watcher in self._watchers:
            watcher.take_text(kind, source_id, text)

    def _apply(self, message: Message) -> None:
        if isinstance(message, HeartbeatMessage):
            if self._runs.get(message.engine_id) != message.run_epoch or not self.is_connected:
                self._ask_for_snapshots()
            if len(self._runs) < MAX_SOURCES or message.engine_id in self._runs:
                self._runs[message.engine_id] = message.run_epoch
            self.heartbeat, self.heard_s = message, time.monotonic()
            return
        if isinstance(message, EventMessage):
            if message.phase is not msgspec.UNSET:
                self.events.append(message)
            return
        if isinstance(message, SnapshotMessage) or (view := self._view(message.source_id)) is None:
            return
        if isinstance(message, StatusMessage):
            view.status, view.is_over = message, message.state == "ended"
            view.log.append(message)
        elif isinstance(message, StatsMessage):
            view.stats = message
            view.rates.append((message.published_utc_ns, message.fps, message.latency_ms.get("p99", 0.0)))
        elif isinstance(message, AnalyticsMessage):
            view.analytics = message
        elif isinstance(message, EosMessage):
            view.is_over = True

    def _view(self, source_id: str) -> SourceView | None:
        view = self.sources.get(source_id)
        if view is None and len(self.sources) < MAX_SOURCES:
            view = self.sources[source_id] = SourceView(source_id)
        return view

    async def _read_media(self, media: Connection) -> None:
        async for parts in _gathered(self._media, media):
            try:
                topic, (body, jpeg) = parts[0].decode(), parts[1:]
                if topic.startswith("v1/video/"):
                    self._take_film(topic, body, jpeg)
                    continue
                message: Any = decode(body)
                picture = Picture(
                    message.source_id, message.stream_epoch, message.frame_id, message.captured_utc_ns, jpeg
                )
            except (WireError, ValueError, AttributeError):
                self.malformed += 1
                continue
            for watcher in self._watchers:
                watcher.take_picture(topic, picture)

    def _take_film(self, topic: str, body: bytes, data: bytes) -> None:
        try:
            film = Film(_VIDEO.decode(body), data)
        except msgspec.MsgspecError:
            self.malformed += 1
            return
        kept, seq = self._films.setdefault(topic, []), film.head.seq
        is_next = seq == self._film_seq.get(topic, seq - 1) + 1
        self._film_seq[topic] = seq
        if film.head.init:
            kept[:] = [film]
        elif not (is_next and kept):  # an image was lost, so those up to the next keyframe cannot be decoded
            kept.clear()
            return
        elif sum(len(each.data) for each in kept) + len(data) <= MAX_KEPT_BYTES:
            kept.append(film)
        for watcher in self._watchers:
            watcher.take_film(film.head.source_id, film)

    def _ask_for_snapshots(self) -> None:
        for needed in self._needs_snapshot:
            needed.set()

    async def _read_snapshots(self, socket: Any, needed: asyncio.Event) -> None:
        """Request the state of all sources when it may have been missed: at the start, and after a restart."""
        while True:
            await needed.wait()
            with suppress(zmq.Again):
                await socket.send(b"", zmq.NOBLOCK)
            try:
                frames = await asyncio.wait_for(socket.recv_multipart(copy=False), SNAPSHOT_RETRY_S)
                snapshot = decode(self._connection.taken(frames)[-1])
            except (asyncio.TimeoutError, WireError):
                continue
            if isinstance(snapshot, SnapshotMessage):
                needed.clear()
                self._restore(snapshot)

    def _restore(self, snapshot: SnapshotMessage) -> None:
        self.sources = {name: view for name, view in self.sources.items() if view.stats or view.status}
        analytics = [] if isinstance(snapshot.analytics, msgspec.UnsetType) else snapshot.analytics
        messages: list[StatusMessage | AnalyticsMessage] = [*snapshot.statuses, *analytics]
        for message in messages:
            self._apply(message)
            for watcher in self._watchers:
                kind = "status" if isinstance(message, StatusMessage) else "analytics"
                watcher.take_text(kind, message.source_id, encode(message).decode())
        for frame in snapshot.frames:
            view = self._view(frame.source_id)
            if view is not None:
                view.frame = frame

    async def _watch_engine(self) -> None:
        """Tell the watchers when the engine falls silent, and when it is back."""
        while True:
            await asyncio.sleep(0.5)
            is_lost = self.is_silent
            if is_lost != self._is_lost:
                self._is_lost = is_lost
                text = '{"schema":"engine","lost":%s}' % ("true" if is_lost else "false")
                for watcher in self._watchers:
                    watcher.take_text("engine", "", text)


async def _gathered(socket: Any, connection: Connection) -> AsyncIterator[list[bytes]]:
    """Yield messages; those that arrive within `GATHER_S` are read together: waking up costs more than reading."""
    plain: Any = zmq.Socket.shadow(socket)
    while True:
        yield connection.taken(await socket.recv_multipart(copy=False))
        await asyncio.sleep(GATHER_S)
        with suppress(zmq.Again):
            for _ in range(MAX_GATHERED):
                yield connection.taken(plain.recv_multipart(zmq.NOBLOCK, copy=False))


def _each(addresses: str | tuple[str, ...]) -> tuple[str, ...]:
    return (addresses,) if isinstance(addresses, str) else addresses
