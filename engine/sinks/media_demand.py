"""Subscriptions of viewers on the media socket: images of a size and rate, and video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from engine.clock import NS_PER_MS, NS_PER_S
from engine.wire import topic_for
from engine.wire.codec import source_in_topic

SIDES = (320, 640, 960, 1280, 1920)
RATES = (1, 2, 5, 10, 15, 30)
MAX_REQUESTS = 1024
_TOPIC = re.compile(rb"(v1/picture/[^/]{1,768}/)(\d{1,4})/(\d{1,2})/")
_VIDEO_TOPIC = re.compile(rb"v1/video/[^/]{1,768}/")


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """A subscription to JPEGs of one source.

    Attributes:
        topic: `v1/picture/<source>/<max_side>/<fps>/`.
        source_id: the camera or file.
        max_side: longer side in pixels, one of `SIDES`.
        fps: at most this many per second, one of `RATES`.
    """

    topic: bytes
    source_id: str
    max_side: int
    fps: int


def picture_topic(source_id: str, max_side: int, fps: int) -> str:
    """Return the topic of the JPEGs of a source.

    >>> picture_topic("gate", 640, 10)
    'v1/picture/gate/640/10/'
    """
    return f"{topic_for('picture', source_id)}{max_side}/{fps}/"


def picture_request(topic: bytes) -> PictureRequest | None:
    """Return what a subscription requests; None if it is not for images.

    >>> picture_request(b"v1/picture/gate/640/10/").max_side
    640
    >>> picture_request(b"v1/picture/gate/641/10/") is None
    True
    """
    match = _TOPIC.fullmatch(topic)
    if match is None:
        return None
    max_side, fps = int(match[2]), int(match[3])
    if max_side not in SIDES or fps not in RATES:
        return None
    try:
        return PictureRequest(topic, source_in_topic(match[1].decode()), max_side, fps)
    except ValueError:
        return None


def video_source(topic: bytes) -> str | None:
    """Return the source whose video a subscription requests; None if it is not for video.

    >>> video_source(b"v1/video/gate/"), video_source(b"v1/video/")
    ('gate', None)
    """
    if _VIDEO_TOPIC.fullmatch(topic) is None:
        return None
    try:
        return source_in_topic(topic.decode())
    except ValueError:
        return None


class Demand:
    """The current subscriptions, and when the next image of each is due.

    Attributes:
        films: sources with a subscriber to their video.
    """

    def __init__(self) -> None:
        self.films: set[str] = set()
        self._requests: dict[bytes, PictureRequest] = {}
        self._due_ns: dict[bytes, int] = {}
        self._seq: Counter[bytes] = Counter()

    def take(self, notices: Iterable[bytes]) -> bool:
        """Apply notices of an XPUB socket, and return whether anything changed."""
        changed = False
        for notice in notices:
            is_wanted, topic = notice[:1] == b"\x01", notice[1:]
            film = video_source(topic)
            if film is not None:
                if not is_wanted:
                    self.films.discard(film)
                elif len(self.films) < MAX_REQUESTS:
                    self.films.add(film)
            elif not is_wanted:
                changed |= self._requests.pop(topic, None) is not None
                self._due_ns.pop(topic, None)
            elif len(self._requests) < MAX_REQUESTS and (request := picture_request(topic)) is not None:
                self._requests[topic], self._due_ns[topic], changed = request, 0, True
        return changed

    def by_source(self) -> dict[str, tuple[PictureRequest, ...]]:
        """Return the requests of each source."""
        found: dict[str, tuple[PictureRequest, ...]] = {}
        for request in self._requests.values():
            found[request.source_id] = (*found.get(request.source_id, ()), request)
        return found

    def is_due(self, request: PictureRequest, now_ns: int) -> bool:
        """Return whether to send an image now, and plan the next one; slightly early frames count as on time."""
        interval_ns = NS_PER_S // request.fps
        due_ns = self._due_ns.get(request.topic, 0)
        early_ns = min(interval_ns // 4, 20 * NS_PER_MS)
        if now_ns < due_ns - early_ns:
            return False
        self._due_ns[request.topic] = max(due_ns, now_ns - early_ns) + interval_ns
        return True

    def next_seq(self, request: PictureRequest) -> int:
        """Return the `seq` of the next message of a topic."""
        self._seq[request.topic] += 1
        return self._seq[request.topic] - 1
