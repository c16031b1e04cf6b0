"""Compare our rule for counting crossings with others, on ground truth with noise, gaps and few frames per second.

    FRAMEWIRE_DATA=... python tools/compare/compare_counting.py [--seeds 10] [--standing 10]

Prints the tables of docs/analytics.md. `supervision.LineZone` itself is run, with three settings. The rules of Frigate,
DeepStream and DL Streamer are implemented here from their descriptions, only for this comparison.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.data import Tracks
from pipelines.scoring.mot import MotRows, read_mot

Boxes = NDArray[np.float64]
SIZE = (640, 480)
SEQUENCES = {"TUD-Stadtmitte": (440, 480, 540, 560, 580), "TUD-Campus": (180, 240, 260, 280, 300, 340, 360, 400, 420)}
COLUMNS = [
    ("25 fps", 1, 0.0, 0.0),
    ("5 fps", 5, 0.0, 0.0),
    ("1.7 fps", 15, 0.0, 0.0),
    ("25 fps, noise 2 %, 10 % missing", 1, 0.02, 0.1),
    ("25 fps, 4 %, 20 %", 1, 0.04, 0.2),
    ("5 fps, 2 %, 10 %", 5, 0.02, 0.1),
]
FPS = 25.0


class Counter(Protocol):
    """Counts the crossings of vertical lines: to the right and to the left."""

    def update(self, ids: NDArray[np.int64], boxes: Boxes, frame: int) -> None:
        """Process the boxes of one frame.

        Args:
            ids: (N,) int64 identity of each box.
            boxes: (N, 4) float64 xyxy in pixels.
            frame: number of the frame.
        """

    def counts(self) -> NDArray[np.int64]:
        """Return (L, 2) int64, the crossings of each line to the right and to the left so far."""


class Ours:
    """`engine.analytics`."""

    def __init__(self, lines: tuple[int, ...]) -> None:
        self._analytics = Analytics([], [Line(f"x{x}", [(x, 480), (x, 0)]) for x in lines], heat=False)

    def update(self, ids: NDArray[np.int64], boxes: Boxes, frame: int) -> None:
        """Process (N,) int64 identities and (N, 4) float64 xyxy boxes in pixels; see `Counter`."""
        count = len(ids)
        tracks = Tracks(boxes, np.ones(count), np.zeros(count), ids, None, np.arange(count))
        self._analytics.update(tracks, round(frame * 1e9 / FPS), SIZE)

    def counts(self) -> NDArray[np.int64]:
        """Return (L, 2) int64 crossings to the right and to the left."""
        self._analytics.settle()
        totals = self._analytics.summary()["lines"].values()
        return np.array([list(directions.values()) for directions in totals])


class SupervisionLine:
    """`supervision.LineZone`."""

    def __init__(self, lines: tuple[int, ...], frames: int, anchors: list[str] | None) -> None:
        import supervision as sv

        self._sv = sv
        keywords: dict[str, Any] = {"minimum_crossing_threshold": frames}
        if anchors is not None:
            keywords["triggering_anchors"] = [sv.Position(anchor) for anchor in anchors]
        self._zones = [sv.LineZone(sv.Point(x, 480), sv.Point(x, 0), **keywords) for x in lines]

    def update(self, ids: NDArray[np.int64], boxes: Boxes, frame: int) -> None:
        """Process (N,) int64 identities and (N, 4) float64 xyxy boxes in pixels; see `Counter`."""
        found = self._sv.Detections(xyxy=boxes, tracker_id=ids, class_id=np.zeros(len(ids), int))
        for zone in self._zones:
            zone.trigger(found)

    def counts(self) -> NDArray[np.int64]:
        """Return (L, 2) int64 crossings to the right and to the left; for an upward line, `out` is to the right."""
        return np.array([(zone.out_count, zone.in_count) for zone in self._zones])


class SideChange:
    """DL Streamer's tripwire according to its documentation: the segment between two observations crosses the line."""

    def __init__(self, lines: tuple[int, ...]) -> None:
        self._lines = np.array(lines, float)
        self._before: dict[int, float] = {}
        self._counts = np.zeros((len(lines), 2), np.int64)

    def update(self, ids: NDArray[np.int64], boxes: Boxes, frame: int) -> None:
        """Process (N,) int64 identities and (N, 4) float64 xyxy boxes in pixels; see `Counter`."""
        for track, x in zip(ids.tolist(), ((boxes[:, 0] + boxes[:, 2]) / 2).tolist(), strict=True):
            before = self._before.get(track, x)
            self._counts[:, 0] += (before < self._lines) & (x >= self._lines)
            self._counts[:, 1] += (before >= self._lines) & (x < self._lines)
            self._before[track] = x

    def counts(self) -> NDArray[np.int64]:
        """Return (L, 2) int64 crossings to the right and to the left."""
        return self._counts


