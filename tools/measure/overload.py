#!/usr/bin/env python3
"""Overload a detector threefold and print how old its results are, minute by minute.

usage: tools/measure/overload.py [--minutes 10] [--model demo] [--camera synthetic|rtsp|all] [--detector slow|model|all]
Cameras: a synthetic one and an RTSP server, both at a rate three times too high for the detector. Detectors: one that
waits for three frame intervals, and a real model. Exit code 1 if the p99 age at publishing exceeded `max_age_ms` + one
inference in any minute, or frames went missing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.detection.load import load_detector
from engine.protocols import Detector
from pipelines.build.detector import model_path
from tests.fakes import PixelDetector
from tests.freshness.ages import plain
from tests.freshness.overload import SLOWER, Overload, overload, seconds_per_inference
from tests.rtsp_server import RtspServer, missing_server

WIDTH, HEIGHT, FPS = 320, 240, 25


def detectors(kind: str, model: str) -> dict[str, tuple[Callable[[], Detector], float]]:
    """Return, by name, a function that creates a detector and the camera rate that is three times too high for it."""
    known: dict[str, tuple[Callable[[], Detector], float]] = {}
    if kind in ("slow", "all"):
        known["slow"] = (lambda: PixelDetector(work_s=SLOWER / FPS), FPS)
    if kind in ("model", "all"):

        def load() -> Detector:
            return load_detector(model_path(model), performance="latency")

        known[model] = (load, SLOWER / seconds_per_inference(load(), WIDTH, HEIGHT))
    return known


def cameras(kind: str) -> list[str]:
    """Return the cameras to use; without a server, skip RTSP and say so."""
    if kind == "all" and missing_server():
        print(f"no RTSP: {missing_server()}", file=sys.stderr)
        return ["synthetic"]
    return ["synthetic", "rtsp"] if kind == "all" else [kind]


def show(report: Overload) -> None:
    """Print a report."""
    p50, p99 = report.inference_ms
    print(f"{report.name}: {report.camera_fps:.1f} fps arrived, {report.published_fps:.1f} fps published ", end="")
    print(f"({report.slower:.1f}x too slow); inference p50 {p50:.1f} p99 {p99:.1f} ms")
    for number, part in enumerate(report.ages, 1):
        print(f"  minute {number:2}: age at publishing {part}")
    verdict = "kept" if report.is_fresh else "BROKEN"
    print(f"  p99 {report.p99_ms:.1f} ms, promised below {report.limit_ms:.1f} ms: {verdict}; ", end="")
    print(f"dropped {report.dropped}, accounted {report.is_accounted}", flush=True)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each combination")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-age-ms", type=float, default=200.0)
    parser.add_argument("--camera", choices=("synthetic", "rtsp", "all"), default="all")
    parser.add_argument("--detector", choices=("slow", "model", "all"), default="all")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    return parser.parse_args()


def main() -> int:
    """Run the overload and report."""
    args = _options()
    reports = []
    for detector_name, (make, rate) in detectors(args.detector, args.model).items():
        fps = max(math.ceil(rate), 1)
        for camera in cameras(args.camera):
            name = f"{camera} at {fps} fps, {detector_name}"
            limits = {"seconds": 60 * args.minutes, "max_age_ms": args.max_age_ms}
            if camera == "synthetic":
                uri = f"synthetic://?width={WIDTH}&height={HEIGHT}&fps={fps}&realtime=1"
                reports.append(overload(name, uri, make(), **limits))
            else:
                with closing(RtspServer(size=f"{WIDTH}x{HEIGHT}", fps=fps, gop=fps)) as server:
                    reports.append(overload(name, server.url, make(), **limits))
            show(reports[-1])
    if args.json:
        print(json.dumps([plain(report) for report in reports]))
    return 0 if all(report.is_fresh and report.is_accounted for report in reports) else 1


if __name__ == "__main__":
    raise SystemExit(main())
