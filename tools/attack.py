#!/usr/bin/env python3
"""Attack every input of Framewire with damaged and random data, and print a table of the results.

usage: tools/attack.py [--minutes 60] [--only SURFACE ...] [--seed 1] [--stall-s 60] [--json]

Inputs of a running engine (control, snapshot, publish, streams, push, mqtt), of a fleet and of `framewire serve` are
attacked as in `tests/hostile`, beside a healthy camera and a subscriber, or a healthy client. Inputs for parsers (wire,
config, images, models, labels) are parsed in a worker process.
An *end* is a process that died or raised an undocumented error, a *freeze* is more than a second without a frame of the
healthy camera or inside one attempt, a *leak* is memory or descriptors that were not released, a *stall* is an attack
that made no attempt for too long: its last input, the victim's state and all stacks go to stderr. Exit code 1 if any.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.attacks.fleet import fleet
from tools.attacks.labels import labels
from tools.attacks.live import Start, on_engine
from tools.attacks.mqtt import mqtt
from tools.attacks.parsers import PARSERS
from tools.attacks.progress import STALL_S
from tools.attacks.push import push
from tools.attacks.results import HEAD, Result
from tools.attacks.serving import serve
from tools.attacks.sockets import control, publish, snapshot
from tools.attacks.streams import streams
from tools.attacks.worker import in_workers, work

LIVE: dict[str, Start] = {
    "control": control,
    "snapshot": snapshot,
    "publish": publish,
    "streams": streams,
    "push": push,
    "fleet": fleet,
    "serve": serve,
    "mqtt": mqtt,
}
WORKERS = {**PARSERS, "labels": labels}
SURFACES = (*WORKERS, *LIVE)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all surfaces together")
    parser.add_argument("--only", nargs="*", choices=SURFACES, default=SURFACES, help="surfaces to attack")
    parser.add_argument("--seed", type=int, default=1, help="of the damages")
    parser.add_argument("--stall-s", type=float, default=STALL_S, help="longest time without an attempt")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the table")
    parser.add_argument("--worker", choices=tuple(WORKERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def attacked(surface: str, seconds: float, seed: int, stall_s: float) -> Result:
    """Attack one surface for a while."""
    if surface in LIVE:
        return on_engine(surface, LIVE[surface], seconds, seed, stall_s)
    command = [sys.executable, __file__, "--worker", surface, "--stall-s", str(stall_s)]
    return in_workers(surface, command, seconds, seed, stall_s)


def main() -> int:
    """Attack, print the table, and return 1 if anything ended, froze, leaked or stalled."""
    args = _options()
    seconds = args.minutes * 60
    if args.worker:
        done = work(args.worker, WORKERS[args.worker], seconds, args.seed, args.folder, args.stall_s)
        print(json.dumps(dataclasses.asdict(done)))
        return 0
    results = []
    print(HEAD, file=sys.stderr if args.json else sys.stdout)
    for surface in args.only:
        results.append(attacked(surface, seconds / len(args.only), args.seed, args.stall_s))
        print(results[-1].row(), flush=True, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps([dataclasses.asdict(result) for result in results]))
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
