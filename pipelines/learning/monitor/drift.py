"""Drift of scores, classes, sizes, object counts and brightness: how far a window of frames is from the reference.

The distance is the population stability index (PSI). A window raises an alarm if the index is large (0.25, the usual
threshold) and could not be due to chance: scaled by the sizes of both samples, it follows a chi-squared distribution. A
window of few frames therefore needs a larger difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections
from engine.errors import ConfigError
from engine.optional import require

LEAST_PSI = 0.25
CHANCE = 1e-6
BINS = 5
WINDOW = 30
LEAST_VALUES = 10
SCENE_FACTOR = 3.0
"""Neighbouring frames resemble each other, so this many count as one."""
EPSILON = 1e-3
NAMES = ("scores", "classes", "sizes", "objects", "light")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's input and output statistics at its release.

    Attributes:
        edges: by quantity, the inner limits of its bins; for classes 0.5, 1.5, ….
        counts: by quantity, the number of values in each bin.
        frames: number of frames.
        class_names: by class id, as the classes were counted; empty if unknown.
    """

    edges: Mapping[str, Sequence[float]]
    counts: Mapping[str, Sequence[int]]
    frames: int
    class_names: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        edges = {key: list(map(float, values)) for key, values in self.edges.items()}
        counts = {key: list(map(int, values)) for key, values in self.counts.items()}
        return {"edges": edges, "counts": counts, "frames": self.frames, "class_names": list(self.class_names)}


def reference_from(values: Any) -> Reference:
    """Return the reference from the result of `as_dict`. Raises `ConfigError`."""
    try:
        edges = {str(k): [float(x) for x in v] for k, v in values["edges"].items() if k in NAMES}
        counts = {str(k): [int(x) for x in v] for k, v in values["counts"].items() if k in NAMES}
        fits = all(len(counts[key]) == len(edges[key]) + 1 for key in edges)
        names = tuple(str(name) for name in values.get("class_names", ()))
        reference = Reference(edges, counts, int(values["frames"]), names)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"not a reference ({error}): make one with framewire release or monitor --save") from error
    if not fits or edges.keys() != counts.keys():
        raise ConfigError("not a reference: its bins and counts differ: make it again")
    return reference


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """The quantities of one frame.

    Attributes:
        scores: (N,) of the objects.
        classes: (N,) class ids.
        sizes: (N,) square roots of the boxes' shares of the frame.
        light: mean brightness from 0 to 1; None: unknown.
    """

    scores: Floats
    classes: Floats
    sizes: Floats
    light: float | None = None

    def values(self, name: str) -> Floats:
        """Return the (K,) values of one quantity."""
        if name == "objects":
            return np.array([len(self.scores)], np.float64)
        if name == "light":
            return np.array([] if self.light is None else [self.light], np.float64)
        values: Floats = getattr(self, name)
        return values


def frame_facts(found: Detections, size_wh: tuple[int, int], image: NDArray[np.uint8] | None = None) -> FrameFacts:
    """Return the quantities of a frame; `image` is (H, W, 3) uint8 BGR."""
    sides = np.maximum(found.xyxy[:, 2:] - found.xyxy[:, :2], 0).astype(np.float64)
    area = sides.prod(axis=1) / max(size_wh[0] * size_wh[1], 1)
    light = None if image is None else float(image[::8, ::8].mean() / 255)
    return FrameFacts(found.score.astype(np.float64), found.class_id.astype(np.float64), np.sqrt(area), light)


def make_reference(frames: Sequence[FrameFacts], class_count: int, class_names: Sequence[str] = ()) -> Reference:
    """Return the reference of some frames: bins of equal counts, and one bin per class. Raises `ConfigError`."""
    if len(frames) < LEAST_VALUES:
        raise ConfigError(f"{len(frames)} frames for a reference: expected at least {LEAST_VALUES}")
    edges: dict[str, Sequence[float]] = {}
    counts: dict[str, Sequence[int]] = {}
    for name in NAMES:
        values = np.concatenate([frame.values(name) for frame in frames])
        if len(values) < LEAST_VALUES:
            continue
        inner = np.arange(0.5, class_count - 1) if name == "classes" else _quantiles(values)
        edges[name] = inner.tolist()
        counts[name] = np.bincount(np.searchsorted(inner, values), minlength=len(inner) + 1).tolist()
    return Reference(edges, counts, len(frames), tuple(class_names))


