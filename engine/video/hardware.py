"""Finds the hardware decoders that this machine may have. Imports no numpy: the reader process uses it too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

CPU = "cpu"
DEVICE_TYPES = {"nvdec": "cuda", "vaapi": "vaapi"}  # FFmpeg's names
_RENDER_NODES = "renderD*"


def _has_nvdec() -> bool:
    """Return whether the driver's decoding library loads; in a container that needs the capability `video`."""
    for library in ("libcuda.so.1", "libnvcuvid.so.1"):
        try:
            ctypes.CDLL(library)
        except OSError:
            return False
    return True


def _has_vaapi() -> bool:
    return any(Path("/dev/dri").glob(_RENDER_NODES))


_PRESENT: dict[str, Callable[[], bool]] = {"nvdec": _has_nvdec, "vaapi": _has_vaapi}


def why_not_device(decoder: str) -> str | None:
    """Return why a decoder of a GPU cannot be used here and what to do; None if it may work.

    >>> why_not_device("cpu") is None
    True
    """
    if decoder == CPU:
        return None
    try:
        from av.codec.hwaccel import hwdevices_available
    except ImportError:
        return f"{decoder}: this PyAV is too old for it; pip install --upgrade av"
    device_type = DEVICE_TYPES[decoder]
    if device_type not in hwdevices_available():
        return f"{decoder}: this build of PyAV has no {device_type}; build PyAV against an FFmpeg that has it"
    if not _PRESENT[decoder]():
        remedy = {
            "nvdec": "install NVIDIA's driver; in a container set NVIDIA_DRIVER_CAPABILITIES=compute,video",
            "vaapi": "install the GPU's driver, and pass /dev/dri to a container",
        }
        return f"{decoder}: no device found; {remedy[decoder]}"
    return None


def hardware(decoder: str) -> Any:
    """Return PyAV's object for a hardware decoder."""
    from av.codec.hwaccel import HWAccel

    return HWAccel(DEVICE_TYPES[decoder], allow_software_fallback=False)
