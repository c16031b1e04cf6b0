"""Writes annotated video that browsers play: H.264 in MP4, with the times of the source."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Frame, Packet, Run, SourceStatus
from engine.errors import ConfigError, SinkError
from engine.optional import require
from engine.paths import how_to_write
from engine.protocols import OutputFile, SinkBase
from engine.sinks.video_file import ENCODER, ENCODER_OPTIONS, VideoFile, video_path

DEFAULT_FPS = 30.0

Draw = Callable[[Packet], NDArray[np.uint8]]


class VideoWriter(SinkBase):
    """Writes one video per source, frame for frame at the source's own times.

    A file plays up to its last frame but one even if the process is killed or the disk is full.

    Sizes are made even for H.264 by one grey column or row; if a source changes its size mid-stream, its frames are
    fitted into the first size. If a source has no times, its frames are spaced at its nominal rate (or `fps`).

    Args:
        path: `OUT.mp4`, also `.mkv` or `.mov`; replaced if it exists.
        per_source: write `OUT_<source_id>.mp4` for each source, because several cannot share a file; a source that
            comes back after its end gets `OUT_<source_id>-2.mp4`, and so on.
        first: the source that is still written to `OUT.mp4`.
        draw: draws the image to write from a packet (the overlay); None: the frame itself.
        fps: rate if the source has no times and no nominal rate; None: 30.
        codec: FFmpeg's name for the encoder.
        options: of the encoder, added to the defaults.

    Raises:
        ConfigError: the file name has no suffix of a video container.
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
        codec: str = ENCODER,
        options: dict[str, str] | None = None,
    ) -> None:
        self.path = video_path(path)
        if fps is not None and not 0 < fps <= 1000:
            raise ConfigError(f"fps is {fps}: give frames per second between 0 and 1000")
        self._per_source = per_source
        self._first = first
        self._draw = draw
        self._fps = fps
        self._codec = codec
        self._options = dict(ENCODER_OPTIONS) if codec == ENCODER else {}
        self._options.update(options or {})
        self._nominal: dict[str, float] = {}
        self._files: dict[str, VideoFile] = {}
        self._written: dict[Path, str] = {}
        self._outputs: dict[Path, VideoFile] = {}

    def path_for(self, source_id: str) -> Path:
        """Return the file that a source is first written to."""
        if not self._per_source or source_id == self._first:
            return self.path
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in source_id)
        return self.path.with_name(f"{self.path.stem}_{safe}{self.path.suffix}")

    def open(self, run: Run) -> None:
        """Check that the folder is writable; the files are created with the first frames.

        Raises:
            SinkError: it does not exist or is not writable, or the encoder is missing.
        """
        av = require("av")
        self._written.clear()
        self._outputs.clear()
        if self._codec not in av.codecs_available:
            raise SinkError(f"this FFmpeg has no encoder {self._codec}: choose another codec, mpeg4 for example")
        try:
            tempfile.TemporaryFile(dir=self.path.parent).close()
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
                file = self._files[source_id] = self._start(packet.frame, image)
            file.write(image, packet.frame.pts_ns, packet.frame.stream_epoch)
        except (require("av").FFmpegError, OSError) as error:
            raise self._unwritable(self.path_for(source_id) if file is None else file.path, error) from error

    def status(self, status: SourceStatus) -> None:
        """Store a source's rate, and finish its file when it ends."""
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

    def _start(self, frame: Frame, image: NDArray[np.uint8]) -> VideoFile:
        source_id = frame.source_id
        held = set(self._written.values()) - {source_id}
        if not self._per_source and held:
            raise SinkError(f"{self.path} already holds source {held.pop()}: use per_source for several")
        fps = self._nominal.get(source_id) or self._fps or DEFAULT_FPS
        path = self._new_path(source_id)
        self._written[path] = source_id
        size_wh, aspect = (image.shape[1], image.shape[0]), frame.pixel_aspect
        file = VideoFile(path, size_wh, fps, self._codec, self._options, pixel_aspect=aspect)
        self._outputs[path] = file
        return file

    def outputs(self) -> list[OutputFile]:
        """Return the files of this run, with the number of frames in each; may be called on any thread."""
        return [OutputFile(str(path), file.frames, file.is_complete) for path, file in list(self._outputs.items())]

    def _new_path(self, source_id: str) -> Path:
        """Return a file name that this run has not used, so that frames from before a source's end are kept."""
        first = path = self.path_for(source_id)
        number = 1
        while path in self._written:
            number += 1
            path = first.with_name(f"{first.stem}-{number}{first.suffix}")
        return path

    def _finish(self, file: VideoFile) -> SinkError | None:
        try:
            file.close()
        except (require("av").FFmpegError, OSError) as error:
            return self._unwritable(file.path, error)
        return None

    @staticmethod
    def _unwritable(path: Path, error: Any) -> SinkError:
        reason = error.strerror or str(error)
        return SinkError(f"cannot write {path}: {reason}: {how_to_write(error)}")
