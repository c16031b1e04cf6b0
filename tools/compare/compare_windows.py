#!/usr/bin/env python3
"""Compare detection in windows with that of whole frames on clips: CPU time, tracks, delays and crossings.

usage: tools/compare/compare_windows.py CLIP... [--model M] [--max-fps 15] [--frames N] [--classes person] [--json]
Each clip runs once per setting, each in its own process: the whole square (the reference), the same with its image
shifted by (5, 3) pixels (the noise floor: no setting can be judged below it), the rectangle, the rectangle with the
motion gate, every second detection, and windows. Milliseconds are CPU time per frame after the first 30 frames,
with decoding. Crossings are those of three lines across the frame, `right` of those of the reference, `wrong` others.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from engine import Analytics, FrameGate, Line, MotionGate, Pipeline, RegionWindows, load_detector, open_source
from engine.boxes import iou_matrix
from engine.clock import NS_PER_S
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.protocols import DetectorBase
from engine.tracking.registry import tracker_by_name
from pipelines.scoring.mot import MotRows
from pipelines.scoring.track import evaluate_rows

SEEN_IOU = 0.5
WARM_UP = 30
SHIFT_XY = (5, 3)
SETTINGS = ("square", "shifted", "rectangle", "gate", "half", "windows")
LINES = {"upright": [(0.5, 0.0), (0.5, 1.0)], "level": [(0.0, 0.5), (1.0, 0.5)], "slope": [(0.0, 0.3), (1.0, 0.8)]}


def rules_of(setting: str, max_fps: float) -> FrameGate:
    """Return the rules of the source for a setting."""
    if setting == "gate":
        return FrameGate(max_fps=max_fps, motion_gate=MotionGate())
    if setting == "windows":
        return FrameGate(max_fps=max_fps, windows=RegionWindows())
    return FrameGate(max_fps=max_fps, detect_hz=max_fps / 2 if setting == "half" else None)


class ShiftedDetector(DetectorBase):
    """Detects on frames whose images are moved to the right and down, and moves the boxes back."""

    def __init__(self, inner: ModelDetector) -> None:
        self._inner = inner
        self.name, self.class_names = inner.name, inner.class_names

    def open(self) -> None:
        """Load the model."""
        self._inner.open()

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Return the detections of each frame."""
        back = np.array(SHIFT_XY * 2, np.float32)
        found = self._inner.detect([_shifted(frame) for frame in frames])
        return [Detections(one.xyxy - back, one.score, one.class_id) for one in found]

    def close(self) -> None:
        """Free the model."""
        self._inner.close()


def _shifted(frame: Frame) -> Frame:
    image = np.full_like(frame.image, 114)
    image[SHIFT_XY[1] :, SHIFT_XY[0] :] = frame.image[: -SHIFT_XY[1], : -SHIFT_XY[0]]
    return Frame(image)


def _pipeline(clip: str, setting: str, args: argparse.Namespace, scene: Analytics) -> Pipeline:
    size: Any = None if setting in ("square", "shifted") else "auto"
    detector: Any = load_detector(args.model, size=size, classes=args.classes)
    return Pipeline(
        open_source(clip, source_id="clip"),
        ShiftedDetector(detector) if setting == "shifted" else detector,
        tracker_by_name("steady"),
        rules={"clip": rules_of(setting, args.max_fps)},
        analytics={"clip": scene},
    )


def _crossings(scene: Analytics) -> dict[str, int]:
    """Return the crossings by line and direction."""
    lines = scene.summary()["lines"]
    return {f"{line} {way}": count for line, ways in lines.items() for way, count in ways.items()}


