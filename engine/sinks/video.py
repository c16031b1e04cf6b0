"""Writing annotated video that browsers play: H.264 in MP4, with the times of the source."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Packet, Run, SourceStatus
from engine.errors import ConfigError, SinkError
from engine.optional import require
from engine.protocols import SinkBase

DEFAULT_FPS = 30.0
TICKS_PER_S = 90_000
TIME_BASE = Fraction(1, TICKS_PER_S)
NS_PER_S = 1_000_000_000
MAX_FPS_DENOMINATOR = 1001
GREY = 114
BT601 = 6
MPEG_RANGE = 1

Draw = Callable[[Packet], NDArray[np.uint8]]


class VideoWriter(SinkBase):
    """Writes one video per source, frame for frame at the source's own times.

    Sizes are made even for H.264 by one grey column or row; a source that changes its size in mid-stream is fitted
    into its first size. Where a source has no times, frames follow each other at its nominal rate (or `fps`).

    Args:
        path: `OUT.mp4`, also `.mkv` or `.mov`; replaced if it exists.
        per_source: write `OUT_<source_id>.mp4` for each source, as several cannot share a file; a source that comes
            back after its end gets `OUT_<source_id>-2.mp4`, and so on.
        first: the source that is written to `OUT.mp4` all the same.
        draw: makes the picture to write from a packet (the overlay); None writes the frame as it is.
        fps: rate where the source has no times and no nominal rate; None means 30.
        codec: FFmpeg's name of the encoder.
        options: of the encoder, added to the defaults.

    Raises:
        ConfigError: the file name ends in nothing that holds video.
    """

    name = "video"
    blocking = True

    def __init__(
        self,
        path: str | Path,
        *,
        per_source: bool = False,
        first: str | None = None,
        draw: Draw | None = None,
        fps: float | None = None,
        codec: str = "libx264",
        options: dict[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
            raise ConfigError(f"{self.path} is no video file name: end it in .mp4, .mkv or .mov")
        if fps is not None and not 0 < fps <= 1000:
            raise ConfigError(f"fps is {fps}: give frames per second between 0 and 1000")
        self._per_source = per_source
        self._first = first
        self._draw = draw
        self._fps = fps
        self._codec = codec
        self._options = {"preset": "veryfast", "crf": "23", "threads": "2"} if codec == "libx264" else {}
        self._options.update(options or {})
        self._nominal: dict[str, float] = {}
        self._files: dict[str, _VideoFile] = {}
        self._written: dict[Path, str] = {}

    def path_for(self, source_id: str) -> Path:
        """Return the file that a source is written to, the first time."""
        if not self._per_source or source_id == self._first:
            return self.path
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in source_id)
        return self.path.with_name(f"{self.path.stem}_{safe}{self.path.suffix}")

    def open(self, run: Run) -> None:
        """Check that the folder can be written; the files begin with the first frames.

        Raises:
            SinkError: it does not exist or may not be written, or the encoder is missing.
        """
        av = require("av")
        self._written.clear()
        if self._codec not in av.codecs_available:
            raise SinkError(f"this FFmpeg has no encoder {self._codec}: choose another codec, mpeg4 for example")
        try:
            self.path.parent.joinpath(f".{self.path.name}.probe").touch()
            self.path.parent.joinpath(f".{self.path.name}.probe").unlink()
        except OSError as error:
            raise self._unwritable(self.path, error) from error

    def write(self, packet: Packet) -> None:
        """Encode one packet.

        Raises:
            SinkError: the disk is full, or a second source writes to one file.
        """
        source_id = packet.frame.source_id
        file = self._files.get(source_id)
        image = packet.frame.image if self._draw is None else self._draw(packet)
        try:
            if file is None:
                file = self._files[source_id] = self._start(source_id, image)
            file.write(image, packet.frame.pts_ns, packet.frame.stream_epoch)
        except require("av").FFmpegError as error:
            raise self._unwritable(self.path_for(source_id) if file is None else file.path, error) from error

    def status(self, status: SourceStatus) -> None:
        """Learn a source's rate, and finish its file when it ended."""
        if status.info.fps:
            self._nominal[status.source_id] = status.info.fps
        file = self._files.pop(status.source_id, None) if status.state == "ended" else None
        if file is not None and (failed := self._finish(file)):
            raise failed

    def close(self) -> None:
        """Finish all files.

        Raises:
            SinkError: the last frames could not be written.
        """
        files, self._files = self._files, {}
        failed = [error for file in files.values() if (error := self._finish(file))]
        if failed:
            raise failed[0]

    def _start(self, source_id: str, image: NDArray[np.uint8]) -> _VideoFile:
        held = set(self._written.values()) - {source_id}
        if not self._per_source and held:
            raise SinkError(f"{self.path} already holds source {held.pop()}: use per_source for several")
        fps = self._nominal.get(source_id) or self._fps or DEFAULT_FPS
        path = self._new_path(source_id)
        self._written[path] = source_id
        return _VideoFile(path, image.shape[1], image.shape[0], fps, self._codec, self._options)

    def _new_path(self, source_id: str) -> Path:
        """Return a file that this run has not written: what a source gave before its end is kept."""
        first = path = self.path_for(source_id)
        number = 1
        while path in self._written:
            number += 1
            path = first.with_name(f"{first.stem}-{number}{first.suffix}")
        return path

    def _finish(self, file: _VideoFile) -> SinkError | None:
        try:
            file.close()
        except require("av").FFmpegError as error:
            return self._unwritable(file.path, error)
        return None

    @staticmethod
    def _unwritable(path: Path, error: Any) -> SinkError:
        reason = error.strerror or str(error)
        return SinkError(f"cannot write {path}: {reason}: choose a folder that exists, with write access and space")


