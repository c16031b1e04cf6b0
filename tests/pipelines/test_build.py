"""From keys of the configuration to a detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.detection.detector import ModelDetector
from engine.errors import ConfigError
from pipelines.benchmark_stages import benchmark_stages
from pipelines.build import build_detector
from pipelines.config import Config, PipelineConfig, SourceConfig, TileConfig
from pipelines.evaluate_clip import evaluate_clip
from pipelines.verbs.score import detect
from tests.onnx_models import save_constant_model


def configured(model: Path, **detector: Any) -> Config:
    return Config.model_validate({"detector": {"model": str(model), "backend": "onnxruntime", **detector}})


def test_names_help_a_model_whose_own_are_refused(tmp_path: Path) -> None:
    metadata = {"names": "{0: 'a', 1: 'b'}"}  # two names for three classes
    model = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)], metadata=metadata)
    detector = build_detector(configured(model, names=["a", "b", "c"]), [])
    assert isinstance(detector, ModelDetector)
    assert detector.class_names == ("a", "b", "c")
    assert detector.max_batch == 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Finds one object in the middle of whatever it is shown."""
    output = np.zeros((5, 84), np.float32)
    output[:, 3] = [32, 32, 20, 20, 0.9]
    return save_constant_model(tmp_path / "m.onnx", [output], metadata={"names": "['blob']"})


TILES = "tile={side_wh: [64, 64], overlap: 0, whole: false}"


def test_images_are_cut_into_tiles_where_that_is_set(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((64, 192, 3), np.uint8))
    for setting, count in ((None, 1), ([TILES], 3)):
        detect([str(tmp_path / "wide.png")], model=str(model), backend="onnxruntime", setting=setting, as_json=True)
        [result] = json.loads(capsys.readouterr().out)
        assert len(result["objects"]) == count


def test_a_clip_is_scored_on_tiles_where_that_is_set(model: Path, tmp_path: Path) -> None:
    truth = tmp_path / "gt.txt"
    truth.write_text("".join(f"{n},{i},{64 * i - 42},22,20,20,1,1,1\n" for n in range(1, 11) for i in (1, 2, 3)))
    source = SourceConfig(uri="synthetic://?width=192&height=64&fps=25&count=10")
    config = configured(model, tile={"side_wh": (64, 64), "overlap": 0, "whole": False})
    scores = evaluate_clip(config.model_copy(update={"sources": [source]}), str(truth))
    assert scores["recall"] > 0.8  # the tracker waits for a second frame


def test_stages_are_timed_on_so_many_frames_and_not_on_tiles(model: Path) -> None:
    config = configured(model).model_copy(
        update={"sources": [SourceConfig(uri="synthetic://?width=64&height=48&fps=25&count=40")]}
    )
    few = config.model_copy(update={"pipeline": PipelineConfig(max_frames=3)})
    assert benchmark_stages(few)["frames"] == 3
    assert benchmark_stages(config, frames=4)["frames"] == 4
    tiled = config.model_copy(update={"detector": config.detector.model_copy(update={"tile": TileConfig()})})
    with pytest.raises(ConfigError, match="stages are timed on whole frames"):
        benchmark_stages(tiled)
