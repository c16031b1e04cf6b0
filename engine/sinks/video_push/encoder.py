"""Encodes images as H.264 for viewers, without delay, in hardware where available."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.errors import SinkError
from engine.optional import require
from engine.sinks.video_file import BT601, MPEG_RANGE, fitted

logger = logging.getLogger(__name__)
TICKS_PER_S = 90_000
KEYFRAME_S = 2.0
MAX_SIDE = 1920
MAX_KBPS = 6000
ENCODERS: Mapping[str, Mapping[str, str]] = {
    "h264_nvenc": {"preset": "p4", "tune": "ull", "zerolatency": "1", "forced-idr": "1", "rc": "vbr", "cq": "25"},
    "h264_qsv": {"preset": "veryfast", "async_depth": "1", "forced_idr": "1"},
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"},
}
"""In the order in which they are tried."""


class Encoded(NamedTuple):
    """An image as Annex B, its time in `TICKS_PER_S`, and whether decoding can begin with it."""

    data: bytes
    pts: int
    is_key: bool


class LiveEncoder:
    """Encodes the images of one stream; later ones are fitted into the size of the first.

    Args:
        size_wh: of the first image.
        fps: nominal rate.
        names: of encoders to try, in this order.

    Attributes:
        name: the encoder that is used.

    Raises:
        SinkError: no encoder works here.
    """

    def __init__(self, size_wh: tuple[int, int], fps: float, names: tuple[str, ...] = tuple(ENCODERS)) -> None:
        self._av = require("av")
        scale = min(1.0, MAX_SIDE / max(size_wh))
        self._size_wh = (max(2, round(size_wh[0] * scale / 2) * 2), max(2, round(size_wh[1] * scale / 2) * 2))
        self._fps = min(max(fps, 1.0), 120.0)
        self._first_ns: int | None = None
        self._last = -1
        self.name, self._codec = self._opened(names)

    def _opened(self, names: tuple[str, ...]) -> tuple[str, Any]:
        reasons = []
        for name in names:
            try:
                codec = self._codec_of(name)
                codec.open()
            except (self._av.error.FFmpegError, ValueError, OSError) as error:
                reasons.append(f"{name}: {getattr(error, 'strerror', None) or error}")
                continue
            logger.debug("pushed video is encoded by %s", name)
            return name, codec
        raise SinkError(
            f"no H.264 encoder works here ({'; '.join(reasons)}): install PyAV from PyPI, which has libx264"
        )

    def _codec_of(self, name: str) -> Any:
        codec: Any = self._av.CodecContext.create(name, "w")
        codec.width, codec.height = self._size_wh
        codec.pix_fmt = "nv12" if name == "h264_qsv" else "yuv420p"
        codec.time_base = Fraction(1, TICKS_PER_S)
        codec.framerate = Fraction(self._fps).limit_denominator(1001)
        codec.gop_size = max(1, round(self._fps * KEYFRAME_S))
        codec.max_b_frames = 0
        codec.options = {**ENCODERS[name], "maxrate": f"{MAX_KBPS}k", "bufsize": f"{MAX_KBPS}k"}
        codec.colorspace = codec.color_primaries = codec.color_trc = BT601
        codec.color_range = MPEG_RANGE
        return codec

    def encode(self, image: NDArray[np.uint8], scene_ns: int, *, key: bool = False) -> Iterator[Encoded]:
        """Encode an image (H, W, 3) uint8 BGR.

        Args:
            image: the image.
            scene_ns: its time; after a step back, it continues right after the previous image.
            key: encode a keyframe, so that a viewer can join.
        """
        planes = cv2.cvtColor(self._fitted(image), cv2.COLOR_BGR2YUV_I420)
        frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        if self._codec.pix_fmt != "yuv420p":
            frame = frame.reformat(format=self._codec.pix_fmt)
        frame.pts, frame.time_base = self._pts(scene_ns), Fraction(1, TICKS_PER_S)
        if key:
            frame.pict_type = self._av.video.frame.PictureType.I
        for packet in self._codec.encode(frame):
            yield Encoded(bytes(packet), int(packet.pts), bool(packet.is_keyframe))

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width, height = self._size_wh
        if max(image.shape[:2]) > MAX_SIDE and width * image.shape[0] // image.shape[1] in range(
            height - 2, height + 3
        ):
            return np.asarray(cv2.resize(image, self._size_wh, interpolation=cv2.INTER_AREA), np.uint8)
        return fitted(image, self._size_wh)

    def _pts(self, scene_ns: int) -> int:
        step = round(TICKS_PER_S / self._fps)
        if self._first_ns is None:
            self._first_ns = scene_ns
        pts = round((scene_ns - self._first_ns) * TICKS_PER_S / NS_PER_S)
        if not self._last < pts < self._last + 60 * TICKS_PER_S:  # a file that repeats, or a clock that was set
            pts = self._last + step
            self._first_ns = scene_ns - round(pts * NS_PER_S / TICKS_PER_S)
        self._last = pts
        return pts
