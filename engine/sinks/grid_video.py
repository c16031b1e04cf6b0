"""Writes one video of several cameras, synchronised side by side."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import Packet, Run, SourceStatus
from engine.errors import SinkError
from engine.imaging.grid import SIZE_WH, Grid
from engine.imaging.square import displayed
from engine.optional import require
from engine.paths import how_to_write
from engine.protocols import OutputFile, SinkBase
from engine.sinks.video_file import ENCODER, ENCODER_OPTIONS, VideoFile, video_path

MAX_WAITING = 64
FPS = 25.0
_GONE = ("offline", "stalled", "ended", "connecting")


@dataclass(slots=True, eq=False)
class _Source:
    """The images of a source waiting for the other sources, with their times since the first frame."""

    first_ns: int
    waiting: deque[tuple[int, NDArray[np.uint8]]] = field(default_factory=deque)
    newest_ns: int = 0
    is_gone: bool = False


class GridVideo(SinkBase):
    """Writes a grid of all sources to one file, at a constant rate.

    Cameras are aligned by capture time, files by the time since their start. Images wait for the slowest source, at
        most 64 per source. The video does not wait for a lost source: its last image stays, dimmed unless the source
        has ended.

    Args:
        path: `OUT.mp4`, also `.mkv` or `.mov`; replaced if it exists.
        draw: draws the image of a packet.
        names: the sources that have a place from the start.
        fps: images per second.
        size_wh: of the whole image.

    Raises:
        ConfigError: the file name has no suffix of a video container.
    """

    name = "video"
    blocking = True

    def __init__(
        self,
        path: str | Path,
        draw: Callable[[Packet], NDArray[np.uint8]],
        names: Sequence[str] = (),
        *,
        fps: float = FPS,
        size_wh: tuple[int, int] = SIZE_WH,
    ) -> None:
        self.path = video_path(path)
        self._draw, self._fps, self._size_wh = draw, fps, size_wh
        self._names = tuple(names)
        self._grid = Grid(names, size_wh)
        self._sources: dict[str, _Source] = {}
        self._first_live_ns: int | None = None
        self._file: VideoFile | None = None
        self._written = 0
        self._output: VideoFile | None = None

    def open(self, run: Run) -> None:
        """Check that the folder is writable. Raises `SinkError` if it is not."""
        require("av")
        self._grid, self._sources = Grid(self._names, self._size_wh), {}
        self._first_live_ns, self._written, self._output = None, 0, None
        try:
            tempfile.TemporaryFile(dir=self.path.parent).close()
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, packet: Packet) -> None:
        """Accept an image, and write up to the time that every source has reached.

        Raises `SinkError` if the disk is full.
        """
        frame = packet.frame
        source = self._sources.get(frame.source_id)
        if source is None:
            source = self._sources[frame.source_id] = _Source(self._first_ns(packet))
        source.is_gone = False
        source.newest_ns = max(frame.scene_ns - source.first_ns, source.newest_ns)
        source.waiting.append((source.newest_ns, displayed(self._draw(packet), frame.pixel_aspect)))
        self._write_reached()

    def status(self, status: SourceStatus) -> None:
        """Mark the image of a source as lost, and stop waiting for it."""
        source = self._sources.get(status.source_id)
        if status.state not in _GONE:
            return
        if source is None:
            self._grid.note(status.source_id, status.state)
            return
        source.is_gone = True
        if status.state != "ended":
            self._grid.note(status.source_id, status.state)

    def outputs(self) -> list[OutputFile]:
        """Return the file, with its number of images; may be called on any thread."""
        file = self._output
        return [] if file is None else [OutputFile(str(self.path), file.frames, file.is_complete)]

    def close(self) -> None:
        """Write everything waiting and finish the file. Raises `SinkError` if that fails."""
        for source in self._sources.values():
            source.is_gone = True
        self._write_until(max((source.newest_ns for source in self._sources.values()), default=-1))
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except (require("av").FFmpegError, OSError) as error:
                raise self._unwritable(error) from error

    def _first_ns(self, packet: Packet) -> int:
        """Return the scene time that counts as 0 for a source; it is the same for all cameras."""
        if packet.frame.captured_source == "file":
            return packet.frame.scene_ns
        if self._first_live_ns is None:
            self._first_live_ns = packet.frame.scene_ns
        return self._first_live_ns

    def _write_reached(self) -> None:
        """Write the images that no longer depend on a slower source, or that cannot wait any longer."""
        present = [source for source in self._sources.values() if not source.is_gone]
        has_all = all(name in self._sources for name in self._names)
        reached_ns = min((source.newest_ns for source in present), default=-1) if has_all else -1
        for source in self._sources.values():
            if len(source.waiting) > MAX_WAITING:
                reached_ns = max(reached_ns, source.waiting[len(source.waiting) - MAX_WAITING][0])
        self._write_until(reached_ns)

    def _write_until(self, reached_ns: int) -> None:
        while (at_ns := int(self._written * NS_PER_S / self._fps)) <= reached_ns:
            for name, source in self._sources.items():
                while source.waiting and source.waiting[0][0] <= at_ns:
                    self._grid.put(name, source.waiting.popleft()[1])
            self._encode(at_ns)
            self._written += 1

    def _encode(self, at_ns: int) -> None:
        try:
            if self._file is None:
                options = dict(ENCODER_OPTIONS)
                self._file = self._output = VideoFile(self.path, self._size_wh, self._fps, ENCODER, options)
            self._file.write(self._grid.picture(), at_ns, 0)
        except (require("av").FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> SinkError:
        reason = error.strerror or str(error)
        return SinkError(f"cannot write {self.path}: {reason}: {how_to_write(error)}")
