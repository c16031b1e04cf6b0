"""Measures the engine's own cost per frame, without decoding, letterboxing and inference.

Cameras repeat one small image, and a detector without cost returns moving boxes, so the measurement covers capture,
batching, hand-over, tracking, encoding and publishing. Compare results only with others from the same machine in the
same state.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np

from engine.data import Detections, Frame, SourceInfo
from engine.errors import ConfigError
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.protocols import DetectorBase
from engine.sources.base import SourceBase
from pipelines.build.sinks import build_sinks
from pipelines.build.tracker import build_tracker
from pipelines.config.models import Config

FPS = 25
PATH_FRAMES = 250
"""Number of frames after which the boxes turn around."""
SIDE = 64
AREA_WH = 1920, 1080
WARM_UP = 50
LOOK_S = 0.002


class StillCamera(SourceBase):
    """One image, repeated on every read, with stream times."""

    def __init__(self, source_id: str, count: int) -> None:
        super().__init__(SourceInfo(source_id, "still", is_live=False, width=SIDE, height=SIDE, fps=FPS))
        self._count = count

    def _frames(self) -> Iterator[Frame]:
        image = np.full((SIDE, SIDE, 3), 114, np.uint8)
        image.flags.writeable = False
        for index in range(self._count):
            pts_ns = index * 1_000_000_000 // FPS
            yield Frame(image, self.info.source_id, index, time.monotonic_ns(), time.time_ns(), pts_ns, "file")


class Walk:
    """Detections that are already available."""

    def __init__(self, found: list[Detections]) -> None:
        self._found = found
        self.stage_ms: dict[str, float] = {}

    def result(self) -> list[Detections]:
        """Return them."""
        return self._found


class WalkingBoxes(DetectorBase):
    """Returns boxes that move on straight lines, computed in advance.

    Args:
        objects: objects on each frame.
        max_batch: frames per submission.
    """

    name = "walking boxes"
    class_names = ("thing",)
    depth = 2

    def __init__(self, objects: int, max_batch: int) -> None:
        self.max_batch = max_batch
        random = np.random.default_rng(0)
        size = random.uniform(20, 120, (objects, 2))
        start = random.uniform(0, AREA_WH, (objects, 2))
        speed = random.normal(0, 4, (objects, 2))
        score, class_id = np.full(objects, 0.9, np.float32), np.zeros(objects, np.int32)
        self._found = []
        for step in range(PATH_FRAMES):
            corner = start + speed * min(step, PATH_FRAMES - step) + random.normal(0, 0.5, (objects, 2))
            xyxy = np.concatenate((corner, corner + size), axis=1).astype(np.float32)
            self._found.append(Detections(xyxy, score, class_id))

    def submit(self, frames: Sequence[Frame]) -> Walk:
        """Return the boxes of each frame by its number."""
        return Walk([self._found[frame.frame_id % PATH_FRAMES] for frame in frames])


def benchmark_engine(
    config: Config, *, cameras: int, objects: int, frames: int = 300, rounds: int = 3
) -> dict[str, Any]:
    """Return frames per second and CPU time per frame of one process, with a detector without cost.

    Args:
        config: its tracker and outputs are used.
        cameras: number of sources; each inference takes one frame of each.
        objects: objects on each frame.
        frames: frames of each camera.
        rounds: number of rounds; the median counts.

    Raises:
        ConfigError: fewer frames than the warm-up takes.
        StageError: the run failed.
    """
    if frames <= WARM_UP:
        raise ConfigError(f"{frames} frames: expected more than the {WARM_UP} of the warm-up")
    runs = [_run(config, cameras, objects, frames) for _ in range(rounds)]
    return {
        "cameras": cameras,
        "objects": objects,
        "frames": cameras * frames,
        "engine_fps": round(median(fps for fps, _ in runs), 1),
        "engine_fps_runs": [round(fps, 1) for fps, _ in runs],
        "engine_cpu_us_per_frame": round(median(cpu_us for _, cpu_us in runs), 1),
        "engine_cpu_us_per_frame_runs": [round(cpu_us, 1) for _, cpu_us in runs],
    }


def _run(config: Config, cameras: int, objects: int, frames: int) -> tuple[float, float]:
    """Return frames per second and CPU microseconds per frame, once the first frames are through."""
    sources = [StillCamera(f"camera{index}", frames) for index in range(cameras)]
    pipeline = Pipeline(
        sources,
        WalkingBoxes(objects, cameras),
        build_tracker(config, sources),
        *build_sinks(config, cameras, None),
        options=PipelineOptions(max_age_ms=None),
    )
    pipeline.start()
    while _published(pipeline) < cameras * WARM_UP and not pipeline.wait(LOOK_S):
        pass
    started, cpu_started, before = time.perf_counter(), _cpu_s(), _published(pipeline)
    pipeline.wait()
    count = max(_published(pipeline) - before, 1)
    return count / (time.perf_counter() - started), 1e6 * (_cpu_s() - cpu_started) / count


def _published(pipeline: Pipeline) -> int:
    return pipeline.stats.snapshot().published


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