class _VideoFile:
    """One file being written."""

    def __init__(self, path: Path, width: int, height: int, fps: float, codec: str, options: dict[str, str]) -> None:
        av = require("av")
        self._av = av
        self.path = path
        self._cv2 = require("cv2")
        self._size_wh = (width + width % 2, height + height % 2)
        self._rate = Fraction(fps).limit_denominator(MAX_FPS_DENOMINATOR)
        faststart = {"movflags": "+faststart"} if path.suffix.lower() != ".mkv" else {}
        self._container: Any = av.open(str(path), "w", options=faststart)
        self._stream: Any = self._container.add_stream(codec, rate=self._rate, options=options)
        self._stream.width, self._stream.height = self._size_wh
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = TIME_BASE
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = MPEG_RANGE
        self._step = max(1, round(1 / self._rate / TIME_BASE))
        self._first_pts_ns: int | None = None
        self._stream_epoch: int | None = None
        self._last = -self._step

    def write(self, image: NDArray[np.uint8], pts_ns: int | None, stream_epoch: int) -> None:
        """Encode one image at its stream time."""
        if stream_epoch != self._stream_epoch:
            self._stream_epoch, self._first_pts_ns = stream_epoch, None
        planes = self._cv2.cvtColor(self._fitted(image), self._cv2.COLOR_BGR2YUV_I420)
        frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = self._time_of(pts_ns)
        frame.time_base = TIME_BASE
        for packet in self._stream.encode(frame):
            packet.duration = packet.duration or self._step
            self._container.mux(packet)

    def close(self) -> None:
        """Write what the encoder holds, and the index; harmless when repeated."""
        container, self._container = self._container, None
        if container is None:
            return
        try:
            for packet in self._stream.encode(None):
                packet.duration = packet.duration or self._step
                container.mux(packet)
        finally:
            container.close()

    def _time_of(self, pts_ns: int | None) -> int:
        """Return the time in `TIME_BASE`: that of the stream, or the next one at the nominal rate; always rising.

        Where stream time starts anew (a camera reconnected) it goes on one frame after the last.
        """
        time = self._last + self._step
        if pts_ns is not None and self._first_pts_ns is not None:
            time = round((pts_ns - self._first_pts_ns) * TICKS_PER_S / NS_PER_S)
        if pts_ns is not None and (self._first_pts_ns is None or time <= self._last):
            time = self._last + self._step
            self._first_pts_ns = pts_ns - round(time * NS_PER_S / TICKS_PER_S)
        self._last = time
        return time

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image in the size of the file, contiguous."""
        width, height = self._size_wh
        if image.shape[:2] == (height, width):
            return np.ascontiguousarray(image)
        if image.shape[1] > width or image.shape[0] > height or width - image.shape[1] > 1:
            image = _resized(image, self._size_wh)
        canvas = np.full((height, width, 3), GREY, np.uint8)
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        return canvas


def _resized(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image as large as fits into a size, keeping its aspect."""
    scale = min(size_wh[0] / image.shape[1], size_wh[1] / image.shape[0])
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    resized: NDArray[np.uint8] = require("cv2").resize(image, (width, height))
    return resized
