#!/usr/bin/env python3
"""Open and close an RTSP camera many times, and print what each cycle leaves behind.

usage: tools/measure/open_close.py [--cycles 1000] [--reader thread|process|both] [--json]
Exit code 1 if memory grew by more than 1 kB per cycle, or threads, descriptors or processes were left.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.faults.cycles import Cycles, open_and_close
from tests.rtsp_server import RtspServer, missing_server

ALLOWED_KB = 1.0


def is_good(found: Cycles) -> bool:
    """Return whether nothing was left behind."""
    kept = all(end <= begin for begin, end in (found.threads, found.descriptors))
    return kept and found.kb_per_cycle < ALLOWED_KB and not found.children


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--reader", choices=["thread", "process", "both"], default="both")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    return parser.parse_args()


def main() -> int:
    """Measure and report."""
    args = _options()
    if missing_server():
        sys.exit(missing_server())
    server = RtspServer(size="320x240", fps=25, gop=5)
    found = {}
    try:
        for reader in ["thread", "process"] if args.reader == "both" else [args.reader]:
            say = lambda text, reader=reader: print(f"{reader} {text}", file=sys.stderr, flush=True)  # noqa: E731
            found[reader] = open_and_close(server.url, reader, args.cycles, say)
            print(f"{reader}: {found[reader]}", flush=True)
    finally:
        server.kill()
    if args.json:
        print(json.dumps({reader: dataclasses.asdict(cycles) for reader, cycles in found.items()}))
    return 0 if all(map(is_good, found.values())) else 1


if __name__ == "__main__":
    raise SystemExit(main())
