#!/usr/bin/env python3
"""Measure how old the video on the page is, in Debian's Chromium: acceptance E3.

usage: python tools/measure/live_lag.py [--seconds 120] [--freeze 5] [--fps 10]

A camera paints the time into each image. The output is the age of the image on the screen, how much of it is due to
video waiting in the player, and how long the page took to get below a second after a freeze.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.pipelines.web.page.browsing import chromium
from tests.pipelines.web.page.screen import Lag, lag_of
from tests.pipelines.web.page.site import Site
from tests.rtsp_server import RtspServer, missing_server

BETWEEN_MS = 90
GIVE_UP_S = 60.0


def watched(page: Any, seconds: float) -> list[Lag]:
    """Return what the screen shows during this time."""
    found: list[Lag] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        page.wait_for_timeout(BETWEEN_MS)
        lag = lag_of(page)
        if lag is not None:
            found.append(lag)
    return found


def recovered_s(page: Any, below_s: float) -> float:
    """Return the time until the image is younger than this."""
    began = time.monotonic()
    while time.monotonic() - began < GIVE_UP_S:
        lag = lag_of(page)
        if lag is not None and lag.age_s < below_s:
            return time.monotonic() - began
        page.wait_for_timeout(BETWEEN_MS)
    return float("inf")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the largest value; nothing if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
        "max": round(ordered[-1], 3),
    }


def measure(seconds: float, freeze_s: float, fps: int) -> dict[str, Any]:
    """Return the figures."""
    camera = RtspServer(codec="h264", pixel_clock=True, size="640x360", fps=fps, gop=2 * fps, kbps=2000)
    try:
        with Site(sources={"gate": camera.url}) as site, chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{site.url}#/live/gate")
            page.wait_for_selector(".tile[data-video]", timeout=60_000)
            page.wait_for_timeout(3000)
            found = watched(page, seconds)
            camera.pause()
            time.sleep(freeze_s)
            camera.resume()
            back_s = recovered_s(page, 1.0)
            page.wait_for_timeout(5000)
            after = watched(page, seconds / 4)
    finally:
        camera.kill()
    later = {"below_1_s_after_freeze_s": round(back_s, 2), "age_after_s": spread([lag.age_s for lag in after])}
    return {**_spreads(found), **later}


def _spreads(found: list[Lag]) -> dict[str, Any]:
    return {
        "samples": len(found),
        "age_s": spread([lag.age_s for lag in found]),
        "in_player_s": spread([lag.ahead_s for lag in found]),
        "before_player_s": spread([lag.age_s - lag.ahead_s for lag in found]),
        "rate": spread([lag.rate for lag in found]),
    }


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--freeze", type=float, default=5.0, help="seconds that the camera is frozen")
    parser.add_argument("--fps", type=int, default=10)
    return parser.parse_args()


def main() -> int:
    """Measure, and print the results as JSON."""
    given = _options()
    if missing_server():
        sys.exit(missing_server())
    print(json.dumps(measure(given.seconds, given.freeze, given.fps), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
