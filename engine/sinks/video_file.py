"""One MP4, MOV or MKV file being written: it plays up to its last frame but one, however the process ends."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.errors import ConfigError
from engine.optional import require
from engine.sinks.claim import claim

TICKS_PER_S = 90_000
TIME_BASE = Fraction(1, TICKS_PER_S)
MAX_FPS_DENOMINATOR = 1001
GREY = 114
MAX_ASPECT_DENOMINATOR = 255
BT601 = 6
MPEG_RANGE = 1
INDEX_FIRST_BYTES = 256 << 20  # larger files keep the index at the end, because moving it copies the file
HYBRID_SINCE = (
    62,
    12,
)  # libavformat of FFmpeg 8.1: earlier ones write an index without the codec's parameters
_HYBRID = "hybrid_fragmented+"
_FRAGMENTED = {"movflags": "frag_every_frame+delay_moov+default_base_moof", "flush_packets": "1"}
PACKETS_TO_APPEAR = 2  # the muxer writes a fragment when the next packet tells how long the last one is
ENCODER = "libx264"
ENCODER_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "24", "threads": "2"}
"""The encoder holds no frame back, so that a kill loses none of them; at equal quality, that takes 15 % more space."""
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_CLUSTERED = {"flush_packets": "1", "cluster_time_limit": "0"}


def video_path(path: str | Path) -> Path:
    """Return the path of a video to write. Raises `ConfigError` if it has no suffix of a video container."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path} is not a video file name: end it in .mp4, .mkv or .mov")
    return path


class VideoFile:
    """A file being written in fragments of one frame, each complete on disk when the next frame arrives.

    It appears under its name, and replaces what was there, with its second frame, so that it can be played at any
    moment. `close` makes it a plain MP4 or MOV with the index first, so that it plays while it loads.

    Args:
        path: `.mp4`, `.mov` or `.mkv`.
        size_wh: of the first frame.
        fps: nominal rate.
        codec: FFmpeg's name for the encoder.
        options: of the encoder.
        pixel_aspect: width by height of a pixel.

    Raises:
        OSError: the file cannot be written, or another run is writing it.
    """

    def __init__(
        self,
        path: Path,
        size_wh: tuple[int, int],
        fps: float,
        codec: str,
        options: dict[str, str],
        *,
        pixel_aspect: float = 1.0,
    ) -> None:
        av = require("av")
        self._av = av
        self.path = path
        self.frames = 0
        self.is_complete = False
        self._cv2 = require("cv2")
        self._size_wh = (size_wh[0] + size_wh[0] % 2, size_wh[1] + size_wh[1] % 2)
        self._rate = Fraction(fps).limit_denominator(MAX_FPS_DENOMINATOR)
        self._is_matroska = path.suffix.lower() == ".mkv"
        options_of_file = dict(_CLUSTERED if self._is_matroska else _FRAGMENTED)
        if not self._is_matroska and av.library_versions["libavformat"][:2] >= HYBRID_SINCE:
            options_of_file["movflags"] = _HYBRID + options_of_file["movflags"]
        self._early = part_of(path)
        self._packets = 0
        self._claim: int | None = claim(self._early, path)
        try:
            self._container: Any = av.open(
                url_of_path(self._early), "w", format=FORMATS[path.suffix.lower()], options=options_of_file
            )
        except BaseException:
            self._release()
            raise
        self._stream: Any = self._container.add_stream(codec, rate=self._rate, options=options)
        self._stream.width, self._stream.height = self._size_wh
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(MAX_ASPECT_DENOMINATOR)
        context.time_base = TIME_BASE
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = MPEG_RANGE
        self._step = max(1, round(1 / self._rate / TIME_BASE))
        self._first_pts_ns: int | None = None
        self._stream_epoch: int | None = None
        self._last = -self._step

    def write(self, image: NDArray[np.uint8], pts_ns: int | None, stream_epoch: int) -> None:
        """Encode one image, (H, W, 3) uint8 BGR, at its stream time."""
        if stream_epoch != self._stream_epoch:
            self._stream_epoch, self._first_pts_ns = stream_epoch, None
        planes = self._cv2.cvtColor(fitted(image, self._size_wh), self._cv2.COLOR_BGR2YUV_I420)
        frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = self._time_of(pts_ns)
        frame.time_base = TIME_BASE
        for packet in self._stream.encode(frame):
            self._mux(packet)
        self.frames += 1

    def _mux(self, packet: Any) -> None:
        packet.duration = packet.duration or self._step
        self._container.mux(packet)
        self._packets += 1
        if self._packets == PACKETS_TO_APPEAR:
            self._early.replace(self.path)

    def close(self) -> None:
        """Write the frames that the encoder still holds, and the index; harmless when repeated."""
        container = self._container
        if container is None:
            return
        try:
            try:
                for packet in self._stream.encode(None):
                    self._mux(packet)
            finally:
                self._container = None
                container.close()
            if self._packets == 1:
                self._early.replace(self.path)
        finally:
            self._early.unlink(missing_ok=True)  # exists only if nothing could be written
            self._release()
        self.is_complete = self._packets > 0
        if self.is_complete and not self._is_matroska and self.path.stat().st_size <= INDEX_FIRST_BYTES:
            put_index_first(self.path, self._step)

    def _release(self) -> None:
        handle, self._claim = self._claim, None
        if handle is not None:
            os.close(handle)

    def _time_of(self, pts_ns: int | None) -> int:
        """Return the time in `TIME_BASE`: the stream's, or the next one at the nominal rate; strictly increasing.

        If stream time restarts (a camera reconnected), it continues one frame after the last.
        """
        time = self._last + self._step
        if pts_ns is not None and self._first_pts_ns is not None:
            time = round((pts_ns - self._first_pts_ns) * TICKS_PER_S / NS_PER_S)
        if pts_ns is not None and (self._first_pts_ns is None or time <= self._last):
            time = self._last + self._step
            self._first_pts_ns = pts_ns - round(time * NS_PER_S / TICKS_PER_S)
        self._last = time
        return time


