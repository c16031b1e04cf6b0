"""Collecting: which images are chosen, from messages and from a running engine."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import ConfigError
from engine.wire import EventMessage, FrameMessage, ImageMessage
from pipelines.learning.dataset.choose import Chooser, parse_when
from pipelines.learning.dataset.collect import Collector, collect
from pipelines.learning.dataset.likeness import look_of
from pipelines.learning.dataset.project import Project
from tests.freshness.engine_process import EngineProcess

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def picture(seed: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8), (320, 240))


def messages(number: int, *scores: float, seed: int | None = None, name: str = "person") -> list[object]:
    """A frame message with objects of these scores, and its image."""
    at = START + number * SECOND
    head = {"engine_id": "e", "run_epoch": 1, "source_id": "gate", "stream_epoch": 1, "seq": number}
    head |= {"published_utc_ns": at, "frame_id": number, "captured_utc_ns": at}
    objects = [
        {"track_id": at_, "class_id": 0, "class_name": name, "score": score, "xyxy": [64, 48, 128, 96], "age": 1}
        for at_, score in enumerate(scores)
    ]
    import msgspec

    frame = msgspec.convert(
        head
        | {
            "schema": "framewire.frame/1.0", "captured_source": "arrival", "captured_error_ns": None, "pts_ns": None,
            "latency_ms": 1.0, "stage_ms": {}, "width": 640, "height": 480, "dropped": {}, "model": "m",
            "objects": objects,
        },
        FrameMessage,
    )  # fmt: skip
    jpeg = bytes(cv2.imencode(".jpg", picture(number if seed is None else seed))[1])
    size = {"schema": "framewire.image/1.0", "width": 320, "height": 240, "region": [0, 0, 640, 480]}
    return [frame, msgspec.structs.replace(msgspec.convert(head | size, ImageMessage), jpeg=jpeg)]


def collector(folder: Path, when: str, per_hour: float = 0) -> Collector:
    return Collector(Project.create(folder / "a.fwm", ["person"]), Chooser(parse_when(when), per_hour))


def kept(folder: Path) -> list[str]:
    return [image.stem.rpartition("_")[2] for image in Project(folder / "a.fwm").images("inbox")]


@pytest.mark.parametrize("order", [1, -1])
def test_uncertain_pictures_are_kept_with_what_the_model_thinks(tmp_path: Path, order: int) -> None:
    taking = collector(tmp_path, "uncertain")
    for number, scores in enumerate([(0.9,), (0.9, 0.4), (), (0.2,), (0.3,)]):
        for message in messages(number, *scores)[::order]:
            taking.take(message)
    assert kept(tmp_path) == ["1", "4"]
    project = Project(tmp_path / "a.fwm")
    image = project.images("inbox")[0]
    assert project.boxes(image) == []
    assert [one["score"] for one in project.suggestions(image)] == [0.9, 0.4]
    np.testing.assert_allclose(project.suggestions(image)[0]["xyxy"], [0.1, 0.1, 0.2, 0.2])
    origin = project.origins()[image.name]
    assert (origin.fields["camera"], origin.fields["day"], origin.fields["why"]) == ("gate", "2023-11-14", "uncertain")


def test_near_duplicates_are_never_kept_twice(tmp_path: Path) -> None:
    taking = collector(tmp_path, "all")
    for number, seed in enumerate([1, 1, 2, 1, 2, 3]):
        for message in messages(number, seed=seed):
            taking.take(message)
    assert kept(tmp_path) == ["0", "2", "5"]


def test_new_means_unlike_everything_before_also_of_earlier_sessions(tmp_path: Path) -> None:
    chooser = Chooser(parse_when("new"), known=[look_of(picture(1))])
    taking = Collector(Project.create(tmp_path / "a.fwm", ["person"]), chooser)
    for number, seed in enumerate([1, 2]):
        for message in messages(number, 0.9, seed=seed):
            taking.take(message)
    assert kept(tmp_path) == ["1"]
    assert chooser.refused["condition"] + chooser.refused["alike"] == 1


def test_a_picture_in_which_nothing_was_detected_is_kept_if_it_is_unlike_the_others(tmp_path: Path) -> None:
    taking = collector(tmp_path, "uncertain or new or empty")
    for number, (seed, scores) in enumerate([(1, (0.9,)), (1, ()), (2, ()), (2, ()), (3, (0.5,))]):
        for message in messages(number, *scores, seed=seed):
            taking.take(message)
    assert kept(tmp_path) == ["0", "2", "4"]


def test_the_rate_holds_per_hour_of_the_cameras_time(tmp_path: Path) -> None:
    taking = collector(tmp_path, "all", per_hour=2)
    for number in (0, 1, 2, 3, 3601, 3602, 3603):
        for message in messages(number):
            taking.take(message)
    assert sorted(map(int, kept(tmp_path))) == [0, 1, 3601, 3602]


def test_a_rule_keeps_pictures_around_it_and_a_class_its_own(tmp_path: Path) -> None:
    import msgspec

    taking = collector(tmp_path, "rule:left_bag or class:dog")
    event = {
        "schema": "framewire.event/1.0", "engine_id": "e", "run_epoch": 1, "source_id": "gate", "stream_epoch": 1,
        "seq": 1, "published_utc_ns": START, "event": "rule_began", "event_id": "1", "frame_id": 10,
        "captured_utc_ns": START + 10 * SECOND, "track_id": None, "class_id": None, "class_name": None, "score": None,
        "xyxy": None, "data": {}, "rule": "left_bag",
    }  # fmt: skip
    taking.take(msgspec.convert(event, EventMessage))
    for number in (5, 9, 11, 20):
        for message in messages(number, 0.9, name="dog" if number == 20 else "person"):
            taking.take(message)
    assert sorted(map(int, kept(tmp_path))) == [9, 11, 20]


@pytest.mark.parametrize("text", ["", "sometimes", "rule:", "uncertain and new", "new or", "class:a b"])
def test_unknown_conditions_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigError, match="expected uncertain, new"):
        parse_when(text)


def test_a_damaged_picture_is_counted_and_nothing_is_kept(tmp_path: Path) -> None:
    import msgspec

    taking = collector(tmp_path, "all")
    frame, image = messages(1, 0.9)
    taking.take(frame)
    assert not taking.take(msgspec.structs.replace(image, jpeg=b"\xff\xd8nonsense"))
    assert kept(tmp_path) == []


def test_pictures_of_a_running_engine_are_collected(tmp_path: Path) -> None:
    settings = ("publish.pictures.images_per_s=20", "sources.0.realtime=true")
    with EngineProcess({"gate": "synthetic://?count=100000&fps=20"}, *settings) as engine:
        done = collect(engine.address, collector(tmp_path, "all"), pictures=1, seconds=60)
    assert done.pictures == 1
    project = Project(tmp_path / "a.fwm")
    assert len(project.images("inbox")) == 1
    assert next(iter(project.origins().values())).fields["camera"] == "gate"
