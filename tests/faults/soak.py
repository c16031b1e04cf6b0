"""Hours of an engine with faulty cameras, in minutes: does anything grow, slow down or go missing?"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from engine.data import Detections, Frame, Packet
from engine.pipeline import Pipeline, PipelineOptions
from engine.protocols import SinkBase
from engine.sources.open import open_source
from engine.tracking.bytetrack import ByteTrack
from tests.fakes import PixelDetector
from tests.faults.lab import is_accounted, summary
from tests.faults.proxy import FaultProxy
from tests.rtsp_server import RtspServer

WARM_UP = 0.15  # part of the run that fits leave out: caches and pools fill


@dataclass
class AgeSink(SinkBase):
    """Keeps moment and age in ms of every packet, in memory that is there from the beginning."""

    capacity: int
    name: str = "ages"
    blocking: bool = False
    count: int = 0
    rows: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = np.full((self.capacity, 2), -1.0)

    def write(self, packet: Packet) -> None:
        self.rows[self.count % self.capacity] = (time.monotonic(), packet.latency_ms)
        self.count += 1


class LeanDetector(PixelDetector):
    """The detector of the tests, without its memory of what it has seen."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        found = super().detect(frames)
        self.batches.clear()
        return found


@dataclass(frozen=True)
class Slope:
    """Growth of one figure per hour, by a least-squares line, and its mean."""

    name: str
    per_hour: float
    mean: float

    @property
    def percent_per_hour(self) -> float:
        """Growth in percent of the mean."""
        return 100 * self.per_hour / max(self.mean, 1e-9)


@dataclass(frozen=True)
class Report:
    """What a soak has shown."""

    slopes: tuple[Slope, ...]
    p99_start_ms: float
    p99_end_ms: float
    faults: int
    sources: dict[str, Any]
    is_accounted: bool
    stopped_in_time: bool
    left_behind: int


class Camera:
    """An RTSP server behind a proxy, with the mishaps it can have."""

    def __init__(self, number: int) -> None:
        self.server = RtspServer(size="320x240", fps=15, gop=15)
        self.proxy = FaultProxy(self.server.port, seed=number)

    @property
    def url(self) -> str:
        """Address behind the proxy."""
        return f"rtsp://127.0.0.1:{self.proxy.port}/stream"

    def mishaps(self) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
        """Return name, begin and end of each mishap."""
        proxy, server = self.proxy, self.server
        return [
            ("killed", server.kill, server.start),
            ("cut", proxy.cut, lambda: None),
            ("frozen", proxy.freeze, proxy.thaw),
            ("lost", proxy.lose, lambda: None),
            ("jitter", lambda: setattr(proxy, "jitter_s", 0.2), lambda: setattr(proxy, "jitter_s", 0.0)),
            ("corrupt", lambda: setattr(proxy, "corrupt", 1e-4), lambda: setattr(proxy, "corrupt", 0.0)),
            ("stopped", server.pause, server.resume),
        ]

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self.server.kill()


def soak(seconds: float, *, cameras: int = 4, fault_every_s: float = 60.0, seed: int = 0, say: Any = None) -> Report:
    """Run an engine on faulty cameras and return what grew."""
    held = [Camera(number) for number in range(cameras)]
    sink = AgeSink(capacity=int(seconds * cameras * 30))
    sources = [open_source(camera.url, source_id=f"cam{n}") for n, camera in enumerate(held)]
    options = PipelineOptions(max_age_ms=1000)
    pipeline = Pipeline(sources, LeanDetector(work_s=0.003, max_batch=4), ByteTrack(), sink, options=options)
    pipeline.start()
    try:
        samples, faults = _watch(held, seconds, fault_every_s, random.Random(seed), say)
    finally:
        stopped_in_time = pipeline.stop()
        for camera in held:
            camera.close()
    times, ages = sink.rows[: sink.count].T
    start, end = times[0] + WARM_UP * seconds, times[-1] - 0.25 * seconds
    sources_summary = summary(pipeline)
    children = [c for c in psutil.Process().children() if "reader_process" in " ".join(c.cmdline())]
    return Report(
        slopes=_fit(samples),
        p99_start_ms=float(np.percentile(ages[times < start], 99)),
        p99_end_ms=float(np.percentile(ages[times > end], 99)),
        faults=faults,
        sources=sources_summary,
        is_accounted=is_accounted(sources_summary),
        stopped_in_time=stopped_in_time,
        left_behind=len(children),
    )


def _watch(
    cameras: list[Camera], seconds: float, fault_every_s: float, rng: random.Random, say: Any
) -> tuple[list[tuple[float, ...]], int]:
    """Sample the engine once a second, and play a mishap from time to time, which lasts a fifth of the interval."""
    samples: list[tuple[float, ...]] = []
    started = time.monotonic()
    ends: list[tuple[float, Callable[[], None]]] = []
    faults, due = 0, fault_every_s / 2
    while (now := time.monotonic() - started) < seconds:
        while ends and ends[0][0] <= now:
            ends.pop(0)[1]()
        if now >= due and now < seconds - 0.7 * fault_every_s:
            name, begin, end = rng.choice(rng.choice(cameras).mishaps())
            begin()
            ends.append((now + min(fault_every_s / 5, 12.0), end))
            faults, due = faults + 1, due + fault_every_s
            if say is not None:
                say(f"{now:6.0f} s  {name}  engine {samples[-1][1]:.1f} MB")
        samples.append((now, *_sample()))
        time.sleep(1.0)
    for _, end in ends:
        end()
    return samples, faults


def _sample() -> tuple[float, ...]:
    gc.collect()
    me = psutil.Process()
    readers = []
    for child in me.children():
        try:
            if "reader_process" in " ".join(child.cmdline()):
                readers.append(child.memory_info().rss / 1e6)
        except psutil.Error:  # it has just ended
            continue
    return me.memory_info().rss / 1e6, float(np.mean(readers)) if readers else 0.0, me.num_threads(), me.num_fds()


def _fit(samples: list[tuple[float, ...]]) -> tuple[Slope, ...]:
    table = np.array(samples)
    table = table[table[:, 0] > WARM_UP * table[-1, 0]]
    names = ("engine RSS (MB)", "RSS per reader (MB)", "threads", "file descriptors")
    slopes = []
    for column, name in enumerate(names, 1):
        kept = table[table[:, column] > 0]
        slopes.append(
            Slope(name, float(np.polyfit(kept[:, 0], kept[:, column], 1)[0]) * 3600, float(kept[:, column].mean()))
        )
    return tuple(slopes)
