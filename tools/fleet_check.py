#!/usr/bin/env python3
"""Kill and freeze nodes and the controller of a real fleet on this machine, roll out models, and print the results.

usage: tools/fleet_check.py [kill] [freeze] [head] [roll] [sim] [--cameras 20] [--fps 10] [--lease 2]

Uses two local engines. Exit code 1 if an epoch decreased at the reader, a message from a former owner got through,
cameras did not come back, the ledger was wrong after a restart, or a bad model stayed. Times are printed for people to
judge.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.transport.keys import make_keys
from tests.pipelines.fleet.lab import (
    boxes_model,
    fleet_lab,
    freeze_a_node,
    kill_a_node,
    kill_the_head,
    roll_a_model,
)
from tests.pipelines.fleet.ray_cluster import ray_cluster

CHECKS = ("kill", "freeze", "head", "roll", "sim")


def check_kill(options: argparse.Namespace) -> dict[str, Any]:
    """Kill one of two nodes: two engines of this machine, or two Ray nodes with everything that runs on them."""
    with ExitStack() as opened:
        changes: dict[str, Any] = {}
        if options.ray:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            changes = {"launcher": "ray", "ray": {"address": opened.enter_context(ray_cluster(["n1", "n2"]))}}
            for name in ("keys", "engine_keys"):
                changes["ray"][name] = str(make_keys(folder, name)[1])
        lab = opened.enter_context(fleet_lab(options.cameras, options.fps, lease_s=options.lease, changes=changes))
        found = kill_a_node(lab)
    return found | {"ok": not found["disorder"]}


def check_freeze(options: argparse.Namespace) -> dict[str, Any]:
    """Freeze one of two nodes, and let it continue."""
    with fleet_lab(options.cameras, options.fps, lease_s=options.lease) as lab:
        found = freeze_a_node(lab, watch_s=10.0)
    return found | {"ok": not found["disorder"] and not found["messages_of_old_epochs_after_the_thaw"]}


def check_head(options: argparse.Namespace) -> dict[str, Any]:
    """Kill the controller, and restart it long after all leases would have expired."""
    with fleet_lab(options.cameras, options.fps, lease_s=options.lease) as lab:
        found = kill_the_head(lab, away_s=10 * options.lease)
    return found | {"ok": not found["disorder"] and found["ledger_equals_engines"] and not found["moved"]}


def check_roll(options: argparse.Namespace) -> dict[str, Any]:
    """Roll out a good model with a restart of the controller in the middle, and then one with swapped classes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old, good = (boxes_model(folder / f"{text}.onnx", ("person", "dog")) for text in ("old", "good"))
        bad = boxes_model(folder / "bad.onnx", ("dog", "person"))
        engine = {"detector": {"model": str(old)}}
        with fleet_lab(options.cameras, min(options.fps, 5.0), lease_s=30.0, engine=engine) as lab:
            rolled = roll_a_model(lab, good, watch_s=10.0, baseline=60, restart=True)
            returned = roll_a_model(lab, bad, watch_s=30.0, baseline=60)
    is_ok = rolled["stage"] == "done" and returned["stage"] == "returned"
    is_ok = is_ok and not rolled["disorder"] and not returned["cameras_with_the_new_model_now"]
    is_ok = is_ok and not rolled["frames_unaccounted"] and not returned["frames_unaccounted"]
    return {"good": rolled, "bad": returned, "ok": is_ok}


def check_sim(options: argparse.Namespace) -> dict[str, Any]:
    """Place 10,000 cameras, and simulate a day of them."""
    from pipelines.fleet.simulation.day import DayOptions, simulate_day

    found = simulate_day(DayOptions(cameras=options.sim_cameras, hours=options.hours))
    return found.as_dict() | {"ok": found.is_good}


def main() -> int:
    """Run the requested checks and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; otherwise all")
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--ray", action="store_true", help="kill: on two local nodes of a Ray cluster (extra fleet)")
    parser.add_argument("--lease", type=float, default=2.0, help="seconds")
    parser.add_argument("--sim-cameras", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=24.0)
    options = parser.parse_args()
    unknown = set(options.checks) - set(CHECKS)
    if unknown:
        parser.error(f"there is no check {min(unknown)}: expected {', '.join(CHECKS)}")
    worst = 0
    for name in options.checks or CHECKS:
        found = globals()[f"check_{name}"](options)
        print(json.dumps({"check": name, **found}), flush=True)
        worst |= not found["ok"]
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
