"""Privacy: what is found now, was found just before or will be is hidden, and no failure lets a frame through."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.errors import ConfigError
from engine.imaging.background import ENOUGH, EVERY_NS, Background, _median
from engine.imaging.privacy import Privacy, PrivacyRules

NAMES = ("person", "car")
SHAPE = (120, 200, 3)
BOX = [40.0, 20.0, 80.0, 100.0]


def noise(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def packet(
    number: int = 0,
    boxes: list[list[float]] | None = None,
    *,
    ids: list[int] | None = None,
    classes: list[int] | None = None,
    unreported: list[list[float]] | None = None,
    live: bool = False,
    **fields: Any,
) -> Packet:
    """Return frame `number` of 10 per second, with detections and, if `ids` is given, their tracks."""
    given = [] if boxes is None else boxes
    kinds = classes or [0] * len(given)
    found = Detections(given, [0.9] * len(given), kinds)
    if unreported is not None:
        found.unreported = Detections(unreported, [0.12] * len(unreported), [0] * len(unreported))
    tracks = Tracks.empty() if ids is None else Tracks(given, [0.9] * len(ids), kinds, ids, None, range(len(ids)))
    kind = "arrival" if live else "file"
    frame = Frame(noise(), "gate", number, number * 100_000_000, 0, number * 100_000_000, kind)
    return Packet(frame, found, tracks, Run("e", 1, "m", NAMES), **fields)


def clear(made: Packet, box: list[float]) -> float:
    """Return the share of a box's pixels that are as they were; by chance one in 256 is."""
    x1, y1, x2, y2 = map(round, box)
    before, after = noise()[y1:y2, x1:x2], made.frame.image[y1:y2, x1:x2]
    return float((before == after).all(axis=2).mean())


def through(rules: PrivacyRules, *packets: Packet) -> list[Packet]:
    privacy = Privacy(rules)
    return [done for given in packets for done in privacy.take(given)] + privacy.end()


def test_what_is_found_is_hidden_with_a_margin_and_the_rest_is_not() -> None:
    [done] = through(PrivacyRules(), packet(0, [BOX, [120, 20, 160, 100]], classes=[0, 1]))
    assert clear(done, [34, 8, 86, 112]) < 0.01
    assert clear(done, [120, 20, 160, 100]) == 1  # a car
    assert done.hidden is not None
    assert done.hidden.class_id.tolist() == [0]
    assert "privacy" in done.stage_ms


def test_what_is_not_reported_is_hidden_and_handed_to_nobody() -> None:
    [done] = through(PrivacyRules(), packet(0, unreported=[BOX]))
    assert clear(done, BOX) < 0.01
    assert len(done.detections) == 0
    assert done.detections.unreported is None


def test_a_predicted_track_is_hidden() -> None:
    given = packet(0)
    tracks = Tracks([BOX], [0.9], [0], [7])
    [done] = through(PrivacyRules(), dataclasses.replace(given, tracks=tracks, is_detected=False))
    assert clear(done, BOX) < 0.01


def test_a_lost_track_stays_hidden_for_a_second_and_moves_on() -> None:
    walk = [[40.0 + 8 * n, 20.0, 70.0 + 8 * n, 100.0] for n in range(14)]
    seen = [packet(n, [walk[n]], ids=[7]) for n in range(4)]
    done = through(PrivacyRules(), *seen, *(packet(n) for n in range(4, 16)))
    for n in range(4, 14):
        assert clear(done[n], walk[n]) < 0.01, n
    assert clear(done[14], walk[13]) == 1


def test_a_detection_without_a_track_flickers_and_stays_hidden() -> None:
    done = through(PrivacyRules(), packet(0, unreported=[BOX]), *(packet(n) for n in range(1, 13)))
    assert [clear(each, BOX) < 0.01 for each in done] == [True] * 11 + [False] * 2


def test_while_nothing_moves_everything_stays_hidden() -> None:
    still = [packet(n, is_detected=False, is_held=True) for n in range(1, 40)]
    done = through(PrivacyRules(), packet(0, unreported=[BOX]), *still)
    assert all(clear(each, BOX) < 0.01 for each in done)


def test_a_delay_hides_on_earlier_frames_what_later_ones_show() -> None:
    walk = [[10.0 + 6 * n, 20.0, 40.0 + 6 * n, 100.0] for n in range(12)]
    found = [packet(n, [walk[n]], ids=[7]) if n >= 4 else packet(n) for n in range(12)]
    prompt, delayed = through(PrivacyRules(), *found), through(PrivacyRules(delay_s=0.4), *found)
    assert [clear(each, walk[n]) < 0.01 for n, each in enumerate(prompt)] == [False] * 4 + [True] * 8
    assert [each.frame.frame_id for each in delayed] == list(range(12))
    assert all(clear(each, walk[n]) < 0.05 for n, each in enumerate(delayed) if n >= 1)
    assert clear(delayed[0], walk[0]) < 1  # seen once only: its speed is not known yet


