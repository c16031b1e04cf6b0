from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.config.file import load_config
from pipelines.measuring.engine_cost import benchmark_engine


def test_the_engine_is_measured_without_a_model() -> None:
    done = CliRunner().invoke(
        app, ["bench", "--engine", "--cameras", "3", "--objects", "4", "--max-frames", "60", "--json"]
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert (figures["cameras"], figures["objects"], figures["frames"]) == (3, 4, 180)
    assert figures["engine_fps"] > 0
    assert figures["engine_cpu_us_per_frame"] > 0
    assert len(figures["engine_fps_runs"]) == 1


def test_a_run_shorter_than_the_warm_up_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than the 50"):
        benchmark_engine(load_config(None, {}, []), cameras=2, objects=1, frames=50)
