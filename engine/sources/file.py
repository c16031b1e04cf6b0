"""Video files in any codec that FFmpeg supports: every frame, in order, with exact stream times."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from engine.clock import SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceInfo
from engine.errors import SourceError
from engine.paths import utf8_text
from engine.redaction import public_address
from engine.sources.base import SourceBase
from engine.sources.first_frame import first_frame_wh
from engine.sources.live.pixels import lazy_image_from_frame
from engine.video.address import VideoAddress
from engine.video.explain import explain, video_errors
from engine.video.fallback import OpenVideo, open_video
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.orientation import TRANSPOSE
from engine.video.to_bgr import BgrConverter

logger = logging.getLogger(__name__)


class FileSource(SourceBase):
    """The frames of a video file.

    Frames that cannot be decoded, or that a truncated MP4 lacks, are reported as lost with cause `corrupt`.

    Args:
        target: the file and how to read it.
        source_id: its name.
        clock: time, for tests.
    """

    def __init__(self, target: VideoAddress, source_id: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(SourceInfo(source_id, utf8_text(public_address(target.url)), is_live=False), clock)
        self._target = target

    def frame_wh(self) -> tuple[int, int] | None:
        """Return columns and rows of the first frame, None if the beginning of the file has none."""
        return first_frame_wh(self._target)

    def _frames(self) -> Iterator[Frame]:
        reader = self._open()
        try:
            yield from self._read(reader)
        finally:
            reader.close()

    def _open(self) -> OpenVideo:
        try:
            reader = open_video(self._target)
        except video_errors() as error:
            raise SourceError(f"cannot open {self.info.uri}: {explain(error)}") from error
        facts = reader.facts
        facts.pop("duration_s")
        self._describe(**facts)
        return reader

    def _read(self, reader: OpenVideo) -> Iterator[Frame]:
        convert = BgrConverter()
        damaged = 0
        for item in reader.frames():
            if isinstance(item, MissingFrames):
                damaged += item.count
                self._lose(item.count, "corrupt")
            elif isinstance(item, DecodedFrame):
                is_turned = bool(convert.orientation(item.frame) & TRANSPOSE)
                yield self._frame(lazy_image_from_frame(item.frame, convert), item.stamp, is_turned=is_turned)
            if self._interrupted.is_set():
                return
        self._finish(reader, damaged)

    def _finish(self, reader: OpenVideo, damaged: int) -> None:
        """Count and report the frames missing at the end."""
        missing = max((reader.indexed_packets or 0) - reader.packets, 0)
        self._lose(missing, "corrupt")
        if reader.failure is not None:
            self._ending = f"reading stopped: {explain(reader.failure)}"
        if damaged or missing:
            self._ending = f"end of stream, {damaged} frames were damaged and {missing} are missing"
            logger.warning("%s: %d frames were damaged and %d are missing", self.info.uri, damaged, missing)
        if self._next_id == damaged + missing:
            reason = explain(reader.failure) if reader.failure is not None else "check that the file is complete"
            raise SourceError(f"{self.info.uri} has no frame that can be decoded: {reason}")
