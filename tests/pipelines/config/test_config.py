"""Configuration: every key documented, every mistake named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.video.options import SourceOptions
from pipelines.build.sources import NOT_OPTIONS
from pipelines.config.file import load_config, preset_names
from pipelines.config.models import Config
from pipelines.config.source import SourceConfig

CHECKOUT = Path(__file__).parents[3]


def write(folder: Path, text: str) -> str:
    file = folder / "cameras.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", sorted(file.stem for file in (CHECKOUT / "configs").glob("*.yaml")))
def test_every_configuration_in_the_folder_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "secret")
    assert load_config(name, {}).sources
    assert name in preset_names()


def test_reference_lists_every_key_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "secret")
    done = subprocess.run(
        [sys.executable, "tools/make/make_reference_config.py", "--check"],
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    assert done.returncode == 0, "configs/reference.yaml is behind: run python tools/make/make_reference_config.py"
    reference = load_config("reference", {})
    defaults = Config(sources=[SourceConfig(uri=reference.sources[0].uri, source_id="gate")])
    assert reference == defaults


def test_source_options_of_the_engine_and_of_the_configuration_are_the_same() -> None:
    engine = {option.name: option for option in fields(SourceOptions)}
    mine = {n: f for n, f in SourceConfig.model_fields.items() if n not in NOT_OPTIONS}
    assert set(mine) == set(engine)
    defaults = SourceOptions()
    for name, field in mine.items():
        assert field.get_default(call_default_factory=True, validated_data={}) == getattr(defaults, name), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "detector: {scor_threshold: 0.3}",
            "detector.scor_threshold: unknown key: did you mean score_threshold",
            id="typo",
        ),
        pytest.param(
            "sources: [{uri: a.mp4, loops: 1}]", "sources.0.loops: unknown key: did you mean loop", id="typo in a list"
        ),
        pytest.param("detectors: {}", "detectors: unknown key: did you mean detector", id="typo at the top"),
        pytest.param(
            "detector: {score_threshold: high}", "detector.score_threshold: .*number.*found 'high'", id="wrong type"
        ),
        pytest.param("detector: {score_threshold: 7}", "less than or equal to 1.*found 7", id="out of bounds"),
        pytest.param("sources: [{}]", "sources.0.uri: Field required", id="missing key"),
        pytest.param("sources: 5", "sources: .*list.*found 5", id="not a list"),
        pytest.param("- a\n- b", "holds a list: expected keys", id="list at the top"),
        pytest.param("a: [", "is not YAML", id="broken YAML"),
        pytest.param(
            "sources: [{uri: 'rtsp://u:${NO_SUCH_VARIABLE}@h/'}]", "environment has no NO_SUCH_VARIABLE", id="variable"
        ),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), {})


def test_password_in_a_wrong_source_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "sources: ['rtsp://user:hunter2@host/']"), {})
    assert "hunter2" not in str(caught.value)


def test_missing_file_names_the_presets() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read.*webcam"):
        load_config("nowhere.yaml", {})


def test_options_win_over_the_file_and_set_over_all(tmp_path: Path) -> None:
    file = write(tmp_path, "sources: [{uri: a.mp4}]\ndetector: {score_threshold: 0.1, iou_threshold: 0.5}")
    overrides = {"detector.score_threshold": 0.2, "output.jsonl": "x.jsonl"}
    config = load_config(file, overrides, ["detector.score_threshold=0.3", "sources.0.loop=true"])
    assert (config.detector.score_threshold, config.detector.iou_threshold) == (0.3, 0.5)
    assert config.output.jsonl == "x.jsonl"
    assert config.sources[0].loop


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param("detector.score_threshold", "expected KEY=VALUE", id="no value"),
        pytest.param("sources.3.loop=true", "3 is not an index into a list of 1", id="no such place"),
        pytest.param("sources.first.loop=true", "first is not an index", id="no number"),
        pytest.param("detector.model.size=3", "is a value, it has no keys", id="key of a value"),
        pytest.param("detector.model=[", "not YAML", id="broken value"),
    ],
)
def test_settings_that_cannot_work_say_why(tmp_path: Path, setting: str, message: str) -> None:
    file = write(tmp_path, "sources: [{uri: a.mp4}]\ndetector: {model: m.onnx}")
    with pytest.raises(ConfigError, match=message):
        load_config(file, {}, [setting])


def test_environment_variables_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_PASSWORD", "s3cret")
    config = load_config(write(tmp_path, "sources: [{uri: 'rtsp://u:${GATE_PASSWORD}@h/'}]"), {})
    assert config.sources[0].uri == "rtsp://u:s3cret@h/"