def test_a_live_packet_waits_no_longer_than_the_delay() -> None:
    privacy = Privacy(PrivacyRules(delay_s=0.5))
    assert privacy.wait_s(0) is None
    assert privacy.take(packet(1, live=True)) == []
    assert privacy.late(599_000_000) == []
    assert privacy.wait_s(500_000_000) == pytest.approx(0.1)
    assert [each.frame.frame_id for each in privacy.late(600_000_000)] == [1]
    assert privacy.end() == []


def test_regions_are_black() -> None:
    region = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    [done] = through(PrivacyRules(classes=(), regions=(region,)), packet(0))
    assert (done.frame.image[:, :100] == 0).all()
    np.testing.assert_array_equal(done.frame.image[:, 104:], noise()[:, 104:])


@pytest.mark.parametrize("mode", ["silhouette", "no_images"])
def test_these_modes_show_no_pixel_of_the_frame(mode: Any) -> None:
    done = through(PrivacyRules(mode), *(packet(n, [BOX], ids=[1]) for n in range(3)))
    for each in done:
        assert len(np.unique(each.frame.image.reshape(-1, 3), axis=0)) <= 2 + 300 * (mode == "silhouette")
        assert clear(each, [0, 0, 200, 120]) < 0.01


def test_the_original_frame_is_not_changed() -> None:
    given = packet(0, [BOX])
    through(PrivacyRules(), given)
    np.testing.assert_array_equal(given.frame.image, noise())


@pytest.mark.parametrize(
    "broken",
    [
        {"run": Run("e", 1, "m", ("dog",))},
        {"run": Run("e", 1, "m", ())},
        {"tracks": Tracks([[np.nan, 0, 1, 1]], [0.5], [0], [1])},
        {"tracks": Tracks([[0, 0, np.inf, 1]], [0.5], [0], [1])},
    ],
)
def test_a_frame_on_which_hiding_fails_is_withheld_and_that_is_logged_once(
    broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    privacy = Privacy(PrivacyRules())
    with caplog.at_level(logging.ERROR):
        done = [
            each for n in range(3) for each in privacy.take(dataclasses.replace(packet(n, [BOX], ids=[1]), **broken))
        ]
    assert [each.frame.image.any() for each in done] == [False] * 3
    assert privacy.summary() == {"gate": {"hidden": 0, "withheld": 3}}
    assert 1 <= len(caplog.records) <= 2


def test_each_source_has_its_own_rules() -> None:
    privacy = Privacy(PrivacyRules("none"), {"yard": PrivacyRules()})
    here = packet(0, [BOX], ids=[1])
    there = dataclasses.replace(here, frame=dataclasses.replace(here.frame, source_id="yard"))
    assert privacy.take(here)[0].frame is here.frame
    assert clear(privacy.take(there)[0], BOX) < 0.01
    privacy.change({"gate": PrivacyRules("no_images")})
    assert clear(privacy.take(packet(1, [BOX]))[0], BOX) < 0.01


def test_an_object_that_was_not_found_is_gone_from_the_background_unless_it_stays() -> None:
    background = Background(0.15)
    walker, sitter = [10, 10, 40, 90], [120, 10, 160, 90]
    for n in range(ENOUGH + 7):
        image = np.full(SHAPE, 60, np.uint8)
        image[10:90, 10 + 12 * n : 40 + 12 * n] = 250  # not found, walks
        image[10:90, 150:190] = 200  # found, stays
        background.add(image, np.float32([[150, 10, 190, 90]]), n * EVERY_NS)
        if n < ENOUGH - 1:
            assert (background.picture(200, 120) == 128).all()
    shown = background.picture(200, 120)
    assert (np.isin(shown, (60, 128))).all()
    assert (shown[:, :140] == 60).all(), (walker, sitter)


@pytest.mark.parametrize("count", [1, 2, 8, 15])
def test_the_median_is_that_of_numpy(count: int) -> None:
    samples = [noise(seed) for seed in range(count)]
    np.testing.assert_array_equal(_median(samples), np.sort(samples, axis=0)[(count - 1) // 2])


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "fog"},
        {"regions": (((0, 0), (1, 1)),)},
        {"regions": (((0, 0), (2, 0), (2, 2)),)},
        {"score_floor": 2.0},
        {"delay_s": 1.5},
        {"classes": ()},
    ],
)
def test_rules_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PrivacyRules(**bad)