@dataclass
class _Seen:
    frames: int
    places: deque[tuple[float, float]]


class DeepStreamLine:
    """`nvdsanalytics` line crossing, mode balanced, according to its code.

    The crossing must lie on the line, the track must be older than 10 frames, and the displacement from the mean of the
    oldest positions of the last 10 frames must exceed sqrt(3000) pixels. Each object counts once per line and
    direction.
    """

    MOVE2, AGE, HISTORY = 3000.0, 10, 10

    def __init__(self, lines: tuple[int, ...]) -> None:
        self._lines = lines
        self._seen: dict[int, _Seen] = {}
        self._done: set[tuple[int, int]] = set()
        self._counts = np.zeros((len(lines), 2), np.int64)

    def update(self, ids: NDArray[np.int64], boxes: Boxes, frame: int) -> None:
        """Process (N,) int64 identities and (N, 4) float64 xyxy boxes in pixels; see `Counter`."""
        for track, box in zip(ids.tolist(), boxes, strict=True):
            seen = self._seen.setdefault(track, _Seen(0, deque(maxlen=self.HISTORY)))
            x, y = float(box[0] + box[2]) / 2, float(box[3])
            seen.frames += 1
            if seen.places:
                self._look(track, seen, x, y)
            seen.places.append((x, y))

    def _look(self, track: int, seen: _Seen, x: float, y: float) -> None:
        oldest = np.mean(list(seen.places)[: max(1, len(seen.places) // 2)], axis=0)
        move2 = (x - oldest[0]) ** 2 + (y - oldest[1]) ** 2
        if seen.frames <= self.AGE or move2 < self.MOVE2:
            return
        for number, line in enumerate(self._lines):
            if (oldest[0] < line) == (x < line) or (track, number) in self._done:
                continue
            self._done.add((track, number))
            self._counts[number, 0 if x >= line else 1] += 1

    def counts(self) -> NDArray[np.int64]:
        """Return (L, 2) int64 crossings to the right and to the left."""
        return self._counts


BOTTOM = ["BOTTOM_CENTER"]
RULES: dict[str, Callable[[tuple[int, ...]], Counter]] = {
    "**Framewire**": Ours,
    "segment between two observations (DL Streamer)": SideChange,
    "supervision.LineZone, default": lambda lines: SupervisionLine(lines, 1, None),
    "supervision.LineZone, bottom centre": lambda lines: SupervisionLine(lines, 1, BOTTOM),
    "supervision.LineZone, bottom centre, 3 frames": lambda lines: SupervisionLine(lines, 3, BOTTOM),
    "DeepStream nvdsanalytics, balanced": DeepStreamLine,
}


def _truth(rows: MotRows, lines: tuple[int, ...]) -> NDArray[np.int64]:
    """Count each identity's changes of side, ignoring a band of 5 px; the count is the same at 0 to 15 px."""
    counts = np.zeros((len(lines), 2), np.int64)
    for track in np.unique(rows.track_id):
        x = rows.tlwh[rows.track_id == track][:, 0] + rows.tlwh[rows.track_id == track][:, 2] / 2
        for number, line in enumerate(lines):
            sides = np.sign(x - line)[np.abs(x - line) > 5]
            counts[number, 0] += int(np.sum(np.diff(sides) > 0))
            counts[number, 1] += int(np.sum(np.diff(sides) < 0))
    return counts


def _play(rows: MotRows, counter: Counter, every: int, noise: float, missing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for frame in range(1, rows.last_frame + 1, every):
        boxes, ids = rows.xyxy[rows.at(frame)], rows.track_id[rows.at(frame)]
        boxes = boxes + rng.normal(0, 1, boxes.shape) * noise * (boxes[:, 3] - boxes[:, 1])[:, None]
        kept = rng.random(len(ids)) >= missing
        counter.update(ids[kept], boxes[kept], frame)


Column = tuple[str, int, float, float]
"""Name, every how many-th frame is used, noise as a share of the height, and share of observations left out."""


def summed_errors(data: Path, make: Callable[[tuple[int, ...]], Counter], column: Column, seeds: int) -> list[int]:
    """Return the sum of absolute errors over all lines, one per seed; one in all if nothing is random."""
    _, every, noise, missing = column
    errors = []
    for seed in range(seeds if noise or missing else 1):
        errors.append(0)
        for sequence, lines in SEQUENCES.items():
            rows = read_mot(data / "mot" / sequence / "gt" / "gt.txt")
            counter = make(lines)
            _play(rows, counter, every, noise, missing, seed)
            errors[-1] += int(np.abs(counter.counts() - _truth(rows, lines)).sum())
    return errors


def lines_table(data: Path, seeds: int) -> None:
    """Print the sum of absolute errors over 14 lines and 70 crossings."""
    print("| rule | " + " | ".join(name for name, *_ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, make in RULES.items():
        cells = []
        for column in COLUMNS:
            errors = summed_errors(data, make, column, seeds)
            cells.append(f"{np.mean(errors):.1f}" if len(errors) > 1 else str(errors[0]))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _frigate_visits(inside: list[bool], inertia: int = 3) -> int:
    """Return visits of a zone by Frigate's presence score, which guards the entry.

    A single frame outside counts as leaving.
    """
    score, present, visits = 0, False, 0
    for now in inside:
        score = score + 1 if now else score
        was, present = present, now and score >= inertia
        visits += present and not was
    return visits


def _counts_of_standing(analytics: Analytics, boxes: Boxes) -> tuple[float, ...]:
    """Return visits, crossings and dithers of one object, and the counts of the other programs."""
    others: list[Counter] = [SupervisionLine((320,), 3, BOTTOM), SideChange((320,))]
    for frame, box in enumerate(boxes):
        analytics.update(Tracks(box[None], [1], [0], [1], None, [0]), round(frame * 1e9 / FPS), SIZE)
        for other in others:
            other.update(np.array([1]), box[None], frame)
    summary, inside = analytics.summary(), (boxes[:, 3] >= 300).tolist()
    ours = summary["zones"]["z"]["visits"], sum(summary["lines"]["l"].values()), analytics.counters.dithers["l"]
    return *ours, _frigate_visits(inside), _entries(inside), *(float(other.counts().sum()) for other in others)


def _entries(inside: list[bool]) -> int:
    """Return how often an object went from outside to inside."""
    return sum(now and not before for before, now in zip([False, *inside], inside, strict=False))


def standing_table(minutes: float, seeds: int) -> None:
    """Print visits and crossings of an object that stands on a border and on a line."""
    print("\n| noise, % of the height | " + " | ".join(("Framewire visits", "crossings", "of them dithers")), end="")
    print(" | Frigate visits | point-in-polygon visits | supervision (3 frames) | segment |\n|" + "---|" * 8)
    zone, line = Zone("z", [(0, 300), (640, 300), (640, 480), (0, 480)]), Line("l", [(320, 480), (320, 0)])
    for noise in (1, 2, 3):
        sums = np.zeros(7)
        for seed in range(seeds):
            boxes = np.array((300, 200, 340, 300), float)
            boxes = boxes + np.random.default_rng(seed).normal(0, noise, (round(minutes * 60 * FPS), 4))
            sums += _counts_of_standing(Analytics([zone], [line], heat=False), boxes)
        print(f"| {noise} | " + " | ".join(f"{value / seeds:.1f}" for value in sums) + " |", flush=True)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="of the noisy columns")
    parser.add_argument("--standing", type=float, default=10.0, help="minutes of standing, per seed")
    parser.add_argument("--standing-seeds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    arguments = _options()
    warnings.simplefilter("ignore")
    data = Path(os.environ.get("FRAMEWIRE_DATA", "../shared/data"))
    lines_table(data, arguments.seeds)
    standing_table(arguments.standing, arguments.standing_seeds)


if __name__ == "__main__":
    main()
