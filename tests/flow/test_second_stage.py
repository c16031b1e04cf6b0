"""A classifier on tracked objects, through the pipeline and onto the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.data import Detections, Frame, Packet, Tracks
from engine.detection.classify import Classifier, load_classifier
from engine.detection.second_stage import SecondStage
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.protocols import DetectorBase
from engine.sources.open import open_source
from engine.tracking.bytetrack import ByteTrack
from engine.tracking.untracked import Untracked
from engine.wire import frame_message
from tests.detection.test_classify import colour_model
from tests.fakes import CountingSource, ListSink, PixelDetector


class ColourClassifier:
    """Answers `dark` or `bright` by the first pixel of the frame; records how it was used."""

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


class HalvesDetector(DetectorBase):
    """Finds the left and the right half of each frame, of class 0 and 1."""

    name = "halves"
    class_names = ("left", "right")

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections([[0, 0, 32, 48], [32, 0, 64, 48]], [0.9, 0.8], [0, 1]) for _ in frames]


@pytest.fixture
def colours(tmp_path: Path) -> Classifier:
    model = colour_model(tmp_path / "colours.onnx")
    return load_classifier(model, backend="onnxruntime", names=["blue", "green", "red"])


def picture(path: Path, left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    image = np.empty((48, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = left, right
    cv2.imwrite(str(path), image)


def best_names(packets: Sequence[Packet]) -> list[list[str | None]]:
    return [[o.classes[0].class_name if o.classes else None for o in frame_message(p).objects] for p in packets]


BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_without_a_tracker_each_object_has_its_own_answer(tmp_path: Path, colours: Classifier) -> None:
    (tmp_path / "pictures").mkdir()
    for name, halves in (("a", (BLUE, RED)), ("b", (GREEN, BLUE))):
        picture(tmp_path / "pictures" / f"{name}.png", *halves)
    for wanted, names in (
        (None, [["blue", "red"], ["green", "blue"]]),
        (frozenset([1]), [[None, "red"], [None, "blue"]]),
    ):
        sink = ListSink()
        stage = SecondStage(colours, class_ids=wanted)
        source = open_source(str(tmp_path / "pictures"))
        Pipeline(source, HalvesDetector(), Untracked(), sink, second_stage=stage).run()
        assert best_names(sink.packets) == names
        assert all(o.track_id == -1 for packet in sink.packets for o in frame_message(packet).objects)


def test_classes_stay_with_a_track_between_detections(tmp_path: Path, colours: Classifier) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(7):
        picture(tmp_path / "pictures" / f"{number}.png", RED, GREEN)
    sink = ListSink()
    stage = SecondStage(colours)
    options = PipelineOptions(detect_every=3)
    source = open_source(str(tmp_path / "pictures"))
    Pipeline(source, HalvesDetector(), ByteTrack(), sink, second_stage=stage, options=options).run()
    between = [packet for packet in sink.packets if not packet.is_detected]
    assert len(between) == 4
    assert all(o.predicted for packet in between for o in frame_message(packet).objects)
    assert best_names(between) == [["red", "green"]] * 4
