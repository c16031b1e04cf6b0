"""Runs to scrape, for the tests of metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.clock import SYSTEM_CLOCK
from engine.data import Detections, Frame, Packet, Run, Tracks
from engine.leases import Leases
from engine.stats import PipelineStats

CLASSES = ("person", "car", "bicycle", "dog")
BASE_NS = SYSTEM_CLOCK.monotonic_ns()
RUN = Run("engine", 1, "model.onnx", CLASSES)


def packet_of(source_id: str, count: int = 4, at_s: float = 0.0) -> Packet:
    """Return a packet with objects of each class in the middle of the frame."""
    boxes = [[100 + 120 * n, 200, 140 + 120 * n, 300] for n in range(count)]
    ids = np.arange(count)
    tracks = Tracks(boxes, [0.9] * count, ids % len(CLASSES), ids)
    frame = Frame(np.zeros((480, 640, 3), np.uint8), source_id, 0, BASE_NS + int(at_s * 1e9), SYSTEM_CLOCK.utc_ns())
    return Packet(frame, Detections.empty(), tracks, RUN, {"queue": 1.0, "infer": 20.0})


def counted(zones: int, lines: int) -> dict[str, Any]:
    """Return the saved state of a scene with all classes counted everywhere."""
    each = dict.fromkeys(CLASSES, 3)
    dwell = {"values": [0.5, 7.0, 40.0], "bins": {}, "count": 3, "sum": 47.5, "max": 40.0}
    counters = {
        "version": 1,
        "since_utc_ns": 1,
        "blind_ns": 0,
        "crossings": {f"line{n}": {"in": each, "out": each} for n in range(lines)},
        "dithers": {f"line{n}": 1 for n in range(lines)},
        "visits": {f"zone{n}": each for n in range(zones)},
        "dwell": {f"zone{n}": dwell for n in range(zones)},
        "rules": {},
    }
    empty = Analytics().state()
    return {**empty, "counters": counters}


def big_run(sources: int = 64, zones: int = 10, lines: int = 10) -> Any:
    """Return what the metrics read of a pipeline with many sources and places, each with objects of all classes."""
    stats = PipelineStats()
    corners = [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)]
    scenes = {}
    for n in range(sources):
        scene = Analytics(
            [Zone(f"zone{k}", corners, enter_s=0.0) for k in range(zones)],
            [Line(f"line{k}", [(0.5, 1.0), (0.5, 0.0)], left_to_right="in", right_to_left="out") for k in range(lines)],
        )
        scene.restore(counted(zones, lines))
        scenes[f"camera {n}"] = scene
    analyser = SceneAnalyser(scenes)
    for name in scenes:
        source = stats.source(name)
        source.set_state("live", "", 0)
        source.add_captured(5)
        for cause in ("overflow", "age", "corrupt"):
            source.add_dropped(cause)
        for step in range(4):  # until the objects count
            (packet,) = analyser.analyse([packet_of(name, at_s=0.2 * step)])
        stats.add_packet(packet, started_ns=0, now_ns=packet.frame.captured_ns + 30_000_000)
    stats.model("detector").add_inference(1)
    return SimpleNamespace(
        leases=Leases(),
        sources=[],
        model_of=lambda source_id: "detector",
        stats=stats,
        all_analysers=[analyser],
        sinks=(),
        models={},
        running_sources=list(scenes),
        run_facts=RUN,
    )


def samples(text: str) -> dict[str, float]:
    """Return the samples of a page by name and labels."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def check_metrics(text: str) -> None:
    """Check a page against Prometheus's own rules; skip the test if its tool is missing."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def written_names() -> set[str]:
    """Return the names of all metrics in the source code."""
    root = Path(__file__).parents[3] / "pipelines"
    files = (*root.glob("metrics/*.py"), *root.rglob("figures.py"), root / "web" / "access" / "counting.py")
    text = "".join(path.read_text() for path in files)
    return set(re.findall(r'"(framewire_\w+)"', text))
