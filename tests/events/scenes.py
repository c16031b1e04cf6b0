"""Packets of a simple scene: one person walks through a yard that a line crosses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics, AnyRule
from engine.analytics.places import Line, Zone
from engine.analytics.rules import Crossed, Presence
from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, Tracks

NS = 1_000_000_000
UTC = 1_790_000_000 * NS
FPS = 10
NAMES = ("person", "car")
IMAGE = np.zeros((100, 200, 3), np.uint8)


def run(epoch: int = UTC, engine_id: str = "engine") -> Run:
    """Return a run."""
    return Run(engine_id, epoch, "model", NAMES)


def packet(
    number: int,
    boxes: Sequence[tuple[float, float, float, float]] = (),
    *,
    source_id: str = "gate",
    ids: Sequence[int] = (),
    step_ns: int = 0,
    of: Run | None = None,
    **frame: Any,
) -> Packet:
    """Return a frame of a camera with these boxes; `step_ns` is by how much its wall clock was changed."""
    at = number * NS // FPS
    of = of or run()
    fields = {"captured_ns": at, "captured_utc_ns": UTC + at + step_ns, **frame}
    found = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(found)
    score, class_id = np.full(count, 0.9, np.float32), np.zeros(count, np.int32)
    tracks = Tracks(found, score, class_id, list(ids) or np.arange(1, count + 1), None, np.arange(count))
    image = Frame(IMAGE, source_id, number, **fields)
    return Packet(image, Detections(found, score, class_id), tracks, of, published_utc_ns=fields["captured_utc_ns"])


def walker(at_s: float, speed: float = 20.0) -> tuple[float, float, float, float]:
    """Return the box of a person 40 px high who walks to the right from x = 5."""
    x = 5.0 + at_s * speed
    return (x - 5, 40.0, x + 5, 80.0)


def watch(*rules: AnyRule) -> SceneAnalyser:
    """Return the analyser of a yard from x = 60 to x = 140 and a line at x = 100."""
    zone = Zone("yard", [(0.3, 0), (0.7, 0), (0.7, 1), (0.3, 1)])
    line = Line("door", [(0.5, 1), (0.5, 0)], left_to_right="in", right_to_left="out")
    chosen = rules or (Presence("intruder", zone="yard", for_s=1, severity="alert"), Crossed("entry", line="door"))
    return SceneAnalyser(Analytics([zone], [line], list(chosen)))


def walk(frames: int = 95, *, first: int = 0, of: Run | None = None, **given: Any) -> Iterator[Packet]:
    """Yield packets in which the person walks through the yard once."""
    scene = watch()
    for number in range(frames):
        made = packet(first + number, [walker(number / FPS)], of=of, **given)
        yield scene.analyse([made])[0]


def ended(source_id: str = "gate", **found: Any) -> SourceStatus:
    """Return the state of a camera that ended."""
    return SourceStatus(SourceInfo(source_id, "rtsp://gate", True), "ended", **found)


def state(name: Any, source_id: str = "gate") -> SourceStatus:
    """Return a state of a camera."""
    return SourceStatus(SourceInfo(source_id, "rtsp://gate", True), name)
