"""USB and other V4L2 cameras, by number, device or stable path, read with FFmpeg's v4l2 input."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from engine.errors import SourceError
from engine.video.address import VideoAddress
from engine.video.options import SourceOptions

DEVICES = Path("/dev")
_FORMAT = "v4l2"


def camera_devices(devices: Path = DEVICES) -> list[str]:
    """Return the cameras of this machine, stable paths (`/dev/v4l/by-id/...`) first."""
    stable = sorted(str(path) for path in devices.glob("v4l/by-id/*"))
    return stable + sorted(str(path) for path in devices.glob("video[0-9]*"))


def is_camera(uri: str, devices: Path = DEVICES) -> bool:
    """Return whether `uri` names a camera: a number, or the path of a video device.

    >>> is_camera("0"), is_camera("/dev/video1"), is_camera("/dev/v4l/by-id/usb-cam-index0"), is_camera("clip.mp4")
    (True, True, True, False)
    """
    return uri.isdecimal() or uri.startswith((f"{devices}/video", f"{devices}/v4l/"))


def camera_address(uri: str, options: SourceOptions, devices: Path = DEVICES) -> VideoAddress:
    """Return what to open for a camera.

    Raises:
        SourceError: the device does not exist or cannot be read; the message lists the devices present.
    """
    device = devices / f"video{uri}" if uri.isdecimal() else Path(uri)
    check_camera(device, devices)
    ffmpeg = {"fflags": "nobuffer", "flags": "low_delay", **_asked(options)}
    if options.pixel_format is not None:
        ffmpeg["input_format"] = options.pixel_format
    return VideoAddress(
        url=str(device),
        format=_FORMAT,
        ffmpeg={**ffmpeg, **options.ffmpeg},
        live=True,
        open_timeout_s=options.open_timeout_s,
        read_timeout_s=options.read_timeout_s,
        damage="frame",  # frames do not depend on each other
        decoders=("cpu" if options.decoder == "auto" else options.decoder,),
    )


def csi_address(uri: str, options: SourceOptions) -> VideoAddress:
    """Return what to open for `csi://N`, the camera on connector N of a Jetson.

    Raises:
        SourceError: this is not a Jetson, its OpenCV lacks GStreamer, or N is not a number.
    """
    from engine.video.gstreamer import why_not_gstreamer

    number = uri[len("csi://") :]
    if not number.isdecimal():
        raise SourceError(f"{uri} is not a CSI camera: expected csi://0, csi://1, ...")
    reason = why_not_gstreamer()
    if reason is not None:
        raise SourceError(f"cannot open {uri}: {reason}")
    target = VideoAddress(
        url=number, format="csi", ffmpeg=_asked(options), live=True, damage="frame", decoders=("jetson",)
    )
    return replace(target, open_timeout_s=options.open_timeout_s, read_timeout_s=options.read_timeout_s)


def _asked(options: SourceOptions) -> dict[str, str]:
    """Return the size and rate to request from a camera, by FFmpeg's names."""
    asked = {}
    if options.size_wh is not None:
        asked["video_size"] = f"{options.size_wh[0]}x{options.size_wh[1]}"
    if options.fps is not None:
        asked["framerate"] = f"{options.fps:g}"
    return asked


def check_camera(device: Path, devices: Path = DEVICES) -> None:
    """Raise SourceError unless `device` exists and can be read."""
    if not device.exists():
        present = camera_devices(devices)
        there = f"this machine has {', '.join(present)}" if present else "this machine has no camera"
        raise SourceError(f"no camera {device}: {there}; check the cable, and in a container pass --device {device}")
    if not stat.S_ISCHR(device.stat().st_mode):
        raise SourceError(f"{device} is not a camera: expected a character device such as /dev/video0")
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(f"camera {device}: permission denied; add yourself to the group video, and log in again")
