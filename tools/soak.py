#!/usr/bin/env python3
"""Run an engine on faulty RTSP cameras for a while, and print what grew.

usage: tools/soak.py [--minutes 30] [--cameras 4] [--fault-every 60]
Exit code 1 if frames went missing, something was left behind, or memory, threads or descriptors grew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.soak import Report, soak
from tests.rtsp_server import missing_server

ALLOWED_PERCENT_PER_HOUR = 10.0


def show(report: Report) -> bool:
    """Print a report; return whether it is good."""
    for slope in report.slopes:
        growth = f"{slope.per_hour:+9.2f} per hour ({slope.percent_per_hour:+.1f} %)"
        print(f"{slope.name:20} mean {slope.mean:9.1f}  {growth}")
    print(f"p99 age at publishing: {report.p99_start_ms:.1f} ms at the start, {report.p99_end_ms:.1f} ms at the end")
    for source_id, facts in report.sources.items():
        print(f"{source_id}: {facts}")
    print(
        f"faults {report.faults}, accounted {report.is_accounted}, stopped in time {report.stopped_in_time}, ", end=""
    )
    print(f"processes left behind {report.left_behind}")
    flat = all(slope.percent_per_hour < ALLOWED_PERCENT_PER_HOUR for slope in report.slopes)
    return flat and report.is_accounted and report.stopped_in_time and not report.left_behind


def main() -> int:
    """Soak and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--fault-every", type=float, default=60.0, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if missing_server():
        sys.exit(missing_server())
    report = soak(args.minutes * 60, cameras=args.cameras, fault_every_s=args.fault_every, seed=args.seed, say=print)
    return 0 if show(report) else 1


if __name__ == "__main__":
    raise SystemExit(main())
