"""A classifier on tracked objects, through the pipeline and onto the wire."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine.data import Frame, Tracks
from engine.pipeline import Pipeline
from engine.tracking.bytetrack import ByteTrack
from engine.wire import frame_message
from tests.fakes import CountingSource, ListSink, PixelDetector


class ColourClassifier:
    """Says `dark` or `bright` by the first pixel of the frame; remembers how it was used."""

    class_names = ("dark", "bright")

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def open(self) -> None:
        self.events.append("open")

    def update(self, frame: Frame, tracks: Tracks) -> Mapping[int, NDArray[np.float32]]:
        bright = frame.image[0, 0, 0] / 255
        answer = np.array([[1, bright], [0, 1 - bright]], np.float32)
        return {int(track_id): answer for track_id in tracks.track_id if track_id % 2}

    def clone(self) -> ColourClassifier:
        self.events.append("clone")
        return ColourClassifier(self.events)

    def close(self) -> None:
        self.events.append("close")


def test_what_the_second_stage_says_is_attached_to_the_track() -> None:
    events: list[str] = []
    sink = ListSink()
    sources = [CountingSource("a", 6), CountingSource("b", 6)]
    Pipeline(sources, PixelDetector(), ByteTrack(), sink, second_stage=ColourClassifier(events)).run()
    assert events == ["open", "clone", "clone", "close"]
    messages = [frame_message(packet) for packet in sink.packets]
    told = [o for message in messages for o in message.objects if o.classes is not None]
    assert told
    assert all([c.class_name for c in o.classes] == ["bright", "dark"] and o.track_id % 2 for o in told if o.classes)
    assert all(o.classes is None for message in messages for o in message.objects if o.track_id % 2 == 0)
    assert all("second" in packet.stage_ms for packet in sink.packets)
