"""How fast the pipeline is, as a ratio to the bare backend on the same model in the same run.

The bare backend runs before and after the pipeline, on a constant input and as many requests in flight as the
pipeline uses; machines are noisy, so the ratio is taken to the mean of both.
"""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.backends.base import Backend
from engine.data import SourceInfo
from engine.detection.detector import ModelDetector
from engine.errors import ConfigError
from pipelines.build import build_detector, build_pipeline
from pipelines.config import Config
from pipelines.detect_and_publish import innermost, summary

WARM_UP = 8
RAW_SECONDS = 4.0


def benchmark(
    config: Config, *, raw_s: float = RAW_SECONDS, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Run the pipeline of `config` to the end of its sources, with the bare backend before and after.

    Args:
        config: what to run; its sources must end.
        raw_s: seconds of each measurement of the bare backend.
        progress: told what is being done.

    Returns:
        `raw_fps` (mean), `raw_fps_runs`, `pipeline_fps`, `ratio`, `cpu_ms_per_frame` of all cores,
        `cpu_ms_outside_inference`, `stage_ms`, `latency_ms`, `max_rss_mb`, `backend`, `model`, `frames`.

    Raises:
        StageError: the run failed.
    """
    pipeline = build_pipeline(config)
    infos = [source.info for source in pipeline.sources]
    if not isinstance(innermost(pipeline.detector), ModelDetector):
        raise ConfigError(f"{pipeline.detector.name} has no bare backend to compare with: give a model file")
    progress("bare backend")
    before, raw_cpu_ms = raw_fps(_backend(config, infos), raw_s)
    progress("pipeline")
    cpu_before = _cpu_s()
    pipeline.run()
    cpu_s = _cpu_s() - cpu_before
    facts = summary(pipeline)
    progress("bare backend again")
    after, raw_cpu_ms_after = raw_fps(_backend(config, infos), raw_s)
    raw = (before + after) / 2
    frames = sum(source["published"] for source in facts["sources"].values())
    return {
        "model": facts["model"],
        "backend": facts["backend"],
        "frames": frames,
        "raw_fps": round(raw, 2),
        "raw_fps_runs": [round(before, 2), round(after, 2)],
        "pipeline_fps": facts["fps"],
        "ratio": round(facts["fps"] / raw, 3),
        "cpu_ms_per_frame": round(1e3 * cpu_s / max(frames, 1), 2),
        "cpu_ms_outside_inference": round(1e3 * cpu_s / max(frames, 1) - (raw_cpu_ms + raw_cpu_ms_after) / 2, 2),
        "stage_ms": facts["stage_ms"],
        "latency_ms": facts["latency_ms"],
        "max_rss_mb": facts["max_rss_mb"],
    }


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
        cpu_before, started = _cpu_s(), time.perf_counter()
        done = _pump(backend, feeds, until=started + seconds)
        elapsed = time.perf_counter() - started
        return done * images / elapsed, 1e3 * (_cpu_s() - cpu_before) / (done * images)
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


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
