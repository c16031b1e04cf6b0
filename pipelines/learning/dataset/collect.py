"""`dataset collect`: images of a running engine that are worth labelling, with its model's suggestions.

The engine must publish images (`publish.pictures`); what it blurs there stays blurred. Collecting costs the engine
nothing but the images.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError
from engine.subscriber import NoMessageError, Subscriber
from engine.video.read_image import decode_image
from engine.wire import EventMessage, FrameMessage, ImageMessage
from pipelines.learning.dataset.choose import Chooser
from pipelines.learning.dataset.likeness import look_of
from pipelines.learning.dataset.project import Project

WAITING = 256
"""Maximum number of frames and images waiting for their counterpart."""
SILENCE_S = 30.0
POLL_S = 0.5
NO_PICTURES = (
    "the engine publishes no images: start it with --set publish.pictures.images_per_s=1 "
    "--set publish.pictures.max_side=1920"
)


@dataclass
class Collected:
    """The result of collecting.

    Attributes:
        pictures: images kept.
        seen: images examined.
        by_source: images kept, by camera.
    """

    pictures: int = 0
    seen: int = 0
    by_source: dict[str, int] = field(default_factory=dict)


class Collector:
    """Puts images into a project's inbox; feed it the messages of an engine in order.

    Args:
        project: where to put them.
        chooser: decides which to keep.
    """

    def __init__(self, project: Project, chooser: Chooser) -> None:
        self._project, self._chooser = project, chooser
        self._frames: OrderedDict[tuple[str, int, int], FrameMessage] = OrderedDict()
        self._images: OrderedDict[tuple[str, int, int], ImageMessage] = OrderedDict()
        self.collected = Collected()

    def take(self, message: object) -> bool:
        """Process one message; return whether an image was kept."""
        if isinstance(message, EventMessage):
            names = [name for name in (message.rule, message.event) if name]
            self._chooser.saw_event(message.source_id, message.captured_utc_ns or message.published_utc_ns, names)
            return False
        if type(message) is ImageMessage:
            return self._paired(message, self._images, self._frames.pop(_key(message), None))
        if isinstance(message, FrameMessage):
            image = self._images.pop(_key(message), None)
            if image is None:
                return self._paired(message, self._frames, None)
            return self._consider(message, image)
        return False

    def _paired(self, message: Any, waiting: OrderedDict[Any, Any], other: FrameMessage | None) -> bool:
        if other is not None:
            return self._consider(other, message)
        waiting[_key(message)] = message
        if len(waiting) > WAITING:
            waiting.popitem(last=False)
        return False

    def _consider(self, frame: FrameMessage, image: ImageMessage) -> bool:
        self.collected.seen += 1
        if not self._chooser.wants(frame):
            return False
        try:
            picture = decode_image(np.frombuffer(image.jpeg, np.uint8))
        except (EngineError, OSError, ValueError):
            self._chooser.refused["damaged"] += 1
            return False
        reasons = self._chooser.choose(frame, look_of(picture))
        if not reasons:
            return False
        self._keep(frame, image, picture, reasons)
        return True

    def _keep(self, frame: FrameMessage, image: ImageMessage, picture: Any, reasons: list[str]) -> None:
        at = datetime.fromtimestamp(frame.captured_utc_ns / NS_PER_S, timezone.utc)
        fields = {"camera": frame.source_id, "day": at.date().isoformat(), "why": ",".join(reasons)}
        if image.blurred:
            fields["blurred"] = ",".join(image.blurred)
        name = f"{frame.source_id}_{at:%Y%m%dT%H%M%S}_{frame.frame_id}.jpg"
        place = self._project.add(bytes(image.jpeg), name, picture, fields, frame=frame.frame_id)
        size = np.array([frame.width, frame.height] * 2, np.float64)
        self._project.suggest(
            place.name,
            [
                {
                    "class_name": one.class_name,
                    "score": float(one.score),
                    "track_id": one.track_id,
                    "xyxy": (np.array(one.xyxy, np.float64) / size).clip(0, 1).tolist(),
                }
                for one in frame.objects
            ],
        )
        self.collected.pictures += 1
        self.collected.by_source[frame.source_id] = self.collected.by_source.get(frame.source_id, 0) + 1


def _key(message: FrameMessage | ImageMessage) -> tuple[str, int, int]:
    return message.source_id, message.run_epoch, message.frame_id


def collect(
    address: str,
    collector: Collector,
    *,
    seconds: float | None = None,
    pictures: int | None = None,
    told: Callable[[Collected], None] | None = None,
    stop: threading.Event | None = None,
    **connection: Any,
) -> Collected:
    """Listen to an engine until the time or the number of images is reached.

    Args:
        address: of its publisher.
        collector: processes the messages.
        seconds: how long; None: until `stop`.
        pictures: how many; None: any number.
        told: called after each image.
        stop: set it from another thread to end.
        connection: `server_key` and `keys` of an engine that encrypts.

    Raises:
        ConfigError: frames arrive, but no images.
        NoMessageError: nothing arrives at all.
    """
    topics = ["v1/frame/", "v1/image/", "v1/event/"]
    begun, heard, images = SYSTEM_CLOCK.monotonic_ns(), SYSTEM_CLOCK.monotonic_ns(), 0
    with Subscriber(address, topics, **connection) as subscriber:
        while not (stop is not None and stop.is_set()):
            now = SYSTEM_CLOCK.monotonic_ns()
            if seconds is not None and now - begun >= seconds * NS_PER_S:
                break
            try:
                message = subscriber.receive(POLL_S)
            except NoMessageError:
                if now - heard > SILENCE_S * NS_PER_S:
                    raise NoMessageError(f"{address}: nothing for {SILENCE_S:.0f} s: is the engine running?") from None
                continue
            heard = now
            images += isinstance(message, ImageMessage)
            if not images and now - begun > SILENCE_S * NS_PER_S:
                raise ConfigError(f"{address}: {NO_PICTURES}")
            if collector.take(message) and told is not None:
                told(collector.collected)
            if pictures is not None and collector.collected.pictures >= pictures:
                break
    if not images:
        raise ConfigError(f"{address}: {NO_PICTURES}")
    return collector.collected
