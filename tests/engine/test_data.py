"""Frames and columns."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.detection.load import load_detector
from engine.errors import ConfigError


class PillowImage:
    """The used attributes of a Pillow image, so that Pillow need not be installed."""

    size = (8, 8)

    def convert(self, mode: str) -> PillowImage:
        return self


def test_image_of_a_frame_is_read_only() -> None:
    frame = Frame(np.zeros((4, 6, 3), np.uint8), "gate", 0, 0, 0)
    assert (frame.width, frame.height) == (6, 4)
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0, 0] = 1


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((4, 6), np.uint8), id="grayscale"),
        pytest.param(np.zeros((4, 6, 4), np.uint8), id="with alpha"),
        pytest.param(np.zeros((4, 6, 3), np.float32), id="float"),
    ],
)
def test_image_of_another_form_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"expected uint8 \(H, W, 3\)"):
        Frame(image, "gate", 0, 0, 0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        pytest.param("bus.jpg", r"a str: .*cv2.imread\('bus.jpg'\)", id="name of a file"),
        pytest.param(b"\xff\xd8", "a bytes: expected uint8", id="bytes"),
        pytest.param(None, "a NoneType: expected uint8", id="what imread returns for a missing file"),
        pytest.param([[1, 2], [3, 4]], "a list: expected uint8", id="list"),
        pytest.param(PillowImage(), r"a PillowImage: .*::-1\]", id="Pillow"),
        pytest.param(np.zeros((4, 4), np.uint8), r"\(4, 4\): .*GRAY2BGR", id="grey"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\): .*\[:, :, :3\]", id="with alpha"),
        pytest.param(np.zeros((4, 4, 3), np.float32), r"float32 .*255 \* image", id="floats"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\): expected", id="no rows"),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_write(image: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Frame(image)


@pytest.mark.parametrize("name", [5, "", None])
def test_a_source_is_named_by_a_text(name: Any) -> None:
    with pytest.raises(ConfigError, match="source_id is .*expected a text"):
        Frame(np.zeros((4, 4, 3), np.uint8), name)


def test_a_frame_that_is_not_in_a_list_is_no_type_error() -> None:
    with load_detector("demo") as detector, pytest.raises(ConfigError, match=r"detect\(\[frame\]\)"):
        detector.detect(Frame(np.zeros((32, 32, 3), np.uint8)))  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_columns_have_their_types_and_are_read_only(rows: int) -> None:
    detections = Detections([[0, 0, 1, 1]] * rows, [0.5] * rows, [1] * rows)
    assert detections.xyxy.shape == (rows, 4)
    assert (detections.xyxy.dtype, detections.score.dtype, detections.class_id.dtype) == ("f4", "f4", "i4")
    assert not detections.xyxy.flags.writeable
    tracks = Tracks(detections.xyxy, detections.score, detections.class_id, range(rows))
    assert (tracks.track_id.dtype, tracks.age.dtype, tracks.detection_index.dtype) == ("i8", "i4", "i4")


def test_making_columns_leaves_the_callers_arrays_writeable() -> None:
    score = np.ones(2, np.float32)
    Detections(np.zeros((2, 4), np.float32), score, [0, 0])
    score[0] = 0.5


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"class_id has shape \(1,\): expected \(2,\)"):
        Detections([[0, 0, 1, 1]] * 2, [0.5] * 2, [1])
    with pytest.raises(ConfigError, match="column mask has 1 rows: expected 2"):
        Detections([[0, 0, 1, 1]] * 2, [0.5] * 2, [1, 1], {"mask": np.zeros((1, 4, 4))})


def test_choosing_rows_keeps_extra_columns_aligned() -> None:
    keypoints = np.arange(6).reshape(3, 2)
    detections = Detections([[0, 0, 1, 1]] * 3, [0.1, 0.5, 0.9], [0, 1, 2], {"keypoints": keypoints})
    chosen = detections[detections.score > 0.4]
    assert chosen.class_id.tolist() == [1, 2]
    assert chosen.extra["keypoints"].tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_detections_go_to_supervision_and_back(rows: int) -> None:
    detections = Detections([[0, 1, 2, 3]] * rows, [0.5] * rows, [7] * rows)
    back = Detections.from_supervision(detections.to_supervision())
    assert np.array_equal(back.xyxy, detections.xyxy)
    assert np.array_equal(back.score, detections.score)
    assert np.array_equal(back.class_id, detections.class_id)


def test_tracks_go_to_supervision_and_back_in_order_of_their_ids() -> None:
    tracks = Tracks([[0, 1, 2, 3], [4, 5, 6, 7]], [0.5, 0.25], [7, 8], [3, 9])
    there = tracks.to_supervision()
    assert there.tracker_id.tolist() == [3, 9]
    there = there[[1, 0]]
    back = Tracks.from_supervision(there)
    assert back.track_id.tolist() == [3, 9]
    assert np.array_equal(back.xyxy, tracks.xyxy)
    with pytest.raises(ConfigError, match="no tracker_id"):
        Tracks.from_supervision(Detections.empty().to_supervision())


def test_classes_without_a_name_are_called_by_their_number() -> None:
    run = Run("jetson", 0, "model", ("person", "car"))
    assert [run.class_name(n) for n in (0, 1, 2, -1)] == ["person", "car", "2", "-1"]


def test_a_frame_does_not_lock_the_array_that_it_is_made_of() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    frame = Frame(image)
    assert image.flags.writeable
    assert not frame.image.flags.writeable
    assert np.shares_memory(frame.image, image)


def test_rows_of_a_packet_carry_their_class_names_to_supervision() -> None:
    pytest.importorskip("supervision", reason="pip install supervision")
    found = Detections([[0, 0, 4, 4]] * 3, [0.9, 0.8, 0.7], [0, 1, 7])
    tracks = Tracks([[0, 0, 4, 4]], [0.9], [1], [5])
    assert "class_name" not in found.to_supervision().data
    packet = Packet(Frame(np.zeros((8, 8, 3), np.uint8)), found, tracks, Run("e", 0, "m", ("cat", "dog")))
    assert packet.detections.to_supervision().data["class_name"].tolist() == ["cat", "dog", "7"]
    assert packet.detections[[1, 2]].to_supervision().data["class_name"].tolist() == ["dog", "7"]
    assert packet.tracks.to_supervision().data["class_name"].tolist() == ["dog"]
    assert packet.tracks[[]].to_supervision().data["class_name"].tolist() == []


def test_a_notebook_shows_a_packet_as_a_picture_of_bounded_size() -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.zeros((600, 2000, 3), np.uint8)
    packet = Packet(Frame(image), Detections.empty(), Tracks([[10, 10, 900, 500]], [0.9], [0], [1]), Run("e", 0))
    shown = cv2.imdecode(np.frombuffer(packet._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (288, 960, 3)
    assert shown.any(), "the track is drawn"


def test_packets_travel_to_other_processes() -> None:
    tracks = Tracks([[1, 2, 3, 4]], [0.9], [0], [1])
    packet = Packet(Frame(np.ones((4, 4, 3), np.uint8)), Detections.empty(), tracks, Run("e", 0, "m", ("cat",)))
    for same in (pickle.loads(pickle.dumps(packet)), copy.deepcopy(packet)):
        assert same.tracks.xyxy.tolist() == [[1, 2, 3, 4]]
        assert same.frame.image.tolist() == packet.frame.image.tolist()
        assert list(same.tracks.class_names) == ["cat"]
        assert same.analyses is packet.analyses
