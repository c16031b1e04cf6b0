"""Measure what zones, lines and rules cost: CPU per frame of a clip and of a crowd, and memory over a simulated day.

usage: python tools/analytics_cost.py CLIP [--model MODEL] [--repeat 9] [--hours 0]

The clip is detected and tracked once, and its packets then go through analytics with 4 zones, 4 lines and 4 rules; the
crowd is 50 tracks that walk over 8 places at 25 fps. Next to each figure is that of a tracker on the same frames,
measured alternately, because CPU times depend on the machine and its other load. `--hours 24` simulates 200 tracks per
minute for that long and prints the memory after each sixth of it.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from engine import ByteTrack, Line, Pipeline, Zone, load_detector, open_source
from engine.analytics.analytics import Analytics
from engine.analytics.rules import Count, Crossed, Loiter, Presence
from engine.clock import NS_PER_S
from engine.data import Detections, Tracks

CROWD = 50
CROWD_FRAMES = 500
SIZE_WH = (1280, 720)
TRACKS_PER_MINUTE = 200
Frames = Sequence[tuple[Tracks, Detections, int, Sequence[int]]]
"""Tracks, detections, time in ns, and the tracks that have ended."""


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--hours", type=float, default=0.0)
    return parser.parse_args()


def main() -> int:
    """Print the results; return 1 if analytics exceeds its bounds."""
    given = _options()
    clip, size_wh = [], (0, 0)
    with Pipeline(open_source(given.clip), load_detector(given.model), ByteTrack()) as pipeline:
        for packet in pipeline:
            ended = [event.track_id for event in packet.events if event.kind == "ended"]
            clip.append((packet.tracks, packet.detections, packet.frame.scene_ns, ended))
            size_wh = packet.frame.width, packet.frame.height
    is_dear = told("clip, 4 zones, 4 lines, 4 rules", clip, lambda: scene(4, 4), size_wh, given.repeat, 0.2)
    is_dear |= told("50 tracks, 8 places, 4 rules", crowd(), lambda: scene(4, 4), SIZE_WH, given.repeat, 0.3)
    if given.hours:
        for at, blocks, resident in day(given.hours):
            print(f"after {at:5.1f} h: {blocks} allocated blocks, {resident / 1e6:.1f} MB resident")
    return int(is_dear)


def told(
    name: str, frames: Frames, make: Callable[[], Analytics], size_wh: tuple[int, int], repeat: int, bound: float
) -> bool:
    """Print the cost of analytics and of a tracker, measured alternately; return whether it is above the bound."""
    own, other = [], []
    for _ in range(repeat):
        own.append(cpu_ms(frames, make(), size_wh))
        other.append(tracker_ms(frames))
    cost, tracker = statistics.median(own), statistics.median(other)
    objects = statistics.mean(len(tracks) for tracks, *_ in frames)
    print(
        f"{name}: {cost:.4f} ms of CPU per frame (bound {bound}), {cost / tracker:.2f} of ByteTrack's {tracker:.4f} ms"
    )
    print(f"    ({len(frames)} frames with {objects:.1f} objects, median of {repeat})")
    return cost > bound


def scene(zones: int, lines: int) -> Analytics:
    """Return analytics with places side by side and four rules."""
    across = [(at / zones, (at + 1) / zones) for at in range(zones)]
    made_zones = [Zone(f"z{at}", [(a, 0.3), (b, 0.3), (b, 1), (a, 1)]) for at, (a, b) in enumerate(across)]
    made_lines = [Line(f"l{at}", [((at + 0.5) / lines, 1), ((at + 0.5) / lines, 0.2)]) for at in range(lines)]
    rules = [
        Presence("intruder", zone="z0", for_s=2, severity="alert"),
        Loiter("loiter", zone="z1", for_s=8),
        Crossed("entrance", line="l1"),
        Count("crowd", zone="z2", at_least=4, for_s=1, severity="alert"),
    ]
    return Analytics(made_zones, made_lines, rules)


def crowd() -> Frames:
    """Return frames on which 50 people walk back and forth."""
    rng = np.random.default_rng(0)
    start, speed = rng.uniform((0, 200), (1280, 700), (CROWD, 2)), rng.uniform(-120, 120, (CROWD, 2)) * (1, 0.2)
    return [_frame(start, speed, number * NS_PER_S // 25) for number in range(CROWD_FRAMES)]


def _frame(start: np.ndarray, speed: np.ndarray, at_ns: int) -> tuple[Tracks, Detections, int, Sequence[int]]:
    feet = start + speed * (at_ns / NS_PER_S)
    feet = np.abs((feet - (0, 200)) % (2 * 1280, 2 * 500) - (1280, 500)) * (1, 1) + (0, 200)
    xyxy = np.column_stack((feet[:, 0] - 20, feet[:, 1] - 100, feet[:, 0] + 20, feet[:, 1])).astype(np.float32)
    score, kind = np.full(len(xyxy), 0.8, np.float32), np.zeros(len(xyxy), np.int32)
    rows = np.arange(len(xyxy))
    return Tracks(xyxy, score, kind, rows, detection_index=rows), Detections(xyxy, score, kind), at_ns, ()


def cpu_ms(frames: Frames, analytics: Analytics, size_wh: tuple[int, int]) -> float:
    """Return the CPU of analytics per frame."""
    gc.collect()
    begin = time.process_time()
    for tracks, _, at_ns, ended in frames:
        analytics.update(tracks, at_ns, size_wh, ended=ended)
    return (time.process_time() - begin) * 1000 / len(frames)


def tracker_ms(frames: Frames) -> float:
    """Return the CPU of a tracker per frame."""
    tracker = ByteTrack()
    gc.collect()
    begin = time.process_time()
    for _, detections, at_ns, _ in frames:
        tracker.update(detections, at_ns)
    return (time.process_time() - begin) * 1000 / len(frames)


def day(hours: float) -> Iterator[tuple[float, int, int]]:
    """Yield the hour, the allocated blocks of Python's objects and the resident bytes, six times.

    Tracks walk from side to side, each for four frames. `tracemalloc` would take ten times as long as the analytics.
    """
    analytics, number = scene(4, 4), 0
    minutes = round(hours * 60)
    for minute in range(minutes):
        for at in range(TRACKS_PER_MINUTE):
            number += 1
            for step in range(4):
                at_ns = minute * 60 * NS_PER_S + at * 60 * NS_PER_S // TRACKS_PER_MINUTE + step * NS_PER_S // 20
                x = 100 + step * 300 + at % 7
                tracks = Tracks([[x, 300, x + 40, 420]], [0.8], [0], [number], detection_index=[0])
                analytics.update(tracks, at_ns, SIZE_WH, ended=[number - 1] if step == 0 else [])
        if (minute + 1) % max(minutes // 6, 1) == 0:
            gc.collect()
            yield (minute + 1) / 60, sys.getallocatedblocks(), resident_bytes()


def resident_bytes() -> int:
    """Return the resident memory of this process. Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
