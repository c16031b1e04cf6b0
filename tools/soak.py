#!/usr/bin/env python3
"""Run an engine on faulty RTSP cameras for a while, and print what grew.

usage: tools/soak.py [--minutes 30] [--cameras 4] [--fault-every 60] [--everything] [--csv FILE] [--json]
The engine is `framewire run` in its own process, watched from outside. Exit code 1 if frames went missing, something
was left behind, or memory, threads or descriptors grew. With --everything, rules, events, clips, recordings, an action,
the page with a viewer, metrics with a scrape a second and traces are on, and the memory of every child is fitted too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.soak import Report, soak
from tests.freshness.ages import plain
from tests.rtsp_server import missing_server


def show(report: Report) -> bool:
    """Print a report; return whether it passes."""
    for slope in report.slopes:
        print(slope)
    print(f"age at publishing: {report.ages_start} at the start, {report.ages_end} at the end")
    print(f"a thread that only sleeps was late by: {report.late_start}, {report.late_end}")
    for source_id, facts in report.sources.items():
        print(f"{source_id}: {facts}")
    for kind, facts in report.used.items():
        print(f"{kind}: {facts}")
    print(f"faults {report.faults}, accounted {report.is_accounted}, stopped in {report.stop_s:.2f} s, ", end="")
    print(f"processes left behind {report.left_behind}")
    flat = all(slope.is_flat for slope in report.slopes)
    return flat and report.is_accounted and not report.left_behind


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--fault-every", type=float, default=60.0, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="write all samples, with the engine's log next to them")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    parser.add_argument("--everything", action="store_true", help="everything that a run can do besides detecting")
    return parser.parse_args()


def main() -> int:
    """Run the soak test and report."""
    args = _options()
    if missing_server():
        sys.exit(missing_server())
    with tempfile.TemporaryDirectory(prefix="framewire-soak-") as folder:
        report = soak(
            args.minutes * 60,
            cameras=args.cameras,
            fault_every_s=args.fault_every,
            seed=args.seed,
            csv=args.csv,
            everything=Path(folder) if args.everything else None,
            say=lambda text: print(text, flush=True),
        )
    is_good = show(report)
    if args.json:
        print(json.dumps(plain(report)))
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
