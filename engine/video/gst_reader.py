"""Cameras of a Jetson: hardware decoding by GStreamer through OpenCV, with the interface of `VideoReader`.

Needs an OpenCV built with GStreamer, such as JetPack's; the wheels on PyPI lack it. The pipeline delivers NV12, which
is converted to BGR like any other frame.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from engine.errors import SourceError
from engine.video.address import VideoAddress
from engine.video.frames import DecodedFrame
from engine.video.gstreamer import csi_pipeline, rtsp_pipeline, usb_pipeline
from engine.video.timing.arrivals import Stamp
from engine.video.uri import scheme_of

_DEFAULT_SIZE_WH = (1280, 720)
_DEFAULT_FPS = 30


def pipelines(target: VideoAddress) -> list[str]:
    """Return the pipelines to try for a target, in order: the codec of an RTSP camera is known only by trying.

    >>> [line.split(" ! ")[1] for line in pipelines(VideoAddress("rtsp://gate/1"))]
    ['rtph264depay', 'rtph265depay']
    """
    if scheme_of(target.url) in ("rtsp", "rtsps"):
        transport = target.ffmpeg.get("rtsp_transport", "tcp")
        return [rtsp_pipeline(target.url, codec, transport=transport) for codec in ("h264", "h265")]
    if target.format in ("v4l2", "csi"):
        width, _, height = target.ffmpeg.get("video_size", "").partition("x")
        size_wh = (int(width), int(height)) if height else _DEFAULT_SIZE_WH
        fps = round(float(target.ffmpeg.get("framerate", _DEFAULT_FPS)))
        if target.format == "csi":
            return [csi_pipeline(int(target.url), size_wh, fps)]
        return [usb_pipeline(target.url, size_wh, fps, mjpeg=mjpeg) for mjpeg in (True, False)]
    return []


class GstReader:
    """One opened GStreamer pipeline that ends in an `appsink` of NV12.

    Raises:
        SourceError: the pipeline cannot be started.
    """

    indexed_packets: int | None = None

    def __init__(self, pipeline: str) -> None:
        import cv2

        self._capture: Any = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise SourceError(f"GStreamer cannot start {pipeline.split(' ! ')[1]}: see its message above")
        self._items = self._run()
        self._ahead: list[DecodedFrame] = []
        self._size_wh: tuple[int, int] | None = None
        self.packets = 0
        self.failure: Exception | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Width, height, fps, frame_count, codec, decoder and duration_s, None where unknown."""
        import cv2

        width, height = self._size_wh or (None, None)
        fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or None
        unknown = dict.fromkeys(("frame_count", "codec", "duration_s"))
        return {"width": width, "height": height, "fps": fps, "decoder": "jetson", **unknown}

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield frames until the pipeline ends."""
        return chain(self._ahead, self._items)

    def delivers(self) -> bool:
        """Return whether the pipeline really delivers a frame; `frames` yields that frame."""
        self._ahead.extend(item for item, _ in zip(self._items, range(1), strict=False))
        return bool(self._ahead)

    def _run(self) -> Iterator[DecodedFrame]:
        import av

        while True:
            done, nv12 = self._capture.read()
            if not done:
                return
            stamp = Stamp(time.monotonic_ns(), time.time_ns(), None)
            self.packets += 1
            self._size_wh = (nv12.shape[1], nv12.shape[0] * 2 // 3)
            yield DecodedFrame(av.VideoFrame.from_ndarray(nv12.reshape(-1, nv12.shape[1]), format="nv12"), stamp)

    def close(self) -> None:
        """Stop the pipeline; harmless when repeated."""
        self._capture.release()


def open_jetson(target: VideoAddress) -> GstReader:
    """Return the first pipeline of a target that delivers frames.

    Raises:
        SourceError: no pipeline does.
    """
    reasons = ["there is no pipeline for this kind of address"]
    for pipeline in pipelines(target):
        try:
            reader = GstReader(pipeline)
        except SourceError as error:
            reasons.append(str(error))
            continue
        if reader.delivers():
            return reader
        reader.close()
        reasons.append("it delivered no frame")
    raise SourceError(reasons[-1])
