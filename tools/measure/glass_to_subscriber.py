#!/usr/bin/env python3
"""Compare the age of results at a subscriber with the age stated on the wire, using a clock painted into the frames.

usage: tools/measure/glass_to_subscriber.py [--camera mjpeg|rtsp-jpeg|rtsp-h264|rtsp-h265|all] [--seconds 60] [--fps 25]
Camera, engine (`framewire run`) and subscriber are three processes on one machine. Exit code 1 if the medians of age
and of `latency_ms` differ by more than 5 ms for any camera.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.freshness.ages import plain
from tests.freshness.glass import CAMERAS, Glass, glass_to_subscriber
from tests.rtsp_server import missing_server

ALLOWED_MS = 5.0
FIGURES = ("age_ms", "latency_ms", "transport_ms", "unknown_ms", "difference_ms")


def show(report: Glass) -> None:
    """Print a report."""
    print(f"{report.camera} at {report.fps:g} fps, {report.count} frames, {report.unreadable} unreadable")
    print("                  p50     p95     min     max")
    for name in FIGURES:
        print(f"  {name:13} {getattr(report, name)}", flush=True)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camera", choices=(*CAMERAS, "all"), default="all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each camera")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--model", default="motion")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    return parser.parse_args()


def main() -> int:
    """Measure, and report."""
    args = _options()
    kinds: tuple[str, ...] = CAMERAS if args.camera == "all" else (args.camera,)
    if missing_server():
        print(f"no RTSP: {missing_server()}", file=sys.stderr)
        kinds = tuple(kind for kind in kinds if not kind.startswith("rtsp"))
    reports = []
    for kind in kinds:
        reports.append(glass_to_subscriber(kind, args.seconds, fps=args.fps, model=args.model))
        show(reports[-1])
    if args.json:
        print(json.dumps([plain(report) for report in reports]))
    return 0 if all(abs(report.difference_ms.p50) <= ALLOWED_MS for report in reports) else 1


if __name__ == "__main__":
    raise SystemExit(main())
