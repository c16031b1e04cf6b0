"""Measure what metrics and traces cost a run: the same frames with and without them, at the same time, as a ratio.

usage: python tools/measure/bench_metrics.py [--rounds 9] [--frames 3000] [--model motion] [--tracing]

Both runs of a round begin together, so that other load on the machine affects both. A scraper in a separate process
requests /metrics each second; this process collects the traces. The figure is the CPU time per frame between the first
and the last report; reports are five seconds apart.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil

SCRAPER = """
import sys, threading, urllib.request
while True:
    try:
        urllib.request.urlopen(f"http://{sys.argv[1]}/metrics", timeout=5).read()
    except OSError:
        pass
    threading.Event().wait(1)
"""


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--model", default="motion", help="motion, a cheap one, makes the cost look largest")
    parser.add_argument("--tracing", action="store_true", help="also trace one frame in 100")
    return parser.parse_args()


def main() -> int:
    """Print the ratios as JSON."""
    given, collector = _options(), Collector()
    cpu: list[float] = []
    for number in range(given.rounds):
        with ThreadPoolExecutor(2) as pool:
            run = partial(measured, given.model, given.frames, traces=collector.url if given.tracing else "")
            runs = {is_on: pool.submit(run, is_on=is_on) for is_on in sorted((True, False), reverse=number % 2 == 0)}
            pair = {is_on: each.result() for is_on, each in runs.items()}
        cpu.append(pair[False] / pair[True])
        sys.stderr.write(f"round {number + 1}: {1e3 * pair[True]:.3f} and {1e3 * pair[False]:.3f} ms, {cpu[-1]:.3f}\n")
    spread = [round(each, 3) for each in cpu]
    result = {"rounds": given.rounds, "cpu_ratio": median(cpu), "of_rounds": spread, "trace_posts": collector.posts}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def median(values: list[float]) -> float:
    """Return the median, rounded."""
    return round(statistics.median(values), 4)


class Collector:
    """Receives traces over HTTP, and counts the requests."""

    def __init__(self) -> None:
        self.posts = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                collector.posts += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _command(model: str, frames: int) -> list[str]:
    words = [sys.executable, "-m", "pipelines", "run", "--source", "synthetic://?width=320&height=240&objects=8"]
    return [*words, "--model", model, "--publish", "tcp://127.0.0.1:*", "--max-frames", str(frames), "--json"]


def measured(model: str, frames: int, *, is_on: bool, traces: str) -> float:
    """Return the CPU seconds per frame of a run between its first and last report, without start-up and shutdown."""
    words = _command(model, frames)
    if is_on:
        words += ["--metrics", "127.0.0.1:0"]
    if is_on and traces:
        words += ["--set", f"tracing.endpoint={traces}"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    scraper = None
    reports: list[tuple[float, int]] = []
    assert run.stderr is not None
    for line in run.stderr:
        match = re.search(r"metrics at http://(\S+)/metrics", line)
        if match and scraper is None:
            scraper = subprocess.Popen([sys.executable, "-c", SCRAPER, match[1]], stderr=subprocess.DEVNULL)
        shown = re.search(r": live, (\d+)[/ ]", line)  # every five seconds
        if shown:
            reports.append((used_s(run.pid), int(shown[1])))
    run.communicate()
    if scraper is not None:
        scraper.kill()
        scraper.wait()
    return _s_per_frame(reports)


def _s_per_frame(reports: list[tuple[float, int]]) -> float:
    """Return the CPU seconds per frame between the first and the last report."""
    if len(reports) < 2:
        sys.exit("the run was too short to be measured: give more --frames")
    (began_s, before), (ended_s, after) = reports[0], reports[-1]
    return (ended_s - began_s) / (after - before)


def used_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    sys.exit(main())
