#!/usr/bin/env python3
"""Run many cameras on a detector that is too slow for all of them, and print each one's share and what grew.

usage: tools/many_cameras.py [--cameras 16] [--minutes 5] [--kind synthetic|rtsp] [--model demo] [--csv FILE] [--json]
The engine is `framewire run` in its own process, watched from outside. Exit code 1 if one camera got less than 0.9 of
another's share, frames went missing, processes were left behind, or memory, threads or descriptors grew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.freshness.ages import plain
from tests.freshness.many_cameras import ManyCameras, many_cameras
from tests.rtsp_server import RtspServer, missing_server

SIZE, FPS = (320, 240), 10
MIN_FAIRNESS = 0.9


@contextmanager
def uris(kind: str, count: int, fps: int) -> Iterator[dict[str, str]]:
    """Serve the cameras and yield their addresses by name."""
    if kind == "synthetic":
        scene = f"synthetic://?width={SIZE[0]}&height={SIZE[1]}&fps={fps}&realtime=1"
        yield {f"cam{number}": f"{scene}&seed={number}" for number in range(count)}
        return
    if missing_server():
        sys.exit(missing_server())
    with closing(RtspServer(size=f"{SIZE[0]}x{SIZE[1]}", fps=fps, gop=fps, kbps=300, mounts=count)) as server:
        yield {f"cam{number}": f"{server.url}{number or ''}" for number in range(count)}


def show(report: ManyCameras) -> bool:
    """Print a report; return whether it passes."""
    print(f"{report.cameras} cameras: {report.captured_fps:.1f} fps arrived, {report.fps:.1f} fps processed, ", end="")
    print(f"least / most frames per camera {report.fairness:.3f}")
    for number, part in enumerate(report.ages, 1):
        print(f"  minute {number:2}: age at publishing {part}")
    for slope in report.slopes:
        print(f"  {slope}")
    print(f"  accounted {report.is_accounted}, stopped in {report.stop_s:.2f} s, left behind {report.left_behind}")
    flat = all(slope.is_flat for slope in report.slopes)
    return report.fairness >= MIN_FAIRNESS and report.is_accounted and not report.left_behind and flat


def main() -> int:
    """Run, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--kind", choices=("synthetic", "rtsp"), default="synthetic")
    parser.add_argument("--fps", type=int, default=FPS, help="of each camera")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--csv", type=Path, help="write the samples of memory, threads and descriptors")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    args = parser.parse_args()
    with uris(args.kind, args.cameras, args.fps) as addresses:
        report = many_cameras(addresses, 60 * args.minutes, model=args.model, csv=args.csv, say=print)
    is_good = show(report)
    if args.json:
        print(json.dumps(plain(report)))
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
