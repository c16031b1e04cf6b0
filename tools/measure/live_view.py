#!/usr/bin/env python3
"""Measure what viewers of the page cost the engine: the same run with and without them, alternately.

usage: python tools/measure/live_view.py [--cameras 16] [--viewers 1] [--rounds 5] [--seconds 8] [--json]

RTSP cameras of 640x360 at 10 fps. The output is the CPU of the engine with its readers and of the web process as a
share of one core, the age of the frames, and what remains 2 s after the viewers have left. With one viewer of 16
cameras: acceptance A21; with --cameras 1 --viewers 50: E14.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.stats import Histogram
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage
from tests.pipelines.web.page.site import Site, wait_for
from tests.pipelines.web.viewers import Viewers
from tests.rtsp_server import RtspServer, missing_server

LEAVE_S = 2.0
ROLES = ("engine", "web")


@dataclass(frozen=True)
class Window:
    """A measured time span.

    Attributes:
        cpu: share of one core by role: the engine with its readers, and the web process.
        ages: p50 and p99 of the age of published frames, in milliseconds.
        frames: frames published.
    """

    cpu: dict[str, float]
    ages: dict[str, float]
    frames: int


class Meter:
    """Measures windows of a running site.

    Args:
        site: the site.
    """

    def __init__(self, site: Site) -> None:
        publish = next(line.split()[-1] for line in site.log if "publishing at" in line)
        self._web_pid = int(site.get("system")[1]["web_pid"])
        self._engine = psutil.Process(site.process.pid)
        self._subscriber = Subscriber(publish, ("v1/frame/",))

    def window(self, seconds: float) -> Window:
        """Measure for this many seconds."""
        self._frames(0.0, Histogram())
        before, began = self._cpu_s(), time.monotonic()
        ages = Histogram()
        self._frames(seconds, ages)
        after, took = self._cpu_s(), time.monotonic() - began
        return Window(
            {role: (after[role] - before[role]) / took for role in ROLES}, ages.summary(0.5, 0.99), ages.count
        )

    def web_memory_mb(self) -> float:
        """Return the resident memory of the web process."""
        return float(psutil.Process(self._web_pid).memory_info().rss) / 1e6

    def close(self) -> None:
        """Stop reading."""
        self._subscriber.close()

    def _frames(self, seconds: float, ages: Histogram) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                message = self._subscriber.receive(max(until - time.monotonic(), 0.0))
            except NoMessageError:
                return
            if isinstance(message, FrameMessage):
                ages.add(message.latency_ms)
            if time.monotonic() > until and seconds:
                return

    def _cpu_s(self) -> dict[str, float]:
        found = dict.fromkeys(ROLES, 0.0)
        for process in (self._engine, *self._engine.children(recursive=True)):
            used = process.cpu_times()
            found["web" if process.pid == self._web_pid else "engine"] += used.user + used.system
        return found


def measure(cameras: int, viewers: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the results of all rounds."""
    with RtspCamera() as url:
        names = [f"cam{number}" for number in range(cameras)]
        model = ("--model", "tests.pipelines.web.page.truth:BlindDetector", "--tracker", "none")
        with Site(*model, sources=dict.fromkeys(names, url)) as site:
            wait_for(lambda: all(each["state"] == "live" for each in site.get("sources")[1]), "all cameras")
            meter = Meter(site)
            meter.window(seconds)  # the readers settle
            idle_mb = meter.web_memory_mb()
            found: dict[str, list[Window]] = {"without": [], "with": [], "after": []}
            came: list[dict[str, Any]] = []
            for number in range(rounds):
                came.append(_round(site, meter, viewers, names, seconds, found))
                left = site.get("system")[1]["watched"]
                found["after"].append(meter.window(seconds))
                sys.stderr.write(f"round {number + 1}: {shown(found)}\n")
            busy_mb = meter.web_memory_mb()
            meter.close()
    chosen = {"cameras": cameras, "viewers": viewers, "rounds": rounds}
    memory = {"web_idle_mb": round(idle_mb, 1), "web_after_mb": round(busy_mb, 1)}
    return {**chosen, **_costs(found), "still_watched": left, **memory, "received": came}


def _round(
    site: Site, meter: Meter, viewers: int, names: list[str], seconds: float, found: dict[str, list[Window]]
) -> dict[str, Any]:
    """Measure without and with viewers, wait until they have left, and return what they received."""
    found["without"].append(meter.window(seconds))
    watching = Viewers(site.port, viewers, names)
    wait_for(lambda: len(site.get("system")[1]["watched"]) == 2 * len(names), "the viewers")
    meter.window(LEAVE_S)
    found["with"].append(meter.window(seconds))
    received = watching.end()
    time.sleep(LEAVE_S)
    return received


def _costs(found: dict[str, list[Window]]) -> dict[str, Any]:
    ratios = [b.ages["p99"] / a.ages["p99"] for a, b in zip(found["without"], found["with"], strict=True)]
    return {
        "more_core": {role: round(more(found, role), 4) for role in (*ROLES, "both")},
        "base_core": {role: round(median([w.cpu[role] for w in found["without"]]), 4) for role in ROLES},
        "left_core": round(median_of_rounds(found, "after", "both"), 4),
        "age_ms": {kind: ages(windows) for kind, windows in found.items()},
        "age_p99_ratio": round(median(ratios), 3),
    }


def shown(found: dict[str, list[Window]]) -> str:
    """Return the last window of each kind as a line."""
    return ", ".join(
        f"{kind} {sum(windows[-1].cpu.values()):.1%} of a core, p99 {windows[-1].ages['p99']:.0f} ms, "
        f"{windows[-1].frames} frames"
        for kind, windows in found.items()
    )


def more(found: dict[str, list[Window]], role: str) -> float:
    """Return how much more of a core a role uses with viewers, as the median of the rounds."""
    return median_of_rounds(found, "with", role)


def median_of_rounds(found: dict[str, list[Window]], kind: str, role: str) -> float:
    """Return the median over the rounds of the difference to the window without viewers."""
    return median([used(b, role) - used(a, role) for a, b in zip(found["without"], found[kind], strict=True)])


def used(window: Window, role: str) -> float:
    """Return the share of a core that a role uses, or `both` together."""
    return sum(window.cpu.values()) if role == "both" else window.cpu[role]


def ages(windows: Sequence[Window]) -> dict[str, float]:
    """Return the medians of the windows' percentiles."""
    return {key: round(median([window.ages[key] for window in windows]), 1) for key in ("p50", "p99")}


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


class RtspCamera:
    """A camera of 640x360 at 10 fps; all clients share its encoder."""

    def __enter__(self) -> str:
        """Start the camera's server, and return its address."""
        if missing_server():
            sys.exit(missing_server())
        self._server = RtspServer(size="640x360", fps=10, gop=20, kbps=600)
        return self._server.url

    def __exit__(self, *_: object) -> None:
        self._server.kill()


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--viewers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each window")
    return parser.parse_args()


def main() -> int:
    """Measure, and print the results as JSON."""
    given = _options()
    print(json.dumps(measure(given.cameras, given.viewers, given.rounds, given.seconds), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
