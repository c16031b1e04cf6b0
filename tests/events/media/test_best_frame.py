"""Which frame shows an event's object best."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, Tracks
from engine.events.media.best_frame import Observed, Quality
from engine.events.media.snapshots import RAW_BYTES, SnapshotOptions, Snapshots
from engine.events.store.rows import EventRow
from tests.events import scenes

EVENT = EventRow(
    "gate-1-r-1", "e", 1, "gate", "r", "alert", "", "person", "begin", 0, None, 0, facts={"track_ids": [1]}
)
NOISE = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)


def packet(
    box: tuple[float, ...], score: float = 0.9, *, at_s: float = 0.0, image: np.ndarray = NOISE, **given: object
) -> Packet:
    others = given.get("others", ())
    boxes = np.array([box, *others], np.float32)  # type: ignore[misc]
    count = len(boxes)
    scores, classes = np.array([score] + [0.9] * (count - 1), np.float32), np.zeros(count, np.int32)
    index = np.arange(count)
    if given.get("predicted"):
        index[0] = -1
    at_ns = int(at_s * scenes.NS)
    frame = Frame(image, "gate", int(at_s * 10), captured_ns=at_ns, captured_utc_ns=scenes.UTC + at_ns)
    return Packet(
        frame,
        Detections(boxes, scores, classes),
        Tracks(boxes, scores, classes, range(1, count + 1), None, index),
        scenes.run(),
    )


GOOD = (150.0, 100.0, 230.0, 280.0)


@pytest.mark.parametrize(
    "worse",
    [
        pytest.param(packet(GOOD, 0.5), id="a lower score"),
        pytest.param(packet((150, 100, 180, 160)), id="smaller"),
        pytest.param(packet((0, 100, 80, 280)), id="cut off by the border"),
        pytest.param(packet(GOOD, others=[(140, 90, 200, 300)]), id="hidden by another"),
        pytest.param(packet(GOOD, image=cv2.GaussianBlur(NOISE, (31, 31), 0)), id="blurred"),
        pytest.param(packet(GOOD, predicted=True), id="only predicted"),
    ],
)
def test_a_frame_that_shows_less_is_rated_lower(worse: Packet) -> None:
    quality = Quality()
    best = quality.of(Observed(packet(GOOD)), EVENT)
    assert 0.5 < best <= 1
    assert quality.of(Observed(worse), EVENT) < best / 1.15


def test_only_the_objects_of_the_event_count_and_only_in_its_zone() -> None:
    assert Quality().of(Observed(packet(GOOD)), replace(EVENT, facts={"track_ids": [7]})) == 0
    walked = list(scenes.walk(60))
    event = replace(EVENT, place="yard")
    inside = [len(Observed(each).rows_of(event)) for each in walked]
    assert inside[:25] == [0] * 25
    assert inside[45] == 1


def images_of(packets: list[Packet], **options: object) -> dict[str, bytes]:
    """Return the images of an event that begins on the first packet and ends after the last."""
    kept: dict[str, bytes] = {}

    def store(event: EventRow, kind: str, jpeg: bytes, utc_ns: int) -> None:
        kept[f"{kind} {(utc_ns - scenes.UTC) / scenes.NS:.1f}"] = jpeg

    snapshots = Snapshots(SnapshotOptions(**options), store)  # type: ignore[arg-type]
    snapshots.raised(packets[0], [EVENT])
    for each in packets[1:]:
        snapshots.look(each)
    snapshots.ended(replace(EVENT, phase="end"))
    return kept


def test_the_trigger_and_the_best_frame_are_kept() -> None:
    scores = [0.5, 0.6, 0.55, 0.9, 0.92, 0.7]
    kept = images_of([packet(GOOD, score, at_s=at) for at, score in enumerate(scores)])
    assert list(kept) == ["trigger 0.0", "best 3.0"], "0.92 is not worth another image"
    best = cv2.imdecode(np.frombuffer(kept["best 3.0"], np.uint8), cv2.IMREAD_COLOR)
    assert best.shape == (400, 400, 3)
    grey = images_of([packet(GOOD, image=np.full((400, 400, 3), 128, np.uint8))])
    trigger = cv2.imdecode(np.frombuffer(grey["trigger 0.0"], np.uint8), cv2.IMREAD_COLOR)
    reds = ((trigger[..., 2] > 180) & (trigger[..., 0] < 110)).nonzero()
    assert (reds[0].max(), reds[1].max()) == pytest.approx((280, 230), abs=4), "the box is drawn"


def test_images_come_at_most_twice_a_second() -> None:
    kept = images_of([packet(GOOD, 0.2 + at / 20, at_s=at / 10) for at in range(12)])
    assert list(kept) == ["trigger 0.0", "best 1.0"]


def test_a_frame_that_remains_the_best_is_stored_before_the_event_ends() -> None:
    kept: list[tuple[str, float]] = []
    snapshots = Snapshots(SnapshotOptions(), lambda _, kind, __, utc_ns: kept.append((kind, utc_ns)))
    snapshots.raised(packet(GOOD, 0.5), [EVENT])
    for at in range(1, 15):
        snapshots.look(packet(GOOD, 0.9 if at == 1 else 0.5, at_s=at))
    assert kept == [("trigger", scenes.UTC), ("best", scenes.UTC + scenes.NS)]


def test_events_about_the_same_objects_share_a_frame_and_its_jpeg() -> None:
    kept: dict[tuple[str, str], tuple[bytes, int]] = {}

    def store(event: EventRow, kind: str, jpeg: bytes, utc_ns: int) -> None:
        kept[event.event_id, kind] = jpeg, utc_ns

    begins = {"first": 0, "same": 0, "later": 2}
    presence, same, later = (
        replace(EVENT, event_id=name, began_utc_ns=scenes.UTC + at * scenes.NS) for name, at in begins.items()
    )
    snapshots = Snapshots(SnapshotOptions(), store)
    snapshots.raised(packet(GOOD, 0.5), [presence])
    snapshots.look(packet(GOOD, 0.9, at_s=1))
    snapshots.raised(packet(GOOD, 0.6, at_s=3), [same, later])
    for event in (presence, same, later):
        snapshots.ended(event)
    assert kept["first", "best"][1] == kept["same", "best"][1] == scenes.UTC + scenes.NS
    assert kept["first", "best"][0] is kept["same", "best"][0]
    assert kept["later", "best"][1] == scenes.UTC + 3 * scenes.NS, "nothing from before it began"


def test_large_frames_are_scaled_down() -> None:
    kept = images_of([packet(GOOD)], max_side=100)
    assert {cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape for jpeg in kept.values()} == {
        (100, 100, 3)
    }


def test_images_have_square_pixels() -> None:
    seen = [replace(each, frame=replace(each.frame, pixel_aspect=1.5)) for each in (packet(GOOD), packet(GOOD, at_s=1))]
    kept = images_of(seen)
    assert {cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape for jpeg in kept.values()} == {
        (400, 600, 3)
    }


def test_severities_that_are_not_wanted_get_no_image() -> None:
    assert images_of([packet(GOOD)], severities=("notice",)) == {}


def test_memory_is_bounded_however_many_events_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 4 * NOISE.nbytes
    monkeypatch.setattr("engine.events.media.snapshots.RAW_BYTES", limit)
    kept = []
    snapshots = Snapshots(SnapshotOptions(), lambda *image: kept.append(image))
    events = [replace(EVENT, event_id=f"e{at}", began_utc_ns=scenes.UTC + at * scenes.NS) for at in range(20)]
    for at, event in enumerate(events):
        snapshots.raised(packet(GOOD, at_s=at), [event])
        assert snapshots.raw_bytes <= limit
    for event in events:
        assert snapshots.ended(event) is not None
    assert len(kept) == 40
    assert RAW_BYTES <= 64_000_000
