"""One truth for each kind of rule, seen at several frame rates, with gaps, mirrored, in another order, in a crowd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.places import Ground, Line, Zone
from engine.analytics.rules import (
    KINDS,
    Blind,
    Close,
    Count,
    Crossed,
    Direction,
    LeftBehind,
    Loiter,
    Presence,
    Removed,
    Sequence,
    Speed,
    Stopped,
)
from engine.data import Tracks
from tests.analytics.scripted import NS, SIZE, standing

PERSON, BAG, OTHER = 0, 1, 2
CLASSES = ("person", "suitcase", "other")
CORNERS = [(0, 0), (640, 0), (640, 480), (0, 480)]
YARD = Zone("yard", [(200, 100), (440, 100), (440, 400), (200, 400)])
ROAD = Zone("road", CORNERS, ground=Ground(CORNERS, [(0, 0), (64, 0), (64, 48), (0, 48)]))
LINES = [Line("a", [(250, 480), (250, 100)]), Line("b", [(400, 480), (400, 100)])]
Way = list[tuple[float, float]]
"""Seconds and x of the feet, straight in between; the object is there from the first to the last."""


@dataclass(frozen=True)
class Actor:
    """An object that walks along a line of the frame."""

    way: Way
    class_id: int = PERSON
    y: float = 300.0
    height: float = 100.0

    def x(self, now_s: float) -> float | None:
        """Return where it stands; None if it is not there."""
        seconds, places = zip(*self.way, strict=True)
        return float(np.interp(now_s, seconds, places)) if seconds[0] <= now_s <= seconds[-1] else None


@dataclass(frozen=True)
class Truth:
    """A rule, what happens, and what must be found: phase, and the second of its true begin or end."""

    rule: Callable[[bool], Any]
    actors: list[Actor]
    found: list[tuple[str, float]]
    least_fps: float = 0.0
    blind_s: tuple[float, float] = (1e9, 1e9)
    seconds: float = 14.0


def _lines(*names: str, is_mirrored: bool) -> list[str]:
    """Return steps of a sequence from left to right, or as they are in a mirror."""
    return [f"{name}:{'right_to_left' if is_mirrored else 'left_to_right'}" for name in names]


VISIT: Way = [(0, 100), (3, 200), (5, 320), (7, 320), (9, 440), (12, 600)]  # inside from 3 to 9 s
TRUTHS = {
    "presence": Truth(
        lambda _: Presence("r", zone="yard", for_s=2, classes=["person"]),
        [Actor(VISIT), Actor([(0, 50), (12, 60)])],
        [("begin", 3), ("end", 9)],
    ),
    "loiter": Truth(
        lambda _: Loiter("r", zone="yard", for_s=5, absence_s=3),
        [Actor([(0, 150), (2, 200), (4, 240), (5, 200), (6, 180), (7, 200), (9, 260), (11, 200), (18, 60)])],
        [("begin", 2), ("end", 11)],
        seconds=18,
    ),
    "line": Truth(
        lambda is_mirrored: Crossed("r", line="a", direction="right_to_left" if is_mirrored else "left_to_right"),
        [Actor([(0, 100), (4, 250), (8, 400)]), Actor([(0, 420), (8, 100)], y=200)],
        [("point", 4)],
    ),
    "count": Truth(
        lambda _: Count("r", zone="yard", at_least=2, for_s=1, clear_s=1, classes=["person"]),
        [Actor(VISIT), Actor([(0, 300), (14, 310)], y=380), Actor([(0, 300), (14, 310)], OTHER, 200)],
        [("begin", 3.3), ("end", 10)],  # those who enter and leave are in for enter_s less and leave_s more
    ),
    "direction": Truth(
        lambda is_mirrored: Direction("r", zone="road", forbidden_deg=0 if is_mirrored else 180, for_s=1),
        [Actor([(0, 500), (6, 100)]), Actor([(0, 100), (6, 500)], y=450)],
        [("begin", 1.8), ("end", 6)],  # once it has walked a height inside the zone
        seconds=18,  # an object that is lost has left the zone after ten seconds
    ),
    "speed": Truth(
        lambda _: Speed("r", zone="road", over_kmh=20),
        [Actor([(0, 100), (4, 140), (8, 420), (9, 425), (13, 440)])],  # 3.6 and 25 km/h
        [("begin", 4.7), ("end", 8.5)],
        least_fps=4,
    ),
    "stopped": Truth(
        lambda _: Stopped("r", zone="yard", for_s=3),
        [Actor([(0, 220), (3, 330), (9, 330), (12, 430)]), Actor([(0, 400), (14, 400)], y=200)],
        [("begin", 3), ("end", 9)],
    ),
    "sequence": Truth(
        lambda is_mirrored: Sequence("r", lines=_lines("a", "b", is_mirrored=is_mirrored), within_s=6),
        [Actor([(0, 100), (3, 250), (6, 400), (8, 500)]), Actor([(0, 100), (2, 250), (10, 400), (12, 450)], y=200)],
        [("point", 3)],
    ),
    "close": Truth(
        lambda _: Close("r", heights=0.8, for_s=1, classes=["person"]),
        [
            Actor([(0, 100), (4, 260), (8, 260), (11, 100)]),
            Actor([(0, 320), (14, 320)]),
            Actor([(0, 300), (14, 300)], OTHER),
        ],
        [("begin", 3.5), ("end", 8.4)],
    ),
    "blind": Truth(lambda _: Blind("r", for_s=2), [], [("begin", 4), ("end", 9)], blind_s=(4, 9)),
    "left_behind": Truth(
        lambda _: LeftBehind("r", classes=["suitcase"], owners=["person"], for_s=3),
        [Actor([(0, 100), (2, 300), (4, 300), (8, 620), (14, 620)]), Actor([(2, 330), (14, 330)], BAG, height=30)],
        [("begin", 7.1)],  # farther than twice the height from the edge of the box
    ),
    "removed": Truth(
        lambda _: Removed("r", classes=["suitcase"], stood_s=4, for_s=2),
        [Actor([(0, 330), (8, 330)], BAG, height=30), Actor([(0, 100), (14, 110)])],
        [("point", 8)],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sight:
    """How a scene is seen."""

    fps: float = 10.0
    missing: float = 0.0
    is_mirrored: bool = False
    is_reversed: bool = False
    bystanders: int = 0


SIGHTS = {
    "25 fps": Sight(25),
    "10 fps": Sight(),
    "2 fps": Sight(2),
    "1 fps": Sight(1),
    "gaps": Sight(12, missing=0.25),
    "mirrored": Sight(is_mirrored=True),
    "other order": Sight(is_reversed=True),
    "thousand": Sight(4, bystanders=1000),
}


def _mirrored(points: Any) -> list[tuple[float, float]]:
    return [(SIZE[0] - x, y) for x, y in points]


def _places(*, is_mirrored: bool) -> tuple[list[Zone], list[Line]]:
    if not is_mirrored:
        return [YARD, ROAD], LINES
    ground = Ground(_mirrored(CORNERS), [(0, 0), (64, 0), (64, 48), (0, 48)])
    zones = [Zone("yard", _mirrored(YARD.points)), Zone("road", _mirrored(CORNERS), ground=ground)]
    return zones, [Line(line.name, _mirrored(line.points)) for line in LINES]


def _rows(truth: Truth, sight: Sight, now_s: float, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Yield track, box and class of what is seen at one time."""
    for number, actor in enumerate(truth.actors, 1):
        x = actor.x(now_s)
        if x is not None and (rng.random() >= sight.missing or now_s < 0.5):
            x = SIZE[0] - x if sight.is_mirrored else x
            yield number, standing(x, actor.y, actor.height, 0.4 * actor.height), actor.class_id
    for number in range(sight.bystanders):
        x, y = 8 + 16 * (number % 40), 20 + 3 * (number // 40)
        yield 100 + number, standing(x, y, 12, 5), OTHER


def _found(truth: Truth, sight: Sight) -> list[Finding]:
    rng = np.random.default_rng(3)
    zones, lines = _places(is_mirrored=sight.is_mirrored)
    analytics = Analytics(zones, lines, [truth.rule(sight.is_mirrored)], class_names=CLASSES)
    found: list[Finding] = []
    for frame in range(round(truth.seconds * sight.fps) + 1):
        now_s = frame / sight.fps
        if truth.blind_s[0] <= now_s < truth.blind_s[1]:
            analytics.source_is(live=False, captured_ns=round(now_s * NS))
            view = analytics.tick(round(now_s * NS))
            assert view is not None
        else:
            rows = sorted(_rows(truth, sight, now_s, rng), reverse=sight.is_reversed)
            ids, boxes, classes = zip(*rows, strict=True) if rows else ((), np.zeros((0, 4)), ())
            seen = Tracks(boxes, [0.9] * len(ids), classes, ids, None, range(len(ids)))
            view = analytics.update(seen, round(now_s * NS), SIZE)
        found += [finding for finding in view.findings if finding.rule]
    return found


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_the_truth_is_found_however_it_is_seen(truth: Truth, sight: Sight) -> None:
    found = [finding for finding in _found(truth, sight) if finding.phase != "update"]
    if sight.fps < truth.least_fps:  # nothing can be measured, and nothing is invented
        assert not found
        return
    assert [finding.phase for finding in found] == [phase for phase, _ in truth.found]
    late_s = 0.3 + 2 / sight.fps + (0.4 if sight.missing else 0)
    for finding, (phase, true_s) in zip(found, truth.found, strict=True):
        at_ns = finding.ended_ns if phase == "end" else finding.began_ns
        at_ns = finding.ended_ns if finding.kind == "removed" else at_ns
        assert at_ns is not None
        assert true_s - late_s <= at_ns / NS <= true_s + late_s
        assert finding.captured_ns >= at_ns


def test_every_kind_of_rule_has_a_truth() -> None:
    assert set(TRUTHS) == set(KINDS)
