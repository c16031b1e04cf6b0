"""Pipelines of a Jetson, held to NVIDIA's elements as the facts of the project name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError, SourceError
from engine.sources.open import open_source
from engine.video.address import VideoAddress
from engine.video.gst_reader import pipelines
from engine.video.gstreamer import csi_pipeline, is_jetson, rtsp_pipeline, usb_pipeline, why_not_gstreamer

TAIL = (
    "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
    "appsink drop=true max-buffers=1 sync=false"
)


def test_rtsp_h264() -> None:
    assert rtsp_pipeline("rtsp://gate/1", nv12=False) == (
        'rtspsrc location="rtsp://gate/1" latency=100 protocols=tcp drop-on-latency=true ! rtph264depay ! h264parse ! '
        f"nvv4l2decoder enable-max-performance=1 ! {TAIL}"
    )


def test_rtsp_h265_hands_out_nv12() -> None:
    line = rtsp_pipeline("rtsp://gate/1", "h265", latency_ms=50, transport="udp")
    assert "latency=50 protocols=udp" in line
    assert "rtph265depay ! h265parse" in line
    assert line.endswith("nvvidconv ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1 sync=false")


def test_usb_mjpeg_and_raw() -> None:
    assert usb_pipeline("/dev/video0", (1920, 1080), 30, nv12=False) == (
        'v4l2src device="/dev/video0" io-mode=2 ! image/jpeg,width=1920,height=1080,framerate=30/1 ! '
        f"nvv4l2decoder mjpeg=1 ! {TAIL}"
    )
    assert "! video/x-raw,width=640," in usb_pipeline("/dev/video0", (640, 480), 15, mjpeg=False)


def test_csi_camera() -> None:
    assert csi_pipeline(0, (1280, 720), 30, nv12=False) == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1,format=NV12 ! "
        + TAIL.replace("nvvidconv", "nvvidconv flip-method=0")
    )


@pytest.mark.parametrize("url", ['rtsp://x" ! filesink location="/etc/passwd', "rtsp://x\nfakesrc", "rtsp://x\\"])
def test_an_address_cannot_add_elements(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot contain"):
        rtsp_pipeline(url)


@pytest.mark.parametrize(
    "wrong", [lambda: rtsp_pipeline("rtsp://x", "av1"), lambda: csi_pipeline(0, (1, 1), 1, flip=9)]
)  # type: ignore[arg-type]
def test_what_no_jetson_has_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        wrong()  # type: ignore[operator]


def test_a_usb_camera_is_asked_for_its_size_and_rate() -> None:
    target = VideoAddress("/dev/video1", format="v4l2", ffmpeg={"video_size": "800x600", "framerate": "15"})
    assert "width=800,height=600,framerate=15/1" in pipelines(target)[0]


def test_a_file_has_no_pipeline() -> None:
    assert pipelines(VideoAddress("clip.mp4")) == []


def test_a_csi_camera_has_one_pipeline() -> None:
    target = VideoAddress("1", format="csi", ffmpeg={"video_size": "1920x1080"})
    (line,) = pipelines(target)
    assert line.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080")


def test_a_csi_camera_off_a_jetson_says_so() -> None:
    if not why_not_gstreamer():
        pytest.skip("this is a Jetson")
    with pytest.raises(SourceError, match="not a Jetson|no GStreamer"):
        open_source("csi://0")
    with pytest.raises(SourceError, match="expected csi://0"):
        open_source("csi://front")


@pytest.mark.parametrize(
    ("chips", "file", "expected"),
    [
        pytest.param(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0", None, True, id="an Orin"),
        pytest.param(b"nvidia,tegra264\0", None, True, id="Thor"),
        pytest.param(None, "nv_tegra_release", True, id="release file alone"),
        pytest.param(None, "nvmap", True, id="in a container of Docker, which hides the device tree"),
        pytest.param(b"raspberrypi,4-model-b\0brcm,bcm2711\0", None, False, id="another board"),
        pytest.param(None, None, False, id="a desktop"),
    ],
)
def test_a_jetson_is_known_by_its_device_tree_or_its_device_node(
    tmp_path: Path, chips: bytes | None, file: str | None, expected: bool
) -> None:
    tree = tmp_path / "compatible"
    if chips is not None:
        tree.write_bytes(chips)
    if file is not None:
        (tmp_path / file).touch()
    assert is_jetson(tmp_path / "nv_tegra_release", tree, tmp_path / "nvmap") is expected
