"""Measure our trackers beside the libraries': quality, robustness to missing frames, and speed, in one run.

    python tools/bench_trackers.py [--data DIR] [--tables quality robust speed] [--write docs/tracking.md]

The libraries are optional (`pip install trackers ultralytics`); one that is missing is left out and named. `--write`
puts the tables between the markers of the document, otherwise they are printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.clock import NS_PER_S
from engine.data import Detections, Tracks
from engine.tracking.bytetrack import ByteTrack

Update = Callable[[Detections, int], Tracks]
Factory = Callable[[float], Update]
"""A tracker for a video of the given frames per second."""

FPS = {"TUD-Campus": 25.0, "TUD-Stadtmitte": 25.0}


def ours(name: str, **parameters: Any) -> Factory:
    """Return a factory of our tracker `name`."""

    def make(fps: float) -> Update:
        return ByteTrack(**parameters).update

    return make


def of_trackers(name: str, **parameters: Any) -> Factory:
    """Return a factory of a tracker of the package `trackers`."""
    import supervision
    import trackers

    def make(fps: float) -> Update:
        tracker = getattr(trackers, name)(frame_rate=fps, **parameters)

        def update(found: Detections, captured_ns: int) -> Tracks:
            score, class_id = found.score.copy(), found.class_id.copy()
            rows = tracker.update(supervision.Detections(found.xyxy.copy(), confidence=score, class_id=class_id))
            named = rows[rows.tracker_id >= 0]
            return Tracks(named.xyxy, named.confidence, named.class_id, named.tracker_id)

        return update

    return make


def of_ultralytics(kind: str) -> Factory:
    """Return a factory of a tracker of `ultralytics` with its own settings; no camera motion, as there is no image."""
    from ultralytics.engine.results import Boxes
    from ultralytics.trackers.track import TRACKER_MAP
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    settings = {**YAML.load(check_yaml(f"{kind}.yaml")), "gmc_method": "none"}

    def make(fps: float) -> Update:
        tracker = TRACKER_MAP[kind](IterableSimpleNamespace(**settings))

        def update(found: Detections, captured_ns: int) -> Tracks:
            table = np.column_stack((found.xyxy, found.score, found.class_id)).astype(np.float32)
            rows = tracker.update(Boxes(table.reshape(-1, 6), (1080, 1920)))
            if not len(rows):
                return Tracks.empty()
            return Tracks(rows[:, :4], rows[:, 5], rows[:, 6], rows[:, 4])

        return update

    return make


def crowd(objects: int, frames: int, fps: float, seed: int) -> Iterable[Detections]:
    """Yield the detections of `objects` walkers on 1080p: births and deaths, 5 % misses, a pixel of noise."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 1, (objects, 2)) * (1920, 1080)
    height = rng.uniform(60, 180, objects)
    velocity = rng.normal(0, 0.6, (objects, 2)) * height[:, None] / fps
    for _ in range(frames):
        centre += velocity
        reborn = rng.random(objects) < 0.005
        centre[reborn] = rng.uniform(0, 1, (int(reborn.sum()), 2)) * (1920, 1080)
        half = np.column_stack((height * 0.2, height * 0.5))
        boxes = np.hstack((centre - half, centre + half)) + rng.normal(0, 1, (objects, 4))
        seen = rng.random(objects) >= 0.05
        yield Detections(boxes[seen], rng.uniform(0.3, 1, int(seen.sum())), np.zeros(int(seen.sum())))


def update_ms(factory: Factory, scene: list[Detections], fps: float) -> tuple[float, float]:
    """Return the median and the 99th percentile of the milliseconds per update, the first 30 left out."""
    update, times = factory(fps), []
    for number, found in enumerate(scene):
        before = time.perf_counter()
        update(found, round(number * NS_PER_S / fps))
        times.append((time.perf_counter() - before) * 1e3)
    p50, p99 = np.percentile(times[30:], (50, 99))
    return float(p50), float(p99)


def speed_table(factories: dict[str, Factory]) -> str:
    """Return the table of times by number of objects."""
    sizes = {10: 300, 50: 300, 200: 200, 1000: 60}
    scenes = {objects: list(crowd(objects, frames, 30.0, seed=objects)) for objects, frames in sizes.items()}
    head = [f"{objects} objects" for objects in sizes]
    lines = ["| ms per update, p50 / p99 | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for name, factory in factories.items():
        cells = [update_ms(factory, scene, 30.0) for scene in scenes.values()]
        lines.append(f"| {name} | " + " | ".join(f"{p50:.2f} / {p99:.2f}" for p50, p99 in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(
        speed_table(
            {
                "ours, ByteTrack": ours("bytetrack"),
                "trackers, ByteTrack": of_trackers("ByteTrackTracker"),
                "ultralytics, ByteTrack": of_ultralytics("bytetrack"),
            }
        )
    )
