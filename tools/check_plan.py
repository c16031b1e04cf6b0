#!/usr/bin/env python3
"""Check the number of cameras promised by `framewire bench --plan` in runs with that many, and with more.

usage: python tools/check_plan.py [--model demo] [--size 640x360] [--fps 5] [--seconds 30]
After the plan, `framewire run` plays the same kind of cameras in its own process: as many as promised, which must
keep up, and the smallest number more than 15 % above that, which must not. Exit code 1 if either fails.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.measuring.plan import Trial, write_clip
from pipelines.verbs.options import size_of

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
WITHIN = 0.15


def planned(model: str, size: str, fps: float) -> dict[str, Any]:
    """Return the result of `framewire bench --plan`."""
    words = ["bench", "--plan", "--model", model, "--size", size, "--fps", str(fps), "--json"]
    done = subprocess.run([*COMMAND, *words], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(clip: Path, model: str, count: int, fps: float, seconds: float) -> Trial:
    """Run cameras, and return the result from the first frame to the end."""
    camera = {"uri": str(clip), "loop": True, "realtime": True}
    sources = [{**camera, "source_id": f"camera{number}"} for number in range(count)]
    config = {
        "sources": sources,
        "detector": {"model": model},
        "publish": {"address": "tcp://127.0.0.1:*"},
        "pipeline": {"max_frames": math.ceil(seconds * fps)},
    }
    path = clip.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run([*COMMAND, "run", str(path), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    each = facts["sources"].values()
    captured, published = sum(one["captured"] for one in each), sum(one["published"] for one in each)
    dropped = sum(sum(one["dropped"].values()) for one in each)
    lost, age_ms = dropped / max(captured, 1), facts["latency_ms"]["p99"]
    return Trial(count, count * fps, published / seconds, lost, age_ms, 1e3 * facts["cpu_s"] / published, seconds)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    return parser.parse_args()


def main() -> int:
    """Plan, run, and report."""
    given = _options()
    plan = planned(given.model, given.size, given.fps)
    promised = int(plan["cameras"])
    print(f"promised: {promised} cameras; limit: {plan['limit']}")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "camera.mp4"
        write_clip(clip, size_of(given.size), given.fps)
        trials = [
            run(clip, given.model, count, given.fps, given.seconds)
            for count in (max(promised, 1), math.floor(promised / (1 - WITHIN)) + 1)
        ]
    for trial in trials:
        print(
            f"{trial.cameras} cameras: {'keep up' if trial.keeps_up else 'do not keep up'}, lost {trial.lost:.1%}, "
            f"p99 of the age {trial.age_p99_ms:.0f} ms"
        )
    return 0 if [trial.keeps_up for trial in trials] == [True, False] else 1


if __name__ == "__main__":
    raise SystemExit(main())
