"""The overlay draws the contents of the packet, on a copy."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.errors import ConfigError
from engine.imaging.overlay import Overlay, _texts_of
from tests.wire.samples import packet


def with_tracks(boxes: list[list[float]], ids: list[int], size_wh: tuple[int, int] = (320, 240)) -> Packet:
    tracks = Tracks(boxes, [0.87] * len(ids), [0] * len(ids), ids, None, range(len(ids)))
    return dataclasses.replace(packet(0, size_wh=size_wh), tracks=tracks)


def changed(made: Packet, image: np.ndarray) -> np.ndarray:
    """Return the (H, W) mask of the pixels that were drawn on."""
    return (image != made.frame.image).any(axis=2)


def test_the_frame_itself_is_left_alone() -> None:
    made = with_tracks([[40, 60, 120, 200]], [1])
    before = made.frame.image.copy()
    image = Overlay().draw(made)
    np.testing.assert_array_equal(made.frame.image, before)
    assert image.shape == before.shape
    assert image.flags.writeable


def test_boxes_are_drawn_where_the_tracks_are() -> None:
    made = with_tracks([[40, 60, 120, 200]], [1])
    drawn = changed(made, Overlay(labels=False, trace=False).draw(made))
    rows, columns = np.nonzero(drawn)
    assert abs(rows.min() - 60) <= 2
    assert abs(rows.max() - 200) <= 2
    assert abs(columns.min() - 40) <= 2
    assert abs(columns.max() - 120) <= 2
    assert not drawn[80:180, 60:100].any()


def test_an_image_without_tracks_is_unchanged() -> None:
    made = with_tracks([], [])
    np.testing.assert_array_equal(Overlay().draw(made), made.frame.image)


def test_a_trace_follows_the_track() -> None:
    overlay = Overlay(labels=False)
    for x in range(0, 100, 5):
        made = with_tracks([[x, 60, x + 20, 100]], [4])
        image = overlay.draw(made)
    assert changed(made, image)[100, 20:80].all()


def test_sources_do_not_share_their_traces() -> None:
    overlay = Overlay(labels=False)
    for n in range(10):
        for name, x in (("gate", 10 + 5 * n), ("yard", 200)):
            made = with_tracks([[x, 60, x + 20, 100]], [4])
            made = dataclasses.replace(made, frame=dataclasses.replace(made.frame, source_id=name))
            image = overlay.draw(made)
    assert not changed(made, image)[:, :190].any()


def test_a_change_of_size_starts_anew() -> None:
    overlay = Overlay()
    for size in ((320, 240), (640, 480), (320, 240)):
        assert overlay.draw(with_tracks([[4, 40, 60, 90]], [1], size)).shape == (size[1], size[0], 3)


def test_a_track_keeps_its_colour_and_its_neighbour_has_another() -> None:
    overlay = Overlay(labels=False, trace=False)
    first = overlay.draw(with_tracks([[40, 60, 120, 200]], [7]))[60, 80]
    both = overlay.draw(with_tracks([[40, 60, 120, 200], [200, 60, 280, 200]], [7, 8]))
    np.testing.assert_array_equal(both[60, 80], first)
    assert (both[60, 240] != first).any()


@pytest.mark.parametrize("size_wh", [(1, 1), (33, 17), (3840, 2160)], ids=str)
def test_any_size_of_frame_is_drawn(size_wh: tuple[int, int]) -> None:
    made = with_tracks([[0, 0, size_wh[0], size_wh[1]]], [1], size_wh)
    assert Overlay().draw(made).shape == (size_wh[1], size_wh[0], 3)


def test_labels_say_id_class_and_score_and_mark_predictions() -> None:
    tracks = Tracks([[0, 0, 1, 1]] * 3, [0.876, 0.5, 0.25], [0, 3, 0], [-1, 5, 12], None, [0, 1, -1])
    made = dataclasses.replace(packet(0), tracks=tracks, run=Run("e", 1, "m", ("person",)))
    assert _texts_of(made) == ["person 0.88", "#5 3 0.50", "#12 person ~0.25"]


def test_an_unknown_colouring_is_refused() -> None:
    with pytest.raises(ConfigError, match="track or class"):
        Overlay(color_by="rainbow")  # type: ignore[arg-type]


def test_supervision_is_loaded_only_when_something_is_drawn() -> None:
    program = (
        "import sys, engine.imaging.overlay; engine.imaging.overlay.Overlay(); sys.exit('supervision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_masks_keypoints_and_oriented_boxes_of_seen_tracks_are_drawn() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    frame = Frame(image, "gate", 0, 0, 0)
    mask = np.zeros((1, 120, 160), bool)
    mask[0, 60:70, 60:70] = True
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 0] = 100, 30, 0.9
    keypoints[0, 1] = 20, 100, 0.1  # hidden
    corners = np.float32([[[110, 80], [150, 90], [145, 110], [105, 100]]])
    extra = {"mask": mask, "keypoints": keypoints, "xyxyxyxy": corners}
    detections = Detections([[40, 40, 80, 90]], [0.9], [0], extra)
    seen = Tracks(detections.xyxy, detections.score, detections.class_id, [1], detection_index=[0])
    plain = Overlay(labels=False, trace=False)
    drawn = plain.draw(Packet(frame, detections, seen, Run("e", 0)))
    assert drawn[65, 65].any(), "mask"
    assert drawn[30, 100].any(), "keypoint"
    assert not drawn[100, 20].any(), "hidden keypoint"
    assert drawn[80:111, 105:151].any(), "oriented box"
    assert not drawn[40, 60].any(), "the upright box gives way to the oriented one"
    predicted = Tracks(detections.xyxy, detections.score, detections.class_id, [1])
    drawn = plain.draw(Packet(frame, detections, predicted, Run("e", 0)))
    assert not drawn[65, 65].any()
    assert drawn[40, 60].any()


def test_untracked_boxes_are_coloured_by_class() -> None:
    frame = Frame(np.zeros((120, 160, 3), np.uint8), "gate", 0, 0, 0)
    tracks = Tracks([[10, 10, 40, 40], [80, 10, 110, 40]], [0.9, 0.9], [0, 1], [-1, -1])
    drawn = Overlay(labels=False).draw(Packet(frame, Detections.empty(), tracks, Run("e", 0)))
    assert drawn[10, 20].any()
    assert drawn[10, 20].tolist() != drawn[10, 90].tolist()
