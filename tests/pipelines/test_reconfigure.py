"""Changing a run from the inside: what is refused touches nothing, what goes wrong halfway is told apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.pipeline import Pipeline
from engine.protocols import Detector
from pipelines.build import build_pipeline
from pipelines.config import Config
from pipelines.config_file import load_config
from pipelines.reconfigure import Reconfigurer
from tests.fakes import PixelDetector

CAMERA = "synthetic://?width=64&height=48&fps=50&objects=1&realtime=1"
PATIENCE_S = 30.0


@contextmanager
def running(
    *names: str, detector: Detector | None = None, make: Callable[[Config], Detector] | None = None, **values: Any
) -> Iterator[tuple[Pipeline, Reconfigurer]]:
    """Yield a pipeline that runs, of synthetic cameras with these names, and what changes it."""
    sources = [{"source_id": name, "uri": CAMERA} for name in names]
    fixed = {"sources": sources, "publish.address": "none", "control.address": "ipc://unused", **values}
    config = load_config(None, fixed)
    first = detector or PixelDetector()
    pipeline = build_pipeline(config, make_detector=lambda config, sources: first)
    with pipeline:
        pipeline.start()
        yield pipeline, Reconfigurer(pipeline, config, lambda config, sources: (make or (lambda _: first))(config))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def published(pipeline: Pipeline, *names: str) -> bool:
    return all(pipeline.stats.source(name).published > 1 for name in names)


def test_camera_with_an_impossible_region_is_refused_before_it_is_touched() -> None:
    with running("gate", "yard") as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate", "yard"))
        with pytest.raises(ConfigError, match="encloses nothing"):
            changes.set("sources.0.regions", [[[0, 0], [10, 10]]])
        assert sorted(pipeline.running_sources) == ["gate", "yard"]
        assert changes.set("sources.0.regions", [[[0, 0], [10, 0], [10, 10]]]) == ["removed gate", "added gate"]
        assert sorted(pipeline.running_sources) == ["gate", "yard"]
