"""Compare our trackers with those of other libraries: quality, robustness to missing frames, and speed, in one run.

    python tools/measure/bench_trackers.py [--data DIR] [--tables quality robust speed] [--write docs/tracking.md]

The libraries are optional (`pip install trackers ultralytics`); a missing one is skipped and reported. `--write`
puts the tables between the markers of the document; otherwise they are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.clock import NS_PER_S
from engine.data import Detections, Tracks
from engine.tracking.registry import tracker_by_name
from pipelines.scoring.mot import MotRows, detections_at, read_mot
from pipelines.scoring.track import TrackScores, evaluate_rows

Update = Callable[[Detections, int], Tracks]
Factory = Callable[[float], Update]
"""Creates a tracker for a video of the given frames per second."""

SEQUENCES = {"TUD-Campus": 25.0, "TUD-Stadtmitte": 25.0}
"""Sequences with public detections and ground truth, and their frames per second."""


def ours(name: str, **parameters: Any) -> Factory:
    """Return a factory of our tracker `name`."""

    def make(fps: float) -> Update:
        return tracker_by_name(name, **parameters).update

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
    """Return a factory of a tracker of `ultralytics` with its default settings, without camera motion."""
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


def update_ms(factories: dict[str, Factory], scene: list[Detections], fps: float) -> dict[str, tuple[float, float]]:
    """Return the median and the 99th percentile of the milliseconds per update of each tracker.

    Measures CPU time, so that other work on the machine does not count. All trackers take turns on every frame, so that
    cache effects are the same for all. The first 20 frames are left out.
    """
    updates = {name: factory(fps) for name, factory in factories.items()}
    times: dict[str, list[float]] = {name: [] for name in updates}
    for number, found in enumerate(scene):
        for name, update in updates.items():
            before = time.thread_time()
            update(found, round(number * NS_PER_S / fps))
            times[name].append((time.thread_time() - before) * 1e3)
    return {name: tuple(np.percentile(ms[20:], (50, 99)).tolist()) for name, ms in times.items()}


def all_factories() -> dict[str, Factory]:
    """Return every tracker to measure by its name in the tables; report missing libraries on stderr."""
    named = {f"ours: {name}": ours(name) for name in ("steady", "sort", "bytetrack", "ocsort", "botsort")}
    theirs = {"SORT": "SORTTracker", "ByteTrack": "ByteTrackTracker", "OC-SORT": "OCSORTTracker"}
    try:
        named |= {f"trackers: {name}": of_trackers(kind) for name, kind in theirs.items()}
        named["trackers: BoT-SORT"] = of_trackers("BoTSORTTracker", enable_cmc=False)
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
    kinds = {"ByteTrack": "bytetrack", "OC-SORT": "ocsort", "BoT-SORT": "botsort"}
    try:
        named |= {f"ultralytics: {name}": of_ultralytics(kind) for name, kind in kinds.items()}
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
    return named


def thinned(rows: MotRows, frames: NDArray[np.int64]) -> MotRows:
    """Return the rows of the given (F,) ascending frames, renumbered from 1 in their order."""
    number = np.searchsorted(frames, rows.frame)
    keep = frames[np.minimum(number, len(frames) - 1)] == rows.frame
    return MotRows(number[keep] + 1, rows.track_id[keep], rows.tlwh[keep], rows.score[keep], rows.class_id[keep])


def disturbed(rows: MotRows, seed: int) -> MotRows:
    """Return detections with 4 % missing and the others moved by about 1 % of their size."""
    rng = np.random.default_rng(seed)
    keep = rng.random(len(rows)) > 0.04
    tlwh = rows.tlwh[keep]
    tlwh = tlwh + rng.normal(0, 0.01, tlwh.shape) * tlwh[:, [2, 3, 2, 3]]
    return MotRows(rows.frame[keep], rows.track_id[keep], tlwh, rows.score[keep], rows.class_id[keep])


def score(factory: Factory, fps: float, gt: MotRows, det: MotRows, frames: NDArray[np.int64]) -> TrackScores:
    """Return the scores of a tracker that receives the detections of some frames, at their times.

    Args:
        factory: makes the tracker for a frame rate.
        fps: frames per second of the sequence.
        gt: ground truth.
        det: detections.
        frames: (F,) int64, ascending numbers of the frames to use, from 1.
    """
    gt, det = thinned(gt, frames), thinned(det, frames)
    update = factory(fps * len(frames) / float(frames[-1]))
    shown = []
    for number, frame in enumerate(frames.tolist(), start=1):
        tracks = update(detections_at(det, number), round(frame * NS_PER_S / fps))
        size = tracks.xyxy[:, 2:] - tracks.xyxy[:, :2]
        box = np.hstack((tracks.xyxy[:, :2], size)).astype(np.float64)
        shown.append((np.full(len(tracks), number), tracks.track_id, box, tracks.score.astype(np.float64)))
    frame, track_id, tlwh, score = (np.concatenate(column) for column in zip(*shown, strict=True))
    return evaluate_rows(gt, MotRows(frame, track_id, tlwh, score, np.full(len(frame), -1)))


def load(data: Path, name: str) -> tuple[MotRows, MotRows, NDArray[np.int64]]:
    """Return ground truth, public detections and the (F,) int64 numbers of all frames of a sequence, from 1."""
    gt, det = read_mot(data / name / "gt" / "gt.txt"), read_mot(data / name / "det" / "det.txt")
    return gt, det, np.arange(1, max(gt.last_frame, det.last_frame) + 1)


def quality_table(factories: dict[str, Factory], data: Path) -> str:
    """Return the table of scores with the unchanged public detections."""
    head = [f"{name} {score}" for name in SEQUENCES for score in ("HOTA", "IDF1", "MOTA", "switches")]
    lines = ["| tracker | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for name, factory in factories.items():
        cells = []
        for sequence, fps in SEQUENCES.items():
            s = score(factory, fps, *load(data, sequence))
            cells += [f"{s.hota:.3f}", f"{s.idf1:.3f}", f"{s.mota:.3f}", str(s.id_switches)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chosen_frames(every: NDArray[np.int64], share: float, random: bool, seed: int) -> NDArray[np.int64]:
    """Return a share of the (F,) frames, ascending: every n-th from the `seed`-th on, or at random."""
    if random:
        return np.sort(np.random.default_rng(seed).choice(every, int(len(every) * share), replace=False))
    step = round(1 / share)
    return every[seed % step :: step]


SHARES = {
    "100 %": (1.0, False),
    "50 % regular": (0.5, False),
    "50 % random": (0.5, True),
    "25 % regular": (0.25, False),
    "25 % random": (0.25, True),
}


def robustness_table(factories: dict[str, Factory], data: Path, repeats: int = 3) -> str:
    """Return the table of HOTA / IDF1 by share of frames: means over both sequences and `repeats` random choices."""
    lines = ["| tracker | " + " | ".join(SHARES) + " |", "|---|" + "---|" * len(SHARES)]
    loaded = [(fps, *load(data, name)) for name, fps in SEQUENCES.items()]
    for name, factory in factories.items():
        cells = []
        for share, random in SHARES.values():
            scores = [
                score(factory, fps, gt, disturbed(det, seed), chosen_frames(every, share, random, seed))
                for fps, gt, det, every in loaded
                for seed in range(repeats)
            ]
            cells.append(f"{np.mean([s.hota for s in scores]):.3f} / {np.mean([s.idf1 for s in scores]):.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed_table(factories: dict[str, Factory]) -> str:
    """Return the table of times by number of objects."""
    sizes = {10: 300, 50: 300, 200: 150, 1000: 50}
    columns = [
        update_ms(factories, list(crowd(objects, frames, 30.0, seed=objects)), 30.0)
        for objects, frames in sizes.items()
    ]
    lines = [
        "| tracker | " + " | ".join(f"{objects} objects" for objects in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for name in factories:
        cells = [f"{column[name][0]:.2f} / {column[name][1]:.2f}" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_tables(path: Path, tables: dict[str, str]) -> None:
    """Put each table between its markers `<!-- table: NAME -->` and `<!-- end -->` in a document."""
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, marker, rest = text.partition(f"<!-- table: {name} -->\n")
        text = before + marker + table + "\n" + rest[rest.index("<!-- end -->") :]
    path.write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checkout = Path(__file__).resolve().parents[2]
    parser.add_argument("--data", type=Path, default=checkout.parent / "shared" / "data" / "mot")
    parser.add_argument(
        "--tables", nargs="+", choices=("quality", "robust", "speed"), default=["quality", "robust", "speed"]
    )
    parser.add_argument("--write", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, and print or write the tables."""
    options = _options()
    warnings.simplefilter("ignore")
    factories = all_factories()
    makers: dict[str, Callable[[], str]] = {
        "quality": lambda: quality_table(factories, options.data),
        "robust": lambda: robustness_table(factories, options.data),
        "speed": lambda: speed_table(factories),
    }
    tables = {name: makers[name]() for name in options.tables}
    if options.write:
        write_tables(options.write, tables)
    else:
        print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
