"""Measures how long each step of detection takes on real frames, one after the other on one thread."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from engine.data import Frame
from engine.detection.detector import ModelDetector
from engine.errors import ConfigError
from pipelines.build.detector import build_detector
from pipelines.build.sources import build_sources
from pipelines.config.models import Config

STAGES = ("preprocess", "infer", "decode", "nms")
FRAMES = 200
WARM_UP = 5


def benchmark_stages(config: Config, wanted: tuple[str, ...] = STAGES, *, frames: int = FRAMES) -> dict[str, Any]:
    """Return p50 and p99 milliseconds of each wanted stage, and the share of time outside inference.

    Args:
        config: its first source and its model are used; inference runs in latency mode, one frame at a time.
        wanted: stages among `STAGES`.
        frames: number of frames from the start of the source; `pipeline.max_frames` if that is fewer.

    Raises:
        ConfigError: an unknown stage, a detector without a network or with tiles, or a source without frames.
    """
    unknown = [stage for stage in wanted if stage not in STAGES]
    if unknown:
        raise ConfigError(f"unknown stage {unknown[0]!r}: expected {', '.join(STAGES)}")
    if config.detector.tile is not None:
        raise ConfigError("detector.tile: stages are timed on whole frames, one inference each: leave it out")
    latency = config.detector.model_copy(update={"performance": "latency", "depth": 1, "max_batch": 1})
    detector = build_detector(config.model_copy(update={"detector": latency}), [])
    if not isinstance(detector, ModelDetector):
        raise ConfigError(f"{detector.name} has no stages: give a model file")
    found = list(islice(build_sources(config)[0], min(frames, config.pipeline.max_frames or frames) + WARM_UP))
    if len(found) <= WARM_UP:
        raise ConfigError(f"the source has only {len(found)} frames: give one with more than {WARM_UP}")
    with detector:
        spent = [_stages_of(detector, frame) for frame in found][WARM_UP:]
    columns = {stage: np.array([row[stage] for row in spent]) for stage in STAGES}
    outside = sum(float(np.median(columns[stage])) for stage in STAGES if stage != "infer")
    return {
        "model": detector.name,
        "backend": detector.backend,
        "frames": len(spent),
        "stage_ms": {
            stage: {name: round(float(np.percentile(columns[stage], q)), 3) for name, q in (("p50", 50), ("p99", 99))}
            for stage in wanted
        },
        "outside_to_infer": round(outside / float(np.median(columns["infer"])), 3),
    }


def _stages_of(detector: ModelDetector, frame: Frame) -> dict[str, float]:
    """Return the milliseconds of each stage on one frame."""
    pending = detector.submit([frame])
    pending.result()
    spent = pending.stage_ms
    return {**spent, "decode": spent["postprocess"] - spent["nms"]}
