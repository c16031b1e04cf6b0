"""Packets become messages, and messages become columns again."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from engine.data import Detections, Run, Tracks
from engine.errors import WireError
from engine.wire import (
    UNTRACKED,
    Rle,
    decode,
    encode,
    eos_message,
    frame_message,
    mask_from_rle,
    rle_from_mask,
    status_message,
    tracks_from_message,
)
from engine.wire.columns import track_columns
from tests.wire.samples import RUN, UTC_NS, packet, status


def test_a_frame_message_says_what_the_packet_says() -> None:
    given = packet(2, seq=4)
    message = frame_message(given)
    assert (message.source_id, message.seq, message.frame_id) == ("gate", 4, 4)
    assert (message.width, message.height) == (768, 576)
    assert (message.engine_id, message.run_epoch, message.model) == ("engine-1", UTC_NS, "yolo11n")
    assert message.captured_source == "file"
    assert message.pts_ns == 160_000_000
    assert message.dropped == {"age": 1}
    assert message.stage_ms == {"queue": 0.25, "infer": 16.125, "track": 0.5}
    assert [o.class_name for o in message.objects] == ["person", "bicycle"]
    assert [o.track_id for o in message.objects] == [1, 2]


def test_a_frame_without_objects_is_a_message_too() -> None:
    message = frame_message(packet(0))
    assert message.objects == []
    assert len(tracks_from_message(message)) == 0


@pytest.mark.parametrize("count", [0, 1, 50])
def test_tracks_come_back_from_a_message(count: int) -> None:
    given = packet(count)
    tracks = tracks_from_message(decode(encode(frame_message(given))))  # type: ignore[arg-type]
    np.testing.assert_array_equal(tracks.track_id, given.tracks.track_id)
    np.testing.assert_array_equal(tracks.class_id, given.tracks.class_id)
    np.testing.assert_array_equal(tracks.age, given.tracks.age)
    np.testing.assert_allclose(tracks.xyxy, given.tracks.xyxy, atol=0.0051)  # written to a hundredth of a pixel
    np.testing.assert_allclose(tracks.score, given.tracks.score, atol=0.000051)


def test_a_class_that_the_model_does_not_name_keeps_its_number() -> None:
    given = dataclasses.replace(packet(2), run=Run("e", 1, "m", ("person",)))
    assert [o.class_name for o in frame_message(given).objects] == ["person", "1"]


def test_a_box_that_the_detector_did_not_see_is_marked_as_predicted() -> None:
    tracks = Tracks([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.5], [0, 0], [1, 2], [3, 4], [0, -1])
    message = frame_message(dataclasses.replace(packet(1), tracks=tracks))
    assert [o.predicted for o in message.objects] == [False, True]
    assert b'"predicted":true' in encode(message)
    assert encode(message).count(b"predicted") == 1
    assert tracks_from_message(message).detection_index.tolist() == [0, -1]


def test_an_object_without_tracker_has_no_identity() -> None:
    tracks = Tracks([[0, 0, 4, 4]], [0.5], [0], [UNTRACKED], [1], [0])
    assert frame_message(dataclasses.replace(packet(1), tracks=tracks)).objects[0].track_id == -1


def test_task_columns_follow_the_detection_that_a_track_matched() -> None:
    mask = np.zeros((2, 3, 4), np.bool_)
    mask[1, 1:, :2] = True
    extra = {
        "mask": mask,
        "keypoints": np.float32([[[1, 2, 0.5]], [[3, 4, 0.25]]]),
        "xyxyxyxy": np.float32([[[0, 0], [1, 0], [1, 1], [0, 1]], [[2, 2], [4, 2], [4, 4], [2, 4]]]),
        "classes": np.float32([[[0, 0.75], [1, 0.25]], [[1, 0.5], [7, 0.5]]]),
    }
    detections = Detections([[0, 0, 4, 4], [1, 1, 5, 5]], [0.5, 0.5], [0, 0], extra)
    tracks = Tracks([[1, 1, 5, 5], [9, 9, 12, 12]], [0.5, 0.5], [0, 0], [1, 2], [3, 4], [1, -1])
    message = frame_message(dataclasses.replace(packet(0), detections=detections, tracks=tracks))
    seen, predicted = message.objects
    assert seen.mask == Rle([3, 4], [1, 2, 1, 2, 6])
    assert seen.keypoints == [[3.0, 4.0, 0.25]]
    assert seen.xyxyxyxy == [[2.0, 2.0], [4.0, 2.0], [4.0, 4.0], [2.0, 4.0]]
    assert [(c.class_name, c.score) for c in seen.classes or []] == [("bicycle", 0.5), ("7", 0.5)]
    assert (predicted.mask, predicted.keypoints, predicted.xyxyxyxy, predicted.classes) == (None, None, None, None)
    assert decode(encode(message, "msgpack")) == message


def plain_run_lengths(mask: np.ndarray) -> list[int]:
    """Count runs pixel by pixel, columns first, beginning with zeros."""
    counts, value = [0], 0
    for pixel in mask.ravel(order="F").astype(int).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_mask_survives_its_run_lengths(share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    for _ in range(200):
        mask = np.zeros((rng.integers(1, 9), rng.integers(1, 9)), np.bool_)
        rows, columns = (slice(*sorted(rng.integers(0, size + 1, 2))) for size in mask.shape)
        mask[rows, columns] = rng.random(mask[rows, columns].shape) < share
        rle = rle_from_mask(mask)
        assert rle.counts == plain_run_lengths(mask)
        np.testing.assert_array_equal(mask_from_rle(rle), mask)


@pytest.mark.parametrize(
    "rle",
    [
        pytest.param(Rle([2, 2], [3]), id="too few"),
        pytest.param(Rle([2, 2], [3, 2]), id="too many"),
        pytest.param(Rle([10**9, 10**9], [10**18]), id="too large"),
    ],
)
def test_runs_that_do_not_fill_their_mask_are_refused(rle: Rle) -> None:
    with pytest.raises(WireError, match="fill it exactly"):
        mask_from_rle(rle)


def test_a_status_message_says_what_is_known_of_the_source() -> None:
    message = status_message(status("stalled"), RUN, seq=3, published_utc_ns=UTC_NS)
    assert (message.state, message.fps, message.codec, message.seq) == ("stalled", 25.0, "h264", 3)


def test_an_end_names_the_last_frame() -> None:
    message = eos_message("gate", RUN, published_utc_ns=UTC_NS, last_seq=794, reason="end of file")
    assert (message.last_seq, message.reason, message.source_id) == (794, "end of file", "gate")


def test_the_shape_of_pixels_is_on_the_wire_where_they_are_not_square() -> None:
    wide = packet(1)
    assert b"pixel_aspect" not in encode(frame_message(wide))
    wide = dataclasses.replace(wide, frame=dataclasses.replace(wide.frame, pixel_aspect=64 / 45))
    assert b'"pixel_aspect":1.422222' in encode(frame_message(wide))


def test_only_a_traced_frame_carries_its_trace_context() -> None:
    assert b"traceparent" not in encode(frame_message(packet(1)))
    body = encode(frame_message(packet(1), is_traced=True))
    assert re.search(rb'"traceparent":"00-[0-9a-f]{32}-[0-9a-f]{16}-01"', body)
    assert decode(body) == frame_message(packet(1), is_traced=True)


def test_packets_converted_together_give_the_messages_of_each_alone() -> None:
    names = dataclasses.replace(RUN, class_names=())
    packets = [packet(count, source_id=f"camera{count}") for count in (3, 0, 10, 1)]
    packets[2] = dataclasses.replace(packets[2], run=names)
    together = [
        frame_message(each, columns=columns) for each, columns in zip(packets, track_columns(packets), strict=True)
    ]
    assert [encode(message) for message in together] == [encode(frame_message(each)) for each in packets]


def test_objects_whose_place_was_not_looked_at_are_held() -> None:
    given = packet(3)
    held = {"held": np.array([True, False, True])}
    detections = Detections(given.detections.xyxy, given.detections.score, given.detections.class_id, held)
    index = given.tracks.detection_index.copy()
    index[2] = -1  # predicted, and so not held
    tracks = Tracks(*(getattr(given.tracks, name) for name in ("xyxy", "score", "class_id", "track_id", "age")), index)
    message = frame_message(dataclasses.replace(given, detections=detections, tracks=tracks))
    assert [(one.held, one.predicted) for one in message.objects] == [(True, False), (False, False), (False, True)]
    assert decode(encode(message)) == message
