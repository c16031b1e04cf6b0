"""Zones and lines in annotated frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.imaging.overlay import Overlay, _texts_of
from engine.imaging.scene import BUSY_ZONE, LINE, ZONE, write


def _packet(width: int, height: int, *, inside: bool) -> Packet:
    """Return the 20th frame of an object that stands inside a zone, or next to it."""
    zone = Zone("yard", [(0.1, 0.5), (0.4, 0.5), (0.4, 0.9), (0.1, 0.9)])
    line = Line("door", [(0.6, 0.9), (0.75, 0.5), (0.6, 0.1)], left_to_right="in", right_to_left="out")
    analyser = SceneAnalyser(Analytics([zone], [line]))
    x = 0.25 if inside else 0.5
    box = [(x * width - 5, 0.4 * height, x * width + 5, 0.7 * height)]
    image = np.zeros((height, width, 3), np.uint8)
    for number in range(20):
        frame = Frame(image, "gate", number, captured_ns=number * 100_000_000)
        packet = Packet(frame, Detections.empty(), Tracks(box, [0.9], [0], [1], None, [0]), Run("e", 1))
        (packet,) = analyser.analyse([packet])
    return packet


def _has(image: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(image.astype(int) - color).sum(axis=2) < 12).any())


@pytest.mark.parametrize("size", [(160, 120), (640, 480), (1920, 1080)], ids=str)
@pytest.mark.parametrize("inside", [False, True])
def test_zones_and_lines_are_drawn_at_any_size(size: tuple[int, int], inside: bool) -> None:
    packet = _packet(*size, inside=inside)
    image = Overlay(trace=False, labels=False).draw(packet)
    assert _has(image, LINE)
    assert _has(image, BUSY_ZONE if inside else ZONE)
    assert not _has(image, ZONE if inside else BUSY_ZONE)
    assert not packet.frame.image.any()  # the shared frame is unchanged


def test_places_may_be_left_out() -> None:
    packet = _packet(640, 480, inside=True)
    plain = Overlay(labels=False, places=False).draw(packet)
    assert (plain == Overlay(labels=False).draw(replace(packet, analyses={}))).all()
    assert not _has(plain, LINE)


def test_labels_tell_how_long_an_object_has_been_inside() -> None:
    assert _texts_of(_packet(640, 480, inside=True)) == ["#1 0 0.90 2 s"]
    assert _texts_of(_packet(640, 480, inside=False)) == ["#1 0 0.90"]


@pytest.mark.parametrize("at", [(-50, -50), (300, 200), (100, 60)], ids=str)
def test_text_stays_within_the_image(at: tuple[int, int]) -> None:
    image = np.full((60, 100, 3), 90, np.uint8)
    write(image, "door: 3", at, 0.4, LINE)
    changed = np.argwhere((image != 90).any(axis=2))
    assert len(changed) > 100
    assert image.min(axis=2).max() > 120  # strokes thinner than a pixel are grey


@pytest.mark.parametrize("width", [120, 320, 768, 1920])
def test_text_can_be_read_at_any_size_and_is_not_cut_off(width: int) -> None:
    image = np.full((width * 9 // 16, width, 3), 90, np.uint8)
    write(image, "exit: in 2, out 0", (width // 2, width // 4), min(image.shape[:2]) / 720, LINE)
    rows, columns = np.argwhere((image != 90).any(axis=2)).T
    assert np.ptp(rows) >= (12 if width > 200 else 8)
    strokes = np.argwhere(image.min(axis=2) > 130)[:, 1]
    assert columns.min() < strokes.min() <= strokes.max() < width - 1


def test_one_visit_is_not_visits() -> None:
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.imaging.scene._Line.draw", lambda line, image, text, *more: told.append(text))
        Overlay(trace=False, labels=False).draw(_packet(640, 480, inside=True))
    assert told == ["yard: 1 now, 1 visit", "door: in 0, out 0"]


def test_neither_border_nor_counts_of_a_zone_cover_the_label_of_an_object() -> None:
    packet = _packet(640, 480, inside=True)
    box = [(150.0, 245.0, 200.0, 430.0)]  # the zone's upper edge runs through the label above this box
    packet = replace(packet, tracks=Tracks(box, [0.9], [0], [1], None, [0]))
    without = Overlay(trace=False, places=False).draw(packet)[229:243, 152:225]
    assert without.any(axis=2).mean() > 0.9
    assert (Overlay(trace=False).draw(packet)[229:243, 152:225] == without).all()
