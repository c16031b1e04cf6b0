"""GStreamer pipelines for OpenCV's GStreamer reader, mainly for Jetsons: functions from plain values.

Elements and properties as NVIDIA's L4T documents them (JetPack 6 and 7); CSI, USB and RTSP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.errors import ConfigError

Codec = Literal["h264", "h265"]
_APPSINK = "appsink drop=true max-buffers=1 sync=false"
_RELEASE = Path("/etc/nv_tegra_release")
_DEVICE_TREE = Path("/proc/device-tree/compatible")
_MEMORY_NODE = Path("/dev/nvmap")
_FORBIDDEN = frozenset('"\\\n\r')


def bgr_tail() -> str:
    """Return the end of a pipeline from a hardware surface to BGR for `appsink`.

    >>> bgr_tail().startswith("nvvidconv ! video/x-raw,format=BGRx ! videoconvert")
    True
    """
    return f"nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! {_APPSINK}"


def nv12_tail() -> str:
    """Return the end of a pipeline that hands NV12 to `appsink`: `cv2.cvtColor` then makes BGR on the CPU.

    On an Orin Nano this was reported at 122 frames per second, against 32 with BGRx through the pipe.
    """
    return f"nvvidconv ! video/x-raw,format=NV12 ! {_APPSINK}"


def rtsp_pipeline(
    url: str, codec: Codec = "h264", *, latency_ms: int = 100, transport: str = "tcp", nv12: bool = True
) -> str:
    """Return the pipeline of an RTSP camera on a Jetson. Raises `ConfigError` for another codec.

    >>> rtsp_pipeline("rtsp://gate/1", "h265").split(" ! ")[1:4]
    ['rtph265depay', 'h265parse', 'nvv4l2decoder enable-max-performance=1']
    """
    if codec not in ("h264", "h265"):
        raise ConfigError(f"codec is {codec!r}: expected h264 or h265")
    head = f"rtspsrc location={_quoted(url)} latency={latency_ms} protocols={transport} drop-on-latency=true"
    decode = f"rtp{codec}depay ! {codec}parse ! nvv4l2decoder enable-max-performance=1"
    return f"{head} ! {decode} ! {_tail(nv12)}"


def usb_pipeline(device: str, size_wh: tuple[int, int], fps: int, *, mjpeg: bool = True, nv12: bool = True) -> str:
    """Return the pipeline of a USB camera on a Jetson, MJPEG decoded in hardware or raw.

    >>> usb_pipeline("/dev/video0", (1920, 1080), 30).split(" ! ")[1]
    'image/jpeg,width=1920,height=1080,framerate=30/1'
    """
    caps = f"width={size_wh[0]},height={size_wh[1]},framerate={fps}/1"
    source = f"v4l2src device={_quoted(device)} io-mode=2"
    if mjpeg:
        return f"{source} ! image/jpeg,{caps} ! nvv4l2decoder mjpeg=1 ! {_tail(nv12)}"
    return f"{source} ! video/x-raw,{caps} ! {_tail(nv12)}"


def csi_pipeline(sensor_id: int, size_wh: tuple[int, int], fps: int, *, flip: int = 0, nv12: bool = True) -> str:
    """Return the pipeline of a CSI camera on a Jetson; `flip` is nvvidconv's `flip-method` (0 to 7).

    Raises `ConfigError` for another `flip`.

    >>> "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM)" in csi_pipeline(1, (1280, 720), 30)
    True
    """
    if not 0 <= flip <= 7:
        raise ConfigError(f"flip is {flip}: expected 0 to 7")
    caps = f"video/x-raw(memory:NVMM),width={size_wh[0]},height={size_wh[1]},framerate={fps}/1,format=NV12"
    tail = _tail(nv12).replace("nvvidconv", f"nvvidconv flip-method={flip}", 1)
    return f"nvarguscamerasrc sensor-id={sensor_id} ! {caps} ! {tail}"


def _tail(nv12: bool) -> str:
    return nv12_tail() if nv12 else bgr_tail()


def _quoted(value: str) -> str:
    """Return a value quoted for gst-launch; refuse characters that would end the quotes."""
    if _FORBIDDEN & set(value):
        raise ConfigError(
            "a GStreamer location cannot contain quotes, backslashes or line breaks: write them as %22, %5C"
        )
    return f'"{value}"'


def is_jetson(release: Path | None = None, device_tree: Path | None = None, node: Path | None = None) -> bool:
    """Return whether this is a Jetson, also in a container.

    Docker hides the device tree (it masks /sys/firmware), and the release file is not in a container, but NVIDIA's
    runtime brings the device node of the memory manager.

    Args:
        release: NVIDIA's release file, for tests.
        device_tree: file with the names of the board's chip, each terminated by a NUL byte, for tests.
        node: the device node, for tests.
    """
    try:
        chips = (device_tree or _DEVICE_TREE).read_bytes().split(b"\0")
    except OSError:
        chips = []
    if any(chip.startswith(b"nvidia,tegra") for chip in chips):
        return True
    return (release or _RELEASE).exists() or (node or _MEMORY_NODE).exists()


def why_not_gstreamer() -> str | None:
    """Return why a Jetson's decoder cannot be used here and what to do; None if it can."""
    if not is_jetson():
        places = f"no {_RELEASE}, no {_MEMORY_NODE}, no NVIDIA Tegra in {_DEVICE_TREE}"
        return f"jetson: this machine is not a Jetson ({places})"
    import cv2

    if "GStreamer:                   YES" not in cv2.getBuildInformation():
        return "jetson: this OpenCV has no GStreamer; use JetPack's, and keep pip from installing another over it"
    return None
