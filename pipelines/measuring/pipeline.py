"""Measures the pipeline's speed as a ratio to the bare backend, on the same model in the same run.

The bare backend runs before and after the pipeline, on a constant input and with as many requests in flight as the
pipeline uses. Because machines are noisy, the ratio uses the mean of both, and the median of several rounds counts.
"""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from engine.backends.base import Backend
from engine.data import SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.tiles import untiled
from engine.errors import ConfigError, SourceError
from engine.flow.pipeline import Pipeline
from pipelines.build.detector import build_detector
from pipelines.build.pipeline import build_pipeline
from pipelines.build.sources import build_sources
from pipelines.config.models import Config
from pipelines.metrics.answering import bound_server
from pipelines.metrics.engine_health import EngineHealth
from pipelines.metrics.serve import serve_run
from pipelines.running.detect_and_publish import summary

WARM_UP = 8
LOOK_S = 0.01
BEAT_S = 1.0
RAW_SECONDS = 4.0


def benchmark(
    config: Config,
    *,
    rounds: int = 1,
    raw_s: float = RAW_SECONDS,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run the pipeline of `config` to the end of its sources, with the bare backend before and after.

    Args:
        config: what to run; its sources must end. `metrics.address` and `tracing` work as in a run.
        rounds: number of rounds, of which the median counts; for shared machines.
        raw_s: seconds of each measurement of the bare backend.
        progress: called with a text about each step.

    Returns:
        Medians: `raw_fps`, `pipeline_fps`, `ratio`, each also as a list by round (`raw_fps_runs` has one more), and,
            over
        all cores, `cpu_ms_per_frame` and `cpu_ms_outside_inference`. From the last round: `stage_ms`, `latency_ms`,
        `max_rss_mb`, `backend`, `model` and `frames`.

    Raises:
        StageError: the run failed.
    """
    pipeline = build_pipeline(config)
    infos = _looked_at(config)
    if len(pipeline.models) > 1:
        raise ConfigError("a benchmark compares one model with its bare backend: measure each model separately")
    if not isinstance(untiled(pipeline.detector), ModelDetector):
        raise ConfigError(f"{pipeline.detector.name} has no bare backend to compare with: give a model file")
    progress("bare backend")
    raw = [raw_fps(_backend(config, infos), raw_s)]
    runs: list[tuple[float, float]] = []
    for number in range(rounds):
        progress("pipeline")
        pipeline = pipeline if number == 0 else build_pipeline(config)
        cpu_ms = _run(pipeline, config)
        facts = summary(pipeline)
        frames = _published(pipeline)
        runs.append((facts["fps"], cpu_ms))
        progress(f"bare backend again, {number + 1} of {rounds}")
        raw.append(raw_fps(_backend(config, infos), raw_s))
    beside = [((before[0] + after[0]) / 2, (before[1] + after[1]) / 2) for before, after in pairwise(raw)]
    ratios = [run[0] / bare[0] for run, bare in zip(runs, beside, strict=True)]
    outside = [run[1] - bare[1] for run, bare in zip(runs, beside, strict=True)]
    return {
        "model": facts["model"],
        "backend": facts["backend"],
        "frames": frames,
        "raw_fps": round(median(bare[0] for bare in beside), 2),
        "raw_fps_runs": [round(fps, 2) for fps, _ in raw],
        "pipeline_fps": round(median(run[0] for run in runs), 2),
        "pipeline_fps_runs": [round(fps, 2) for fps, _ in runs],
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "cpu_ms_per_frame": round(median(run[1] for run in runs), 2),
        "cpu_ms_outside_inference": round(median(outside), 2),
        "stage_ms": facts["stage_ms"],
        "latency_ms": facts["latency_ms"],
        "max_rss_mb": facts["max_rss_mb"],
    }


def _run(pipeline: Pipeline, config: Config) -> float:
    """Run the pipeline to its end and return the CPU milliseconds per frame, without those for loading the model.

    The metrics are served at `metrics.address`, so that the cost of scrapes can be measured.
    """
    health = EngineHealth(pipeline)
    with serve_run(bound_server(config.metrics.address), pipeline, health):
        pipeline.start()
        while not _published(pipeline) and not pipeline.wait(LOOK_S):
            health.beat()
        cpu_before, before = used_cpu_s(), _published(pipeline)
        while not pipeline.wait(BEAT_S):
            health.beat()
    return 1e3 * (used_cpu_s() - cpu_before) / max(_published(pipeline) - before, 1)


def _looked_at(config: Config) -> list[SourceInfo]:
    """Return the sources with their frame sizes, from which a detector may choose the size of its model."""
    infos = []
    for source in build_sources(config):
        with suppress(SourceError):  # the run itself reports the error
            next(iter(source), None)
        infos.append(source.info)
    return infos


def _published(pipeline: Pipeline) -> int:
    return pipeline.stats.snapshot().published


def _backend(config: Config, infos: list[SourceInfo]) -> Backend:
    detector = build_detector(config, infos)
    assert isinstance(detector, ModelDetector)
    return detector.inference


def raw_fps(backend: Backend, seconds: float) -> tuple[float, float]:
    """Return images per second of a closed backend on constant input, and CPU milliseconds per image."""
    backend.open()
    try:
        feeds = {spec.name: _constant(backend, spec.shape, spec.dtype) for spec in backend.inputs}
        images = next(iter(feeds.values())).shape[0]
        _pump(backend, feeds, count=WARM_UP)
        cpu_before, started = used_cpu_s(), time.perf_counter()
        done = _pump(backend, feeds, until=started + seconds)
        elapsed = time.perf_counter() - started
        return done * images / elapsed, 1e3 * (used_cpu_s() - cpu_before) / (done * images)
    finally:
        backend.close()


def _constant(backend: Backend, shape: tuple[int | None, ...], dtype: str) -> Any:
    array = backend.empty([size or 1 for size in shape], np.dtype(dtype))
    array[...] = 114
    return array


def _pump(backend: Backend, feeds: dict[str, Any], *, count: int = 0, until: float = 0.0) -> int:
    """Keep `backend.depth` requests in flight for `count` inferences or until a time; return how many were done."""
    in_flight = deque(backend.submit(feeds) for _ in range(backend.depth))
    done = 0
    while done < count or time.perf_counter() < until:
        pending = in_flight.popleft()
        pending.result()
        pending.release()
        in_flight.append(backend.submit(feeds))
        done += 1
    for pending in in_flight:
        pending.result()
        pending.release()
    return done


def used_cpu_s() -> float:
    """Return the CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
