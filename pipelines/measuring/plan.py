"""Measures how many cameras this machine can handle, and what limits it.

First, a few looping files run as fast as the machine can, which gives an estimate. Then that many sources play at the
rate of cameras, and the number is lowered or raised until they keep up: the reported number was measured, not computed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from engine.assets import demo_clip
from engine.detection.detector import ModelDetector
from engine.detection.tiles import untiled
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.optional import require
from pipelines.build.pipeline import build_pipeline
from pipelines.config.models import Config
from pipelines.config.source import SourceConfig
from pipelines.measuring.pipeline import raw_fps, used_cpu_s

CLIP_S = 2.0
FASTEST_SOURCES = 4
HEADROOM = 0.9
"""Share of the maximum rate that cameras may use, because their frames do not arrive evenly."""
MAX_LOST = 0.02
MAX_AGE_MS = 1000.0
MAX_CAMERAS = 1000
MAX_CHECKS = 4
WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A run of a number of cameras.

    Attributes:
        cameras: how many.
        asked_fps: frames that they deliver per second, together.
        fps: frames published per second, together.
        lost: share of the frames that were dropped.
        age_p99_ms: 99th percentile of the age of published frames.
        cpu_ms: CPU milliseconds per published frame.
        seconds: duration of the measurement; each camera may deliver one frame more or less in it.
    """

    cameras: int
    asked_fps: float
    fps: float
    lost: float
    age_p99_ms: float
    cpu_ms: float
    seconds: float = 60.0

    @property
    def keeps_up(self) -> bool:
        """Whether the machine can handle that many cameras."""
        missing = (self.asked_fps - self.fps) * self.seconds
        is_complete = missing <= 2 * MAX_LOST * self.asked_fps * self.seconds + self.cameras
        return is_complete and self.lost <= MAX_LOST and self.age_p99_ms <= MAX_AGE_MS


