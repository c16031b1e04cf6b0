"""From keys of the configuration to a detector."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.data import Frame, SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.flow.attention.planner import RegionWindows
from engine.protocols import Detector
from pipelines.build import detector as module
from pipelines.build.detector import build_detector, waits_for_size
from pipelines.build.models import build_pool
from pipelines.build.sources import build_rules, build_sources
from pipelines.config.file import load_config
from pipelines.config.models import Config, PipelineConfig, TileConfig
from pipelines.config.source import SourceConfig
from pipelines.measuring.stages import benchmark_stages
from pipelines.scoring.clip import evaluate_clip
from pipelines.verbs.models.detect import detect
from tests.detection.test_classify import colour_model
from tests.detection.test_shapes import save_cells
from tests.media import encode_clip, numbered_images
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


NAMES = ["blue", "green", "red"]
PLAIN = [Frame(np.full((40, 60, 3), bgr, np.uint8), "a", 0, 0, 0) for bgr in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]


def classifier(tmp_path: Path, **options: Any) -> Detector:
    model = colour_model(tmp_path / "colours.onnx")
    return build_detector(configured(model, task="classify", names=NAMES, **options), [])


def test_a_classifier_is_fed_as_its_keys_say(tmp_path: Path) -> None:
    detector = classifier(tmp_path, color="bgr", mean=[0, 0, 0], std=[1275, 1275, 1275])
    found = [one for frame in PLAIN for one in detector.submit([frame]).result()]
    detector.close()
    assert [one.class_id.tolist() for one in found] == [[2], [1], [0]]  # trained on RGB, fed with BGR
    logit = 255 / 1275 * 10
    np.testing.assert_allclose([one.score[0] for one in found], np.exp(logit) / (np.exp(logit) + 2), atol=1e-4)


def test_a_classifier_reports_the_wanted_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, frame in zip(NAMES, PLAIN, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), frame.image)
    model = colour_model(tmp_path / "colours.onnx")
    setting = ["task=classify", f"names={NAMES}", "classes=[green, 2]"]
    detect([str(tmp_path)], model=str(model), backend="onnxruntime", setting=setting, as_json=True)
    blue, green, red = json.loads(capsys.readouterr().out)
    assert blue["objects"] == []
    assert [one["objects"][0]["classes"][0]["class_name"] for one in (green, red)] == ["green", "red"]
    assert green["objects"][0]["classes"][0] == {"class_id": 1, "class_name": "green", "score": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"size": 64}, "exported for 32 x 32 only", id="size"),
        pytest.param({"letterbox": "stretch"}, "detector.letterbox: a classifier takes whole frames", id="letterbox"),
        pytest.param({"tile": {}}, "detector.tile: a classifier takes whole frames", id="tile"),
        pytest.param({"classes": ["gren"]}, "did you mean green", id="class"),
    ],
)
def test_keys_that_a_classifier_cannot_follow_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        classifier(tmp_path, **options)


def test_a_clip_is_scored_with_its_gates(model: Path, tmp_path: Path) -> None:
    """`eval track --source` builds what `run` builds: a region that keeps nothing leaves nothing to score."""
    truth = tmp_path / "gt.txt"
    truth.write_text("".join(f"{n},1,22,22,20,20,1,1,1\n" for n in range(1, 11)))
    sources = [SourceConfig(uri="synthetic://?width=64&height=64&fps=25&count=10")]
    config = configured(model).model_copy(update={"sources": sources})
    assert evaluate_clip(config, str(truth))["recall"] > 0.8
    nowhere = [source.model_copy(update={"regions": [[(0, 0), (8, 0), (0, 8)]]}) for source in sources]
    assert evaluate_clip(config.model_copy(update={"sources": nowhere}), str(truth))["recall"] == 0.0


CAMERA = SourceInfo("cam", "rtsp://127.0.0.1/", True, 640, 360, 10.0)


@pytest.mark.parametrize(
    ("infos", "cameras", "wanted"),
    [
        pytest.param([CAMERA], 1, "latency", id="the only camera"),
        pytest.param([CAMERA], 2, "throughput", id="one of two cameras tries another model"),
        pytest.param([CAMERA, CAMERA], 2, "throughput", id="two cameras of one model"),
        pytest.param([replace(CAMERA, is_live=False)], 1, "throughput", id="a file"),
    ],
)
def test_a_model_gets_the_same_share_of_the_processor_as_the_others(
    model: Path, monkeypatch: pytest.MonkeyPatch, infos: list[SourceInfo], cameras: int, wanted: str
) -> None:
    asked: list[object] = []

    def load(*arguments: Any, performance: str, **options: Any) -> Detector:
        asked.append(performance)
        return load_detector(*arguments, performance=performance, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "load_detector", load)
    sources = [SourceConfig(uri=f"rtsp://127.0.0.1/{number}") for number in range(cameras)]
    build_detector(configured(model).model_copy(update={"sources": sources}), infos)
    assert asked == [wanted]


@pytest.mark.parametrize(
    ("are_live", "waiting"),
    [
        pytest.param({"a": True}, set(), id="cameras"),
        pytest.param({"a": False}, {"a", "added"}, id="files"),
        pytest.param({"a": True, "b": False}, {"b"}, id="cameras and files"),
        pytest.param({}, {"added"}, id="none yet"),
    ],
)
def test_files_wait_for_their_rectangle_and_cameras_do_not(are_live: dict[str, bool], waiting: set[str]) -> None:
    waits = waits_for_size([SourceInfo(source_id, "x", is_live) for source_id, is_live in are_live.items()])
    assert {source_id for source_id in (*are_live, "added") if waits(source_id)} == waiting


def test_the_rectangles_of_files_are_those_loaded_at_first(tmp_path: Path) -> None:
    """Without the sizes it would be the square, for 16:9 of 64 pixels is 36 rows."""
    wide = encode_clip(tmp_path / "wide.mp4", numbered_images(2, 256, 64))
    tall = encode_clip(tmp_path / "tall.mp4", numbered_images(2, 64, 256))
    sources = [SourceConfig(uri=str(wide)), SourceConfig(uri=str(tall), realtime=True, loop=True)]
    config = configured(save_cells(tmp_path / "cells.onnx")).model_copy(update={"sources": sources})
    detector = build_pool(config, build_sources(config)).models["detector"]
    assert isinstance(detector, ModelDetector)
    with detector:
        assert list(detector._sizes.whole._loaded) == [(32, 64), (64, 32)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("source", "detector", "message"),
    [
        ("motion_gate: true", "{}", "gate has windows and motion_gate: leave out motion_gate"),
        ("score_threshold: 0.3", "{tile: true}", "gate has windows, and model detector has tile"),
    ],
)
def test_windows_exclude_what_looks_at_parts_or_skips_frames_by_itself(
    tmp_path: Path, source: str, detector: str, message: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"sources: [{{uri: 'synthetic://', source_id: gate, windows: true, {source}}}]\ndetector: {detector}\n"
    )
    with pytest.raises(ConfigError, match=message):
        build_rules(load_config(str(path), {}))


def test_windows_of_the_configuration_are_those_of_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("sources: [{uri: 'synthetic://', source_id: gate, windows: true}]\n")
    assert build_rules(load_config(str(path), {}))["gate"].windows == RegionWindows(ignore=[])