def _quantiles(values: Floats) -> Floats:
    inner: Floats = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    least = values.min()
    if inner[0] == least and least > 0:  # many values equal the smallest, so anything below it gets its own bin
        inner = np.concatenate([[np.nextafter(least, -np.inf)], inner])
    return inner


def psi(expected: Sequence[int], found: Sequence[int]) -> float:
    """Return the population stability index of two histograms with the same bins.

    >>> round(psi([50, 50], [50, 50]), 3), round(psi([50, 50], [90, 10]), 3)
    (0.0, 0.879)
    """
    first = np.maximum(np.asarray(expected, np.float64) / max(sum(expected), 1), EPSILON)
    second = np.maximum(np.asarray(found, np.float64) / max(sum(found), 1), EPSILON)
    return float(((second - first) * np.log(second / first)).sum())


@dataclass
class DriftMonitor:
    """Compares the last frames with a reference.

    Attributes:
        reference: the expected distributions.
        window: number of frames compared.
        raised: quantities currently in alarm.
    """

    reference: Reference
    window: int = WINDOW
    raised: set[str] = field(default_factory=set)
    _frames: deque[FrameFacts] = field(default_factory=deque, init=False)

    def update(self, frame: FrameFacts) -> dict[str, float]:
        """Add a frame; return the index of each quantity that goes into alarm with it."""
        self.add(frame)
        fresh = {}
        for name in self.reference.edges:
            index, is_alarm = self._judge(name)
            if is_alarm and name not in self.raised:
                fresh[name] = round(index, 4)
            (self.raised.add if is_alarm else self.raised.discard)(name)
        return fresh

    def add(self, frame: FrameFacts) -> None:
        """Add a frame without checking for alarms."""
        self._frames.append(frame)
        if len(self._frames) > self.window:
            self._frames.popleft()

    def alarms(self) -> dict[str, float]:
        """Return the index of each quantity that is in alarm over the whole window."""
        found = {name: self._judge(name) for name in self.reference.edges}
        return {name: round(index, 4) for name, (index, is_alarm) in found.items() if is_alarm}

    def indexes(self) -> dict[str, float]:
        """Return the index of each quantity over the window."""
        return {name: round(self._judge(name)[0], 4) for name in self.reference.edges}

    def change(self, name: str) -> float:
        """Return by how much the window differs from the reference, 0 to 1; 1 where either has too few objects.

        Of `objects`, the difference between the mean numbers per frame, as a share of the larger one; of `classes`, the
        share of objects of another class. Unlike the index, it does not depend on how much the numbers vary.
        """
        expected = self.reference.counts.get("classes", ())
        total = sum(len(frame.scores) for frame in self._frames)
        if min(sum(expected), total) < LEAST_VALUES:
            return 1.0
        if name == "objects":
            means = total / len(self._frames), sum(expected) / self.reference.frames
            return abs(means[0] - means[1]) / max(means)
        shares = np.asarray(self._counts(name)) / total - np.asarray(expected) / sum(expected)
        return float(np.abs(shares).sum() / 2)

    def _values(self, name: str) -> Floats:
        return np.concatenate([frame.values(name) for frame in self._frames] or [np.zeros(0)])

    def _counts(self, name: str) -> list[int]:
        """Return how many values of the window fall into each bin of the reference."""
        size = len(self.reference.counts[name])
        counts = np.bincount(np.searchsorted(self.reference.edges[name], self._values(name)), minlength=size)
        return [*counts[: size - 1].tolist(), int(counts[size - 1 :].sum())]

    def _judge(self, name: str) -> tuple[float, bool]:
        values, expected = self._values(name), self.reference.counts[name]
        if len(values) < LEAST_VALUES:
            return 0.0, False
        index = psi(expected, self._counts(name))
        effective = len(values) / SCENE_FACTOR
        scaled = index * effective * sum(expected) / (effective + sum(expected))
        likely = float(require("scipy.stats").chi2.sf(scaled, max(len(expected) - 1, 1)))
        return index, index >= LEAST_PSI and likely < CHANCE