def plan(
    config: Config,
    *,
    size_wh: tuple[int, int],
    fps: float,
    seconds: float = 60.0,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Return how many cameras of a given size and rate this machine can handle.

    Args:
        config: model, tracker and pipeline; its sources are not used.
        size_wh: of the cameras' H.264.
        fps: of each camera.
        seconds: time for all measurements, without loading the model.
        progress: called with a text about each step.

    Returns:
        `cameras`, `limit` (what to change to carry more), `cpu_ms_per_frame` by part, `trials`, and `estimates` for
        other settings.

    Raises:
        ConfigError: the model has no bare backend.
    """
    share = seconds / 10
    with TemporaryDirectory(prefix="framewire-plan-") as folder:
        clip = str(write_clip(Path(folder) / "camera.mp4", size_wh, fps))
        progress("decoding")
        decode_ms = decode_cost_ms(clip, share)
        progress("inference")
        infer_fps, infer_ms = _bare(config, share)
        progress("as fast as it can")
        fastest = run_cameras(config, clip, FASTEST_SOURCES, fps, 2 * share, is_paced=False)
        trials = _search(config, clip, fps, 1.5 * share, max(int(HEADROOM * fastest.fps / fps), 1), progress)
    best = max((trial.cameras for trial in trials if trial.keeps_up), default=0)
    rest_ms = max(fastest.cpu_ms - decode_ms - infer_ms, 0.0)
    parts = {"decoding": decode_ms, "inference": infer_ms, "rest": rest_ms}
    return {
        "cameras": best,
        "size": f"{size_wh[0]}x{size_wh[1]}",
        "fps": fps,
        "limit": _limit(parts, infer_fps, fastest.fps),
        "cores": usable_cores(),
        "cpu_ms_per_frame": {name: round(ms, 2) for name, ms in parts.items()},
        "fastest_fps": round(fastest.fps, 1),
        "bare_inference_fps": round(infer_fps, 1),
        "trials": [
            {
                "cameras": trial.cameras,
                "keeps_up": trial.keeps_up,
                "fps": round(trial.fps, 1),
                "lost": round(trial.lost, 3),
                "age_p99_ms": round(trial.age_p99_ms, 1),
            }
            for trial in trials
        ],
        "estimates": estimates(parts, fps, min(fastest.fps * fastest.cpu_ms / 1e3, usable_cores())),
    }


def _search(
    config: Config, clip: str, fps: float, seconds: float, first: int, progress: Callable[[str], None]
) -> list[Trial]:
    """Try numbers of cameras until one keeps up and a slightly higher one does not, or the checks are used up."""
    trials: list[Trial] = []
    works, fails, number = 0, MAX_CAMERAS + 1, min(first, MAX_CAMERAS)
    for _ in range(MAX_CHECKS):
        progress(f"{number} cameras")
        trial = run_cameras(config, clip, number, fps, seconds)
        trials.append(trial)
        if trial.keeps_up:
            works = number
        else:
            fails = number
        if fails - works <= max(1, works // 10):
            break
        by_rate = int(trial.fps * HEADROOM / fps)
        number = works + max(1, works // 5) if fails > MAX_CAMERAS else max(works + 1, min(by_rate, fails - 1))
        if number >= fails:
            number = (works + fails) // 2
        if number <= works or number > MAX_CAMERAS:
            break
    return trials


def run_cameras(config: Config, clip: str, count: int, fps: float, seconds: float, *, is_paced: bool = True) -> Trial:
    """Run a clip as a number of cameras for a time, after the model is loaded and warm."""
    sources = [SourceConfig(uri=clip, source_id=f"camera{n}", loop=True, realtime=is_paced) for n in range(count)]
    quiet = config.publish.model_copy(update={"address": "tcp://127.0.0.1:*"})
    pipeline = build_pipeline(config.model_copy(update={"sources": sources, "publish": quiet}))
    pipeline.start()
    try:
        _wait_for_frames(pipeline, count)
        _wait(pipeline, min(WARM_UP_S, seconds))
        before, cpu_s, started = pipeline.stats.snapshot(), used_cpu_s(), time.perf_counter()
        _wait(pipeline, seconds)
        after, elapsed = pipeline.stats.snapshot(), time.perf_counter() - started
        cpu_ms = 1e3 * (used_cpu_s() - cpu_s)
    finally:
        pipeline.stop(10.0)
    published = after.published - before.published
    captured = sum(s.captured for s in after.sources) - sum(s.captured for s in before.sources)
    dropped = sum(sum(s.dropped.values()) for s in after.sources) - sum(sum(s.dropped.values()) for s in before.sources)
    age = after.latency.since(before.latency)
    return Trial(
        count,
        count * fps if is_paced else published / elapsed,
        published / elapsed,
        dropped / max(captured, 1),
        age.percentile(0.99) if is_paced else 0.0,
        cpu_ms / max(published, 1),
        elapsed,
    )


def _wait_for_frames(pipeline: Pipeline, count: int) -> None:
    while not pipeline.wait(0.05):
        sources = pipeline.stats.snapshot().sources
        if len(sources) == count and all(source.published for source in sources):
            return


def _wait(pipeline: Pipeline, seconds: float) -> None:
    if pipeline.wait(seconds):
        raise ConfigError("the run ended before it could be measured: see the log")


def write_clip(path: Path, size_wh: tuple[int, int], fps: float) -> Path:
    """Write two seconds of the demo clip as a camera would send it: H.264, a keyframe each second."""
    av = require("av")
    with av.open(str(demo_clip())) as source:
        frames = [
            frame.to_ndarray(format="bgr24")
            for _, frame in zip(range(max(int(CLIP_S * fps), 2)), source.decode(video=0), strict=False)
        ]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=max(round(fps), 1), options={"preset": "veryfast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = *_even(size_wh), "yuv420p"
        stream.codec_context.gop_size = max(round(fps), 1)
        stream.codec_context.max_b_frames = 0
        for image in frames:
            scaled = np.ascontiguousarray(cv2.resize(image, _even(size_wh)))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(scaled, format="bgr24")))
        output.mux(stream.encode(None))
    return path


def _even(size_wh: tuple[int, int]) -> tuple[int, int]:
    return size_wh[0] // 2 * 2, size_wh[1] // 2 * 2


def decode_cost_ms(clip: str, seconds: float) -> float:
    """Return the CPU milliseconds that decoding a frame to BGR takes, on one thread."""
    av = require("av")
    started, cpu_s, frames = time.perf_counter(), used_cpu_s(), 0
    while time.perf_counter() - started < seconds:
        with av.open(clip) as source:
            source.streams.video[0].thread_count = 1
            for frame in source.decode(video=0):
                frame.to_ndarray(format="bgr24")
                frames += 1
    return 1e3 * (used_cpu_s() - cpu_s) / max(frames, 1)


def _bare(config: Config, seconds: float) -> tuple[float, float]:
    """Return the images per second of the bare backend, and its CPU milliseconds per image."""
    sources = [SourceConfig(uri=str(demo_clip()), source_id=f"camera{n}") for n in range(2)]
    pipeline = build_pipeline(config.model_copy(update={"sources": sources}))
    detector = untiled(pipeline.detector)
    if not isinstance(detector, ModelDetector):
        raise ConfigError(f"{pipeline.detector.name} has no bare backend to measure: give a model file")
    return raw_fps(detector.inference, seconds)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limit(parts: dict[str, float], infer_fps: float, fastest_fps: float) -> str:
    """Return what limits the number of cameras, and what to change."""
    if parts["inference"] < 0.2 * sum(parts.values()) and fastest_fps > 0.8 * infer_fps:
        return "the accelerator: a smaller model, precision f16 or detect_hz carries more"
    name = max(parts, key=lambda part: parts[part])
    remedies = {
        "decoding": "a smaller sub-stream, keyframes_only or a hardware decoder carries more",
        "inference": "a smaller or INT8 model, detect_hz or a motion gate carries more",
        "rest": "fewer frames per second (max_fps) carry more",
    }
    return f"the processor, most of all {name}: {remedies[name]}"


def estimates(parts: dict[str, float], fps: float, cores: float) -> list[dict[str, Any]]:
    """Return how many cameras other settings would allow, computed from the cost of a frame and the cores it used."""
    budget_ms = 1e3 * cores * HEADROOM
    found = []
    for hz in (5.0, 2.0):
        if hz < fps:
            cost_ms = fps * (parts["decoding"] + parts["rest"]) + hz * parts["inference"]
            found.append({"setting": f"detect_hz: {hz:g}", "cameras": int(budget_ms / max(cost_ms, 1e-6))})
    return found
