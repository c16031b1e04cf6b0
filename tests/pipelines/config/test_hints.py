"""What the messages for wrong keys and values suggest."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from pipelines.config.file import load_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("sources: [{uri: a, name: gate}]", r"sources.0.name: .*did you mean source_id\?", id="name"),
        pytest.param("sources: [{url: a}]", r"sources.0.url: .*did you mean uri\?", id="url"),
        pytest.param("detector: {conf: 0.3}", r"did you mean score_threshold\?", id="conf"),
        pytest.param("detector: {iou: 0.3}", r"did you mean iou_threshold\?", id="iou"),
        pytest.param("detector: {imgsz: 640}", r"did you mean size\?", id="imgsz"),
        pytest.param("detector: {half: true}", r"did you mean precision\?", id="half"),
        pytest.param("detector: {weights: a.onnx}", r"did you mean model\?", id="weights"),
        pytest.param("score_threshold: 0.4", r"did you mean detector.score_threshold\?", id="another section's key"),
        pytest.param(
            "conf: 0.4", r"did you mean detector.score_threshold\?", id="another section's key by its other name"
        ),
        pytest.param("publish: {pictures: {blurr: [a]}}", r"did you mean blur\?", id="in an optional section"),
        pytest.param("sources: [{rtsp_url: a}]", r"sources.0.rtsp_url: .*did you mean uri\?", id="rtsp_url"),
        pytest.param("sources: [{camera: 0}]", r"did you mean uri or source_id\?", id="camera"),
        pytest.param("sources: [{uri: a, password: pw1234}]", r"password: .*uri: rtsp://USER", id="password"),
        pytest.param("sources: [{uri: a, resolution: 640x480}]", r"did you mean size_wh\?", id="resolution"),
        pytest.param("detector: {max_det: 10}", r"max_det: unknown key: at most 300", id="max_det"),
        pytest.param("source: [{uri: a}]", r"source: .*did you mean sources\?", id="source at the top"),
        pytest.param("camera: 0", r"camera: .*did you mean sources\?", id="camera at the top"),
        pytest.param("zone: {}", r"did you mean sources.0.zones\?", id="zone at the top"),
        pytest.param("model: a.onnx", r"did you mean detector.model\?", id="model at the top"),
        pytest.param("tracking: {type: sort}", r"did you mean tracker\?", id="tracking"),
        pytest.param("record: true", r"did you mean sources.0.record\?", id="record at the top"),
        pytest.param("mqtt: {host: x}", r"mqtt: .*framewire bridge", id="mqtt"),
        pytest.param("log_level: debug", r"log_level: .*-v", id="log level"),
        pytest.param("tracker: sort", r"tracker: expected a group of keys: write it as type: NAME", id="bare tracker"),
        pytest.param("output: out.mp4", r"output: .*write it as save: FILE", id="bare output"),
        pytest.param("publish: 'tcp://u:pw1234@h:1'", r"publish: .*write it as address: tcp://", id="bare publish"),
        pytest.param("web: 8080", r"web: .*write it as address: HOST:PORT", id="bare web"),
        pytest.param("events: true", r"events: .*write it as folder: FOLDER", id="events switched on"),
        pytest.param("privacy: blur", r"privacy: .*write it as mode: NAME", id="bare privacy"),
        pytest.param("sources: [{uri: a, zones: {z: [[0, 0], [1, 1]]}}]", r"zones.z: .*write it as points:", id="zone"),
        pytest.param("sources: ['rtsp://u:pw1234@h/']", r"sources.0: .*write it as uri: ADDRESS", id="bare address"),
        pytest.param("sources: [0]", r"sources.0: .*write it as uri: ADDRESS", id="bare number"),
    ],
)
def test_a_wrong_key_is_met_with_the_right_one(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(file), {})
    assert "pw1234" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("clip.mp4", "--source clip.mp4", id="a video"),
        pytest.param("0", "--source 0", id="a camera"),
        pytest.param("yolo11n.onnx", "--model yolo11n.onnx", id="a model"),
        pytest.param("rtsp://h/s", "--source rtsp://h/s", id="an address"),
    ],
)
def test_what_is_no_configuration_is_named(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path, {})


@pytest.mark.parametrize("written", ["fp16", "half", "float16", "f16"])
def test_precision_takes_the_names_that_other_tools_use(written: str) -> None:
    assert load_config(None, {"detector.precision": written}).detector.precision == "f16"


@pytest.mark.parametrize("written", ["nan", ".nan", ".inf", "-.inf", "1e999"])
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("detector.score_threshold", "a finite number, at least 0 and at most 1", id="optional"),
        pytest.param("pipeline.max_age_ms", "a finite number, above 0", id="one limit"),
        pytest.param("sources.0.detect_hz", "a finite number, above 0 and at most 1000", id="number or word"),
        pytest.param("sources.0.record.segment_s", "a finite number, at least 1 and at most 86400", id="nested"),
        pytest.param("sources.0.prepare.lens.centre", "a finite number", id="list"),
        pytest.param("detector.max_batch", "a finite number, at least 1 and at most 256", id="whole number"),
        pytest.param("publish.pictures.images_per_s", "a finite number, at least 0 and at most 60", id="of an output"),
    ],
)
def test_no_number_is_refused_with_what_is_expected(key: str, expected: str, written: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("sources: [{uri: 'synthetic://', record: {folder: r}, prepare: {lens: {k1: 0.1}}}]\n")
    value = f"[{written}, 0.5]" if key.endswith("centre") else written
    with pytest.raises(ConfigError) as refused:
        load_config(str(file), {}, [f"{key}={value}"])
    line = str(refused.value).splitlines()[0]
    of_text = "should be a valid integer"  # what is said of any text where a whole number is expected
    assert f"expected {expected} (found" in line or (key == "detector.max_batch" and of_text in line)
