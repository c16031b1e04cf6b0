"""Measure `pipeline.workers`: one engine process limited to one core, compared with two workers on two cores.

    python tools/measure/bench_workers.py --sources 4 --frames 400

Prints frames per second of CPU-bound runs on synthetic cameras, their ratio (medians over alternating rounds), and how
many cores a single free process already uses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--frames", type=int, default=400, help="per source")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="motion")
    return parser.parse_args()


def main() -> None:
    """Measure, and print one line of JSON."""
    given = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this machine has one core: two workers cannot be faster")
    one, two, free = [], [], []
    for _ in range(given.rounds):
        one.append(_run(given, 1, set(cores[:1]))["fps"])
        two.append(_run(given, 2, set(cores[:2]))["fps"])
        alone = _run(given, 1, set(cores))
        free.append(alone["cpu_s"] / alone["wall_s"])
    figures = {
        "one_core_fps": statistics.median(one),
        "two_workers_fps": statistics.median(two),
        "ratio": statistics.median(b / a for a, b in zip(one, two, strict=True)),
        "cores_of_a_free_process": statistics.median(free),
    }
    print(json.dumps({key: round(value, 2) for key, value in figures.items()}))


def _run(given: argparse.Namespace, workers: int, cores: set[int]) -> dict[str, Any]:
    """Return the summary of a run on some cores."""
    words = [word for n in range(given.sources) for word in ("--source", f"c{n}=synthetic://?count={given.frames}")]
    options = ["--model", given.model, "--publish", "none", "--set", f"pipeline.workers={workers}", "--json"]
    command = [sys.executable, "-m", "pipelines", "--quiet", "run", *words, *options]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # children inherit it
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        os.sched_setaffinity(0, before)
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


if __name__ == "__main__":
    main()
