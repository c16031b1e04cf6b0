"""Scores the whole pipeline, with its drops, gates, second stage and model, on a clip with ground truth."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from engine.data import Tracks
from pipelines.build.pipeline import build_pipeline
from pipelines.config.models import Config, ControlConfig, OutputConfig, PublishConfig
from pipelines.scoring.mot import write_mot
from pipelines.scoring.track import evaluate_mot


def evaluate_clip(config: Config, gt_path: str) -> dict[str, Any]:
    """Run the pipeline of `config` on its one source and return the scores of its tracks.

    The pipeline is the one that `framewire run` builds, without its outputs. A dropped frame counts as one without any
    objects found. Frame 0 of the clip is frame 1 of the truth.

    Raises:
        StageError: the run failed.
        ConfigError: the ground truth cannot be read.
    """
    frames: list[int] = []
    tracks: list[Tracks] = []
    with build_pipeline(_without_outputs(config)) as pipeline:
        for packet in pipeline:
            frames.append(packet.frame.frame_id + 1)
            tracks.append(packet.tracks)
    with tempfile.TemporaryDirectory() as folder:
        pred = Path(folder) / "pred.txt"
        write_mot(pred, frames, tracks)
        scores = evaluate_mot(gt_path, pred).as_dict()
    model = pipeline.run_facts.model
    return {"model": model, "tracker": config.tracker.type, "sources": pipeline.stats.by_source(), **scores}


def _without_outputs(config: Config) -> Config:
    """Return a configuration with the same frames, gates, models and trackers that publishes and writes nothing."""
    sources = [source.model_copy(update={"record": None}) for source in config.sources]
    quiet = {"publish": PublishConfig(address="none"), "output": OutputConfig(), "control": ControlConfig()}
    return config.model_copy(update={"sources": sources, **quiet})
