"""Random scenes with everything that happens to tracks: gaps, flicker, wrong matches, shadows, changes, restarts.

`python -m tests.analytics.wild` writes what is found in them to `tests/golden/scenes.json.gz`: do so only when the
definitions of docs/analytics.md change, not to make a test pass.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.identity import Eligibility
from engine.analytics.places import Ground, Line, Zone
from engine.analytics.rules import (
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
from engine.analytics.view import View
from engine.data import Tracks
from tests.analytics.scripted import NS

SEEDS = range(16)
GOLDEN = Path(__file__).parents[1] / "golden" / "scenes.json.gz"
NAMES = ("person", "bag", "car")
SIZE = (640, 480)
ANCHORS = ("bottom_center", "bottom_center", "center", "top_center", "overlap")
GROUND = Ground([(0, 1), (1, 1), (1, 0.2), (0, 0.2)], [(0, 0), (20, 0), (20, 30), (0, 30)])


@dataclass
class Walker:
    """One object: where it starts, how it moves, and how it is seen."""

    start: np.ndarray[Any, Any]
    velocity: np.ndarray[Any, Any]
    height: float
    begin_s: float
    end_s: float
    class_id: int
    manner: str
    track_id: int
    parts: list[int] = field(default_factory=list)

    def feet(self, now_s: float) -> np.ndarray[Any, Any]:
        """Return where it stands, in pixels of a 640 x 480 frame."""
        t = now_s - self.begin_s
        if self.manner == "stands":
            return self.start
        if self.manner == "sways":
            return self.start + 0.3 * self.height * np.array((math.sin(3 * t), 0.3 * math.sin(2 * t)))
        if self.manner == "stops":
            t = min(t, 2.0) if t < 8 else t - 6
        at = self.start + self.velocity * t
        low, high = np.array((-10.0, 60.0)), np.array((650.0, 490.0))
        folded = (at - low) % (2 * (high - low))
        return low + np.minimum(folded, 2 * (high - low) - folded)


def _zones(rng: np.random.Generator) -> list[Zone]:
    shapes = [
        [(0.3, 0.3), (0.7, 0.3), (0.7, 0.8), (0.3, 0.8)],
        [(0.0, 0.5), (0.5, 0.4), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)],
        [(0.1, 0.2), (0.5, 0.6), (0.9, 0.2), (0.9, 0.99), (0.5, 0.7), (0.1, 0.99)],
        [(0.2, 0.9), (0.8, 0.9), (0.5, 0.3)],
        [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)],
    ]
    chosen = rng.choice(len(shapes), int(rng.integers(0, 5)), replace=False)
    zones = []
    for number in chosen.tolist():
        classes = None if rng.random() < 0.6 else {str(rng.choice(NAMES))}
        enter_s, leave_s = (0.3, 1.0) if rng.random() < 0.7 else (float(rng.uniform(0, 1)), float(rng.uniform(0, 2)))
        points = shapes[number]
        if rng.random() < 0.5:
            points = [(round(640 * x), round(480 * y)) for x, y in points]
        zones.append(
            Zone(
                f"z{number}",
                points,
                classes=classes,
                anchor=cast("Any", str(rng.choice(ANCHORS))),
                enter_s=enter_s,
                leave_s=leave_s,
                ground=GROUND if max(max(p) for p in points) <= 1 and rng.random() < 0.8 else None,
            )
        )
    return zones


def _lines(rng: np.random.Generator) -> list[Line]:
    shapes = [
        [(0.5, 1.0), (0.5, 0.0)],
        [(0.25, 1.0), (0.25, 0.5)],
        [(0.0, 0.75), (1.0, 0.75)],
        [(0.2, 0.9), (0.5, 0.6), (0.8, 0.9)],
        [(0.9, 0.1), (0.1, 0.95)],
    ]
    chosen = rng.choice(len(shapes), int(rng.integers(0, 5)), replace=False)
    return [
        Line(
            f"l{number}",
            shapes[number] if rng.random() < 0.5 else [(round(640 * x), round(480 * y)) for x, y in shapes[number]],
            classes=None if rng.random() < 0.7 else {str(rng.choice(NAMES))},
            anchor=cast("Any", str(rng.choice(ANCHORS[:4]))),
            once=bool(rng.random() < 0.2),
        )
        for number in chosen.tolist()
    ]


def _rules(rng: np.random.Generator, zones: list[Zone], lines: list[Line]) -> list[Any]:
    rules: list[Any] = [Close("close", heights=0.8), LeftBehind("left", classes={"bag"}, owners={"person"}, for_s=3)]
    rules.append(Removed("removed", classes={"bag"}, stood_s=3, for_s=1))
    for number, zone in enumerate(zones):
        name = zone.name
        rules += [
            Presence(f"presence{number}", zone=name, for_s=float(rng.choice([0, 1, 2]))),
            Loiter(f"loiter{number}", zone=name, for_s=3, absence_s=2, classes=None if number else {"person"}),
            Count(f"count{number}", zone=name, at_least=2, for_s=0.5, classes=None if number else {"person"}),
            Count(f"few{number}", zone=name, at_most=0, for_s=1),
            Direction(f"direction{number}", zone=name, forbidden_deg=90, tolerance_deg=80, for_s=0.3),
            Stopped(f"stopped{number}", zone=name, for_s=2),
        ]
        if zone.ground is not None:
            rules.append(Speed(f"speed{number}", zone=name, over_kmh=1, for_s=0.1))
    rules += [Crossed(f"crossed{number}", line=line.name) for number, line in enumerate(lines)]
    if len(lines) > 1:
        rules.append(Sequence("sequence", lines=[lines[0].name, lines[1].name], within_s=5))
    kept = rng.random(len(rules)) < 0.5
    return [rule for rule, is_kept in zip(rules, kept.tolist(), strict=True) if is_kept]


def _walkers(rng: np.random.Generator, count: int, seconds: float) -> list[Walker]:
    walkers = []
    for number in range(count):
        begin = float(rng.uniform(-seconds / 3, seconds * 0.8))
        manner = str(rng.choice(["walks", "walks", "walks", "stands", "sways", "stops"]))
        start = rng.uniform((0, 100), (640, 480))
        if manner in ("stands", "sways") and rng.random() < 0.5:
            start[int(rng.integers(2))] = float(rng.choice([320, 360, 240, 160, 480, 384, 192]))
        walkers.append(
            Walker(
                start=start,
                velocity=rng.uniform((-150, -60), (150, 60)),
                height=float(rng.choice([20, 60, 100, 180])),
                begin_s=begin,
                end_s=begin + float(rng.uniform(0.5, seconds)),
                class_id=int(rng.choice([0, 0, 0, 1, 2])),
                manner=manner,
                track_id=number + 1,
            )
        )
    return walkers


class _Sight:
    """What a detector and a tracker would hand out for the walkers."""

    def __init__(self, rng: np.random.Generator, walkers: list[Walker]) -> None:
        self._rng, self._walkers = rng, walkers
        self._next_id = len(walkers) + 1
        self._missing, self._noise = float(rng.choice([0, 0.1, 0.3])), float(rng.choice([0, 0.01, 0.03]))
        self._is_whole = bool(rng.random() < 0.4)
        self._is_mixed = bool(rng.random() < 0.2)
        self._has_shadows = bool(rng.random() < 0.3)
        self._never_tells = bool(rng.random() < 0.1)
        self._ended: set[int] = set()

    def frame(self, now_s: float, scale: float) -> tuple[Tracks, list[int]]:
        """Return the rows of one frame, and the tracks that ended before it."""
        rng, rows, ended = self._rng, [], []
        for walker in self._walkers:
            if now_s > walker.end_s + 1.0 and walker.track_id not in self._ended:
                self._ended.add(walker.track_id)
                ended.append(walker.track_id)
            if not walker.begin_s <= now_s <= walker.end_s or rng.random() < self._missing:
                continue
            if rng.random() < 0.004:  # the tracker loses it, and finds another
                ended += [walker.track_id] * bool(rng.random() < 0.5)
                walker.track_id, self._next_id = self._next_id, self._next_id + 1
            rows += self._rows(walker, now_s, scale)
        if self._is_mixed:
            rng.shuffle(rows)
        else:
            rows.sort(key=lambda row: row[0])
        return _tracks(rows, is_told=not self._never_tells), ended

    def _rows(self, walker: Walker, now_s: float, scale: float) -> list[tuple[Any, ...]]:
        rng = self._rng
        (x, y), tall = walker.feet(now_s), walker.height
        if rng.random() < 0.01:
            x += float(rng.choice([-1, 1])) * 6 * tall  # a wrong match
        box = np.array((x - 0.2 * tall, y - tall, x + 0.2 * tall, y)) + rng.normal(0, 1, 4) * self._noise * tall
        box = np.round(box * scale) if self._is_whole else box * scale
        score = float(np.clip(rng.normal(0.6, 0.2), 0.05, 0.99))
        class_id = walker.class_id if rng.random() < 0.93 else int(rng.integers(3))
        rows = [(walker.track_id, *box, score, class_id, rng.random() < 0.97)]
        if self._has_shadows and walker.track_id % 5 == 1 and rng.random() < 0.5:
            x1, y1, x2, y2 = box
            rows.append((100_000 + walker.track_id, x1, y1, x2, (y1 + y2) / 2, score - 0.05, class_id, True))
        return rows


def _tracks(rows: list[tuple[Any, ...]], *, is_told: bool) -> Tracks:
    if not rows:
        return Tracks.empty()
    ids, x1, y1, x2, y2, score, class_id, is_seen = zip(*rows, strict=True)
    seen = [number if flag else -1 for number, flag in enumerate(is_seen)] if is_told else None
    return Tracks(np.stack((x1, y1, x2, y2), axis=1), score, class_id, ids, None, seen)


def _analytics(rng: np.random.Generator) -> Analytics:
    zones, lines = _zones(rng), _lines(rng)
    any_ = Eligibility(min_score=0, min_seen_s=0, ignore_parked=False)
    tall = Eligibility(min_height=0.1, max_height=0.3)
    return Analytics(
        zones,
        lines,
        _rules(rng, zones, lines),
        class_names=NAMES,
        eligibility=[Eligibility(), any_, tall][int(rng.choice(3, p=[0.7, 0.2, 0.1]))],
        heat=bool(rng.random() < 0.7),
        forget_s=float(rng.choice([3, 10])),
    )


def played(seed: int) -> Iterator[View | tuple[Finding, ...]]:
    """Yield the views of a random scene, and the findings of its changes and its end."""
    rng = np.random.default_rng(seed)
    analytics = _analytics(rng)
    fps = float(rng.choice([1, 2, 5, 8, 10, 15, 25, 30]))
    frames = int(rng.integers(80, 260))
    sight = _Sight(rng, _walkers(rng, int(rng.choice([1, 3, 8, 8, 20, 70])), frames / fps))
    is_long = rng.random() < 0.15  # long enough to park
    now_ns, scale, more = 5 * NS, 1.0, bool(rng.random() < 0.3)
    for number in range(frames):
        now_ns += round(NS / fps * (8 if is_long and fps > 8 else 1)) * int(rng.choice([1, 1, 1, 1, 2, 4]))
        kind = rng.random() if more else 1.0
        if kind < 0.01:
            scale = 2.0 if scale == 1.0 else 1.0
        elif kind < 0.03:
            zones, lines = _zones(rng), _lines(rng)
            kept = [zone for zone in analytics.zones if zone.name not in {each.name for each in zones}]
            same = [line for line in analytics.lines if line.name not in {each.name for each in lines}]
            yield analytics.change([*zones, *kept], [*same, *lines], _rules(rng, zones, lines))
        elif kind < 0.035:
            yield analytics.reset("model_changed")
        elif kind < 0.04:
            now_ns -= 3 * NS
        elif kind < 0.05:
            analytics.source_is(live=False, captured_ns=now_ns)
            view = analytics.tick(now_ns + NS)
            if view is not None:
                yield view
            now_ns += 3 * NS
        tracks, ended = sight.frame(number / fps * (4 if is_long else 1), scale)
        size = round(SIZE[0] * scale), round(SIZE[1] * scale)
        is_held, is_detected = (rng.random() < 0.05, rng.random() > 0.05) if more else (False, True)
        yield analytics.update(
            tracks,
            now_ns,
            size,
            is_detected=bool(is_detected and not is_held),
            is_held=bool(is_held),
            ended=ended,
        )
    yield analytics.finish()


def told(seed: int) -> list[list[Any]]:
    """Return all findings of a scene as plain facts: texts and numbers, times in ns, and positions."""
    return [_facts(finding) for item in played(seed) for finding in (item.findings if isinstance(item, View) else item)]


def _facts(finding: Finding) -> list[Any]:
    texts = (finding.event, finding.phase, finding.rule, finding.place, finding.reason, finding.direction)
    numbers = [finding.number, finding.identity, *finding.track_ids]
    times = [finding.captured_ns, finding.began_ns, finding.ended_ns]
    return ["/".join((*texts, finding.class_name)), numbers, times, [*(finding.at or ()), *(finding.xyxy or ())]]


def main() -> None:
    """Write the file."""
    found = json.dumps({seed: told(seed) for seed in SEEDS}, separators=(",", ":"))
    GOLDEN.write_bytes(gzip.compress(found.encode(), mtime=0))


if __name__ == "__main__":
    main()