def measure(clip: str, setting: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one setting in this process and return plain values."""
    scene = Analytics(lines=[Line(name, points) for name, points in LINES.items()])
    pipeline = _pipeline(clip, setting, args, scene)
    rows: list[tuple[int, int, list[float]]] = []
    times: list[int] = []
    began_s = 0.0
    for number, packet in enumerate(pipeline, 1):
        began_s = time.process_time() if number == WARM_UP else began_s
        times.append(packet.frame.scene_ns)
        boxes = zip(packet.tracks.track_id.tolist(), packet.tracks.xyxy.tolist(), strict=True)
        rows += [(number, track_id, xyxy) for track_id, xyxy in boxes]
        if number == args.frames:
            break
    spent_s = time.process_time() - began_s
    return {
        "rows": rows,
        "times": times,
        "crossings": _crossings(scene),
        "ms": 1e3 * spent_s / max(len(times) - WARM_UP, 1),
        "looks": dict(pipeline.looks().get("clip", {})),
    }


def mot_rows(result: dict[str, Any]) -> MotRows:
    """Return the tracks of a run as ground truth or as output."""
    frame, track_id, xyxy = zip(*result["rows"], strict=True) if result["rows"] else ((), (), ())
    boxes = np.array(xyxy, np.float64).reshape(-1, 4)
    tlwh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    ids = np.array(track_id, np.int64)
    return MotRows(np.array(frame, np.int64), ids, tlwh, np.ones(len(ids)), np.full(len(ids), -1))


def first_seen_s(reference: MotRows, rows: MotRows, times: Sequence[int]) -> list[float]:
    """Return how much later each object of the reference is seen; infinite for one that is not."""
    found = []
    for track_id in np.unique(reference.track_id).tolist():
        there = np.flatnonzero(reference.track_id == track_id)
        begin = int(reference.frame[there[0]])
        seen = next((int(reference.frame[row]) for row in there if _is_seen(reference, int(row), rows)), None)
        found.append(math.inf if seen is None else (times[seen - 1] - times[begin - 1]) / NS_PER_S)
    return found


def _is_seen(reference: MotRows, row: int, rows: MotRows) -> bool:
    others = rows.xyxy[rows.at(int(reference.frame[row]))].astype(np.float32)
    box = reference.xyxy[row : row + 1].astype(np.float32)
    return len(others) > 0 and float(iou_matrix(box, others).max()) >= SEEN_IOU


def compare(reference: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one run compared with the reference."""
    truth, rows = mot_rows(reference), mot_rows(result)
    scores = evaluate_rows(truth, rows)
    delays = first_seen_s(truth, rows, reference["times"])
    wanted, told = reference["crossings"], result["crossings"]
    return {
        "ms": round(result["ms"], 1),
        "hota": round(scores.hota, 3),
        "idf1": round(scores.idf1, 3),
        "recall": round(scores.recall, 3),
        "precision": round(scores.precision, 3),
        "delay_p95_s": round(float(np.quantile(delays, 0.95, method="lower")), 2) if delays else 0.0,
        "never": sum(map(math.isinf, delays)),
        "objects": len(delays),
        "crossings": sum(wanted.values()),
        "right": sum(min(count, told.get(name, 0)) for name, count in wanted.items()),
        "wrong": sum(max(count - wanted.get(name, 0), 0) for name, count in told.items()),
        "looks": result["looks"],
    }


def run(clip: str, setting: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one setting in its own process."""
    command = [sys.executable, __file__, clip, "--only", setting, "--model", args.model, "--max-fps", str(args.max_fps)]
    command += ["--frames", str(args.frames), "--classes", *args.classes]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _print_clip(clip: str, args: argparse.Namespace) -> None:
    reference = run(clip, "square", args)
    for setting in args.settings:
        figures = compare(reference, reference if setting == "square" else run(clip, setting, args))
        line = json.dumps({"clip": Path(clip).name, "setting": setting, **figures})
        print(line if args.json else readable(line), flush=True)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="CLIP")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-fps", type=float, default=15.0, help="of each clip; the other frames are left out")
    parser.add_argument("--frames", type=int, default=400, help="of each clip at most")
    parser.add_argument("--classes", nargs="+", default=["person"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--only", choices=SETTINGS, help="run one setting here and print its tracks")
    parser.add_argument("--json", action="store_true", help="print one JSON line per clip and setting")
    return parser.parse_args()


def main() -> int:
    """Run, and print a table or JSON."""
    args = _options()
    if args.only:
        print(json.dumps(measure(args.clips[0], args.only, args)))
        return 0
    for clip in args.clips:
        _print_clip(clip, args)
    return 0


def readable(line: str) -> str:
    """Return the figures of one run in a line of text."""
    facts = json.loads(line)
    looks = ", ".join(f"{name} {count}" for name, count in facts.pop("looks").items())
    return (
        f"{facts.pop('clip')[:20]:20} {facts.pop('setting'):9} "
        + "  ".join(f"{name} {value}" for name, value in facts.items())
        + (f"  ({looks})" if looks else "")
    )


if __name__ == "__main__":
    raise SystemExit(main())
