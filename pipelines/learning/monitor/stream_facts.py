"""Frames of a stream or of its file, as the quantities monitored for drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.data import Detections
from engine.errors import ConfigError, EngineError, WireError
from engine.subscriber import Subscriber
from engine.video.read_image import decode_image
from engine.wire import FrameMessage, ImageMessage, decode
from pipelines.learning.monitor.drift import FrameFacts, frame_facts

MAX_LINE = 4 << 20


def facts_of_message(message: FrameMessage, class_names: Sequence[str], light: float | None = None) -> FrameFacts:
    """Return the quantities of a frame; a class not among the names counts as an additional one."""
    numbers = {name: number for number, name in enumerate(class_names)}
    objects = message.objects
    boxes = np.array([one.xyxy for one in objects], np.float32).reshape(-1, 4)
    classes = [numbers.get(one.class_name, len(numbers)) for one in objects]
    found = Detections(boxes, [one.score for one in objects], classes)
    facts = frame_facts(found, (message.width, message.height))
    return FrameFacts(facts.scores, facts.classes, facts.sizes, light)


def light_of(message: ImageMessage) -> float | None:
    """Return the mean brightness of a published image from 0 to 1, None if it cannot be read."""
    try:
        return float(decode_image(np.frombuffer(message.jpeg, np.uint8)).mean() / 255) if message.jpeg else None
    except (ValueError, EngineError):  # damaged, or larger than a frame may be
        return None


def messages_from(place: str, source_id: str | None, timeout_s: float) -> Iterator[FrameMessage | ImageMessage]:
    """Yield the frames, and images if there are any, of a stream's address or of a file of JSON lines.

    Raises:
        ConfigError: the file cannot be read, or is not one of frames.
        NoMessageError: the stream is silent for `timeout_s`.
    """
    wanted = (FrameMessage, ImageMessage)
    if "://" in place:
        with Subscriber(place, topics=["v1/frame/", "v1/image/"], timeout_s=timeout_s) as messages:
            for message in messages:
                if isinstance(message, wanted) and source_id in (None, message.source_id):
                    yield message
        return
    try:
        with Path(place).open("rb") as file:
            while line := file.readline(MAX_LINE):
                message = decode(line)
                if isinstance(message, wanted) and source_id in (None, message.source_id):
                    yield message
    except (OSError, WireError) as error:
        raise ConfigError(f"{place}: not the JSON lines of a stream: {error}") from error
