"""Measure what metrics and traces cost a run: the same clip with and without, in turn, as a ratio within one run.

usage: python tools/bench_metrics.py [--rounds 7] [--frames 600] [--tracing]
A scraper in a process of its own asks /metrics each second. The ratio of CPU time per frame is steadier on a shared
machine than that of the rates.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from typing import Any

SCRAPER = """
import sys, time, urllib.request
while True:
    try:
        urllib.request.urlopen(f"http://{sys.argv[1]}/metrics", timeout=5).read()
    except OSError:
        pass
    pause(1)
"""


def main() -> int:
    """Print the ratios as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument(
        "--tracing", action="store_true", help="also trace one frame in 100, to a collector that is away"
    )
    given = parser.parse_args()
    fps: list[float] = []
    cpu: list[float] = []
    for number in range(given.rounds):
        pair = {is_on: measured(given.frames, is_on=is_on, tracing=given.tracing) for is_on in order(number)}
        fps.append(pair[True]["fps"] / pair[False]["fps"])
        cpu.append(pair[False]["cpu_s"] / pair[True]["cpu_s"])
        sys.stderr.write(f"round {number + 1}: rate {fps[-1]:.3f}, CPU {cpu[-1]:.3f}\n")
    result = {"rounds": given.rounds, "fps_ratio": median(fps), "cpu_ratio": median(cpu)}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def order(number: int) -> tuple[bool, bool]:
    """Return which of both runs first, in turn."""
    return (False, True) if number % 2 else (True, False)


def median(values: list[float]) -> float:
    """Return the median, rounded."""
    return round(statistics.median(values), 4)


def measured(frames: int, *, is_on: bool, tracing: bool) -> dict[str, Any]:
    """Return the summary of a run."""
    words = [sys.executable, "-m", "pipelines", "run", "--source", "synthetic://?width=320&height=240&objects=8"]
    words += ["--model", "motion", "--publish", "tcp://127.0.0.1:*", "--max-frames", str(frames), "--json"]
    if is_on:
        words += ["--metrics", "127.0.0.1:0"]
    if is_on and tracing:
        words += ["--set", "tracing.endpoint=http://127.0.0.1:1/v1/traces"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    scraper = None
    assert run.stderr is not None
    for line in run.stderr:
        match = re.search(r"metrics at http://(\S+)/metrics", line)
        if match and scraper is None:
            scraper = subprocess.Popen([sys.executable, "-c", SCRAPER, match[1]], stderr=subprocess.DEVNULL)
    out, _ = run.communicate()
    if scraper is not None:
        scraper.kill()
        scraper.wait()
    facts: dict[str, Any] = json.loads(out.splitlines()[-1])
    return facts


if __name__ == "__main__":
    sys.exit(main())
