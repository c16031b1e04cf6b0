"""Tries decoders from the best one down to the CPU: one that cannot be opened or delivers nothing yields to the next.

A decoder counts as working once it has delivered a frame. Imports no numpy: the reader process uses it too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

from engine.video.address import VideoAddress
from engine.video.decode import VideoReader
from engine.video.explain import explain, video_errors
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.hardware import CPU, DEVICE_TYPES, why_not_device
from engine.video.pace.polling import PolledVideo

logger = logging.getLogger(__name__)
JETSON = "jetson"


class OpenVideo(Protocol):
    """An opened video; read and closed on one thread."""

    packets: int
    failure: Exception | None

    @property
    def facts(self) -> dict[str, Any]:
        """Width, height, fps, frame_count, codec, decoder, pixel_aspect and duration_s, None where unknown."""

    @property
    def indexed_packets(self) -> int | None:
        """Packets listed in the index, None if the index is missing or not exact."""

    def frames(self) -> Iterator[DecodedFrame | MissingFrames]:
        """Yield decoded frames and the damage between them until the end; `failure` holds the error, if any."""

    def delivers(self) -> bool:
        """Return whether the video really delivers a frame; `frames` yields what this call has read."""

    def close(self) -> None:
        """Close the video; harmless when repeated."""


def with_fallbacks(decoder: str) -> tuple[str, ...]:
    """Return the decoders to try, best first; the CPU is always the last.

    >>> with_fallbacks("cpu")
    ('cpu',)
    """
    wanted = (JETSON, *DEVICE_TYPES) if decoder == "auto" else (decoder,)
    steps = [name for name in wanted if name != CPU and _is_possible(name, must_say=decoder != "auto")]
    return (*steps, CPU)


def _is_possible(decoder: str, *, must_say: bool) -> bool:
    reason = why_not(decoder)
    if reason is not None and must_say:
        logger.warning("%s; decoding on the CPU", reason)
    return reason is None


def why_not(decoder: str) -> str | None:
    """Return why a decoder cannot be used on this machine and what to do; None if it may work.

    >>> why_not("cpu") is None
    True
    """
    if decoder == JETSON:
        from engine.video.gstreamer import why_not_gstreamer

        return why_not_gstreamer()
    return why_not_device(decoder)


def open_video(target: VideoAddress) -> OpenVideo:
    """Return an opened video with the best decoder that delivers frames; the CPU is not tested.

    Raises:
        av.error.FFmpegError, OSError, ValueError, RuntimeError: it cannot be opened; `explain` says why.
    """
    if target.poll_s is None:
        return _best(target)
    return PolledVideo(_best(target), lambda: _best(target), target.poll_s, always=target.is_snapshot)


def _best(target: VideoAddress) -> OpenVideo:
    steps = [step for name in target.decoders for step in with_fallbacks(name)]
    for decoder, following in pairwise(steps):
        reason = "it delivers no frame"
        try:
            reader = _open(target, decoder)
            if reader.delivers():
                return reader
            reader.close()
        except video_errors() as error:
            reason = explain(error)
        logger.warning("%s does not decode this stream (%s); trying %s", decoder, reason, following)
    return VideoReader(target)


def _open(target: VideoAddress, decoder: str) -> OpenVideo:
    if decoder == JETSON:
        from engine.video.gst_reader import open_jetson

        return open_jetson(target)
    return VideoReader(target, decoder)
