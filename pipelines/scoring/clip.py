"""Scoring the whole pipeline on a clip with ground truth: with its drops, its skips and its model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from engine.data import Tracks
from engine.flow.pipeline import Pipeline
from pipelines.build.detector import build_detector, tiled
from pipelines.build.sources import build_sources
from pipelines.build.tracker import build_tracker
from pipelines.config.models import Config
from pipelines.scoring.mot import write_mot
from pipelines.scoring.track import evaluate_mot


def evaluate_clip(config: Config, gt_path: str) -> dict[str, Any]:
    """Run the pipeline of `config` on its one source and return the scores of its tracks.

    A frame that was dropped counts as one on which nothing was found. Frame 0 of the clip is frame 1 of the truth.

    Raises:
        StageError: the run failed.
        ConfigError: the ground truth cannot be read.
    """
    from engine.flow.options import PipelineOptions

    sources = build_sources(config)
    detector = tiled(config, build_detector(config, [source.info for source in sources]))
    options = PipelineOptions(**config.pipeline.model_dump(exclude={"engine_id"}))
    frames: list[int] = []
    tracks: list[Tracks] = []
    with Pipeline(sources, detector, build_tracker(config, sources), options=options) as pipeline:
        for packet in pipeline:
            frames.append(packet.frame.frame_id + 1)
            tracks.append(packet.tracks)
    with tempfile.TemporaryDirectory() as folder:
        pred = Path(folder) / "pred.txt"
        write_mot(pred, frames, tracks)
        scores = evaluate_mot(gt_path, pred).as_dict()
    return {"model": detector.name, "tracker": config.tracker.type, "sources": pipeline.stats.by_source(), **scores}
