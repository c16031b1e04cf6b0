"""An option that has no effect on a kind of source is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import ConfigError, SourceError
from engine.sources.applicable import APPLIES, WORDS, inapplicable
from engine.sources.open import kind_of, open_source
from engine.video.options import SourceOptions
from engine.video.uri import NETWORK_SCHEMES
from pipelines.build.sources import build_recordings, build_source
from pipelines.config.file import validated
from tests.media import encode_clip, numbered_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    encode_clip(tmp_path / "clip.mp4", numbered_images(3), rate=30)
    (tmp_path / "shots").mkdir()
    cv2.imwrite(str(tmp_path / "shots" / "0.png"), np.zeros((4, 4, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


REFUSED = [
    pytest.param("clip.mp4", {"transport": "udp"}, r"video file\).* applies to rtsp:// address, rtsps://", id="file"),
    pytest.param("clip.mp4", {"grow_s": 3.0}, "video file.* applies to folder of images", id="growing file"),
    pytest.param(
        "clip.mp4", {"reader": "thread"}, "video file.* applies to USB camera, CSI.*network address", id="reader"
    ),
    pytest.param("rtsp://gate/1", {"pixel_format": "mjpeg"}, "rtsp:// address.* applies to USB camera", id="format"),
    pytest.param("rtsp://gate/1", {"fps": 10.0}, "applies to folder of images, .*; max_fps limits", id="rate"),
    pytest.param("rtsp://gate/1", {"tls": "insecure"}, "applies to .*; use rtsps://", id="certificate"),
    pytest.param("rtsp://gate/1", {"loop": True}, r"a camera: .*live: false", id="repeated camera"),
    pytest.param("http://gate/live", {"realtime": True}, r"a camera: .*live: false", id="paced camera"),
    pytest.param("http://gate/live", {"transport": "udp"}, "http:// address.* applies to rtsp", id="http"),
    pytest.param("0", {"transport": "udp"}, "USB camera.* applies to rtsp", id="camera"),
    pytest.param("csi://0", {"pixel_format": "mjpeg"}, "CSI camera.* applies to USB camera", id="csi"),
    pytest.param("screen://:0", {"snapshot": True}, "screen.* applies to http", id="screen"),
    pytest.param("shots", {"decoder": "cpu"}, "folder of images.* applies to video file", id="images"),
    pytest.param("synthetic://?count=3", {"fps": 9.0}, "synthetic scene.* applies to folder of images", id="scene"),
]


@pytest.mark.parametrize(("uri", "options", "said"), REFUSED)
def test_an_option_without_effect_is_refused_with_where_it_applies(
    folder: Path, uri: str, options: dict[str, object], said: str
) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"^{name} does not apply to .*{said}"):
        open_source(uri, **options)
    config = validated({"sources": [{"uri": uri, **options}]}, "test")
    with pytest.raises(ConfigError, match=f"{name} does not apply"):
        build_source(config.sources[0], "gate")


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        pytest.param("clip.mp4", {"transport": "tcp", "grow_s": None, "fps": None}, id="defaults"),
        pytest.param("clip.mp4", {"realtime": True, "loop": True, "damage": "keep", "decoder": "cpu"}, id="file"),
        pytest.param("shots", {"grow_s": 1.0, "fps": 5.0, "max_pixels": 100}, id="images"),
        pytest.param("rtsp://gate/1", {"transport": "udp", "stall_s": 3.0, "reader": "thread"}, id="camera"),
        pytest.param("rtsp://gate/1", {"live": False, "realtime": True}, id="a recording on a camera"),
        pytest.param("rtsps://gate/1", {"tls": "insecure"}, id="certificate"),
        pytest.param("http://gate/shot", {"snapshot": True, "fps": 2.0}, id="snapshot"),
        pytest.param("http://gate/clip.mp4", {"realtime": True, "loop": True}, id="file on a server"),
        pytest.param("synthetic://?count=3", {"realtime": True}, id="scene"),
    ],
)
def test_options_that_apply_and_defaults_are_accepted(folder: Path, uri: str, options: dict[str, object]) -> None:
    assert open_source(uri, **options).info.uri


def test_every_option_says_where_it_applies() -> None:
    assert set(APPLIES) == {option.name for option in fields(SourceOptions)}
    assert {kind for kinds in APPLIES.values() for kind in kinds} <= {*WORDS, *NETWORK_SCHEMES}
    assert not any(inapplicable(kind, SourceOptions()) for kind in (*WORDS, *NETWORK_SCHEMES))


def test_a_missing_file_is_reported_before_its_options(folder: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_source("shotz", grow_s=3.0)
    assert [kind_of(place) for place in ("shots", "shots/*.png", "shots/0.png", "clip.mp4")] == [
        *["images"] * 3,
        "video",
    ]


def test_an_option_may_be_for_the_address_to_record_alone(folder: Path) -> None:
    source = {"uri": "clip.mp4", "source_id": "gate", "transport": "udp", "record": {"uri": "rtsp://gate/main"}}
    config = validated({"sources": [source]}, "test")
    assert build_source(config.sources[0], "gate").info.source_id == "gate"
    assert build_recordings(config)["gate"].target.ffmpeg["rtsp_transport"] == "udp"
    config = validated({"sources": [{**source, "grow_s": 2.0}]}, "test")
    with pytest.raises(ConfigError, match="grow_s does not apply"):
        build_source(config.sources[0], "gate")


def test_the_refusal_hides_the_password() -> None:
    with pytest.raises(ConfigError) as refused:
        open_source("rtsp://admin:hunter2hunter2@gate/1", pixel_format="mjpeg")
    assert "hunter2" not in str(refused.value)
