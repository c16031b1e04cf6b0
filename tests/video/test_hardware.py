"""The fallback of decoders: a decoder that is missing, or delivers nothing, is replaced and named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.sources.open import open_source
from engine.sources.synthetic import number_in_image
from engine.video import fallback, hardware
from engine.video.address import VideoAddress
from engine.video.decode import VideoReader
from engine.video.fallback import open_video, why_not
from tests.media import encode_clip, mjpeg_camera, numbered_images


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return encode_clip(tmp_path / "a.mp4", numbered_images(10))


@pytest.mark.parametrize("decoder", [*hardware.DEVICE_TYPES, "jetson"])
def test_a_decoder_that_is_not_here_is_named_and_the_cpu_decodes(
    clip: Path, decoder: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not why_not(decoder):
        pytest.skip(f"{decoder} works here: its absence cannot be shown")
    with caplog.at_level(logging.WARNING):
        source = open_source(clip, decoder=decoder)
        assert len(list(source)) == 10
    assert f"{decoder}:" in caplog.text
    assert source.info.decoder == "cpu"


def test_a_decoder_that_fails_to_open_is_stepped_down(
    clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The CUDA context of FFmpeg really fails on a machine without one; with one, this decodes on it."""
    monkeypatch.setattr(fallback, "with_fallbacks", lambda name: ("nvdec", "cpu"))
    with caplog.at_level(logging.WARNING):
        reader = open_video(VideoAddress(str(clip)))
    frames = list(reader.frames())
    assert len(frames) == 10
    assert reader.facts["decoder"] == ("cpu" if "nvdec does not decode" in caplog.text else "nvdec")
    reader.close()


def test_a_decoder_that_delivers_nothing_is_stepped_down(
    clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Mute(VideoReader):
        def delivers(self) -> bool:
            return False

        def __init__(self, target: VideoAddress, decoder: str = "cpu") -> None:
            super().__init__(target)

    real = VideoReader
    monkeypatch.setattr(fallback, "with_fallbacks", lambda name: ("nvdec", "cpu"))
    monkeypatch.setattr(fallback, "VideoReader", lambda target, name="cpu": (real if name == "cpu" else Mute)(target))
    with caplog.at_level(logging.WARNING):
        reader = open_video(VideoAddress(str(clip)))
    assert "it delivers no frame" in caplog.text
    assert type(reader) is real
    reader.close()


def test_the_proof_loses_no_picture(clip: Path) -> None:
    reader = VideoReader(VideoAddress(str(clip)))
    assert reader.delivers()
    assert [item.frame.pts for item in reader.frames()][:2] == [0, 512]  # type: ignore[union-attr]
    reader.close()


def test_auto_reads_a_camera_whatever_is_here() -> None:
    with mjpeg_camera(numbered_images(3)) as camera:
        frame = next(iter(open_source(camera.url, decoder="auto")))
    assert number_in_image(frame.image) < 3


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="decoder is 'gpu': expected one of auto, cpu, nvdec, vaapi, jetson"):
        open_source("rtsp://host/1", decoder="gpu")