def fitted(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) uint8 scaled to another size, contiguous, keeping its aspect; the rest is grey."""
    width, height = size_wh
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    if image.shape[1] > width or image.shape[0] > height or width - image.shape[1] > 1:
        image = _resized(image, size_wh)
    canvas = np.full((height, width, 3), GREY, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def url_of_path(path: Path) -> str:
    """Return the address of a file in FFmpeg's form, so that a colon in the name is not mistaken for a scheme."""
    return f"file:{os.fspath(path)}"


def part_of(path: Path) -> Path:
    """Return the name of a file while it is incomplete."""
    return path.with_name(f".{path.name}.part")


def put_index_first(path: Path, step: int) -> None:
    """Move the index of an MP4 or MOV to its front; if that fails (no space, no permission), the file stays as it is.

    Args:
        path: the file.
        step: nominal time between frames in `TIME_BASE`, for a file with a single frame.
    """
    av = require("av")
    moved = part_of(path)
    try:
        with (
            av.open(url_of_path(path)) as source,
            av.open(
                url_of_path(moved),
                "w",
                format=FORMATS[path.suffix.lower()],
                options={"movflags": "+faststart"},
            ) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            before: int | None = None
            for packet in source.demux(video=0):
                if packet.dts is None:
                    continue
                step = step if before is None else packet.dts - before
                before = packet.dts
                packet.duration = packet.duration or step  # without one, FFmpeg 7 cuts the last frame off
                packet.stream = stream
                target.mux(packet)
        moved.replace(path)
    except (av.FFmpegError, OSError, ValueError):
        with suppress(OSError):
            moved.unlink(missing_ok=True)


def _resized(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image scaled to the largest size that fits, keeping its aspect."""
    scale = min(size_wh[0] / image.shape[1], size_wh[1] / image.shape[0])
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    resized: NDArray[np.uint8] = require("cv2").resize(image, (width, height))
    return resized
