"""Reads the size of a video file's frames from its beginning, before the run."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from typing import Any

from engine.video.address import VideoAddress
from engine.video.choose_stream import film_of
from engine.video.decode import open_container
from engine.video.explain import explain, video_errors
from engine.video.orientation import TRANSPOSE, orientation_of

logger = logging.getLogger(__name__)
MAX_PACKETS = 200
"""Maximum number of packets read to find a frame, so that a damaged file does not delay the start."""


def first_frame_wh(target: VideoAddress) -> tuple[int, int] | None:
    """Return columns and rows of the first frame of a file, turned upright; None if it has none near its beginning.

    Only local files are read, because a playlist may refer to hosts that do not answer.
    """
    target = replace(target, ffmpeg={**target.ffmpeg, "protocol_whitelist": "file"})
    try:
        with open_container(target) as container:
            frame = _first_frame(container, target)
    except video_errors() as error:  # the source reports it when it is read
        logger.debug("the frame size of %s is unknown: %s", target.url, explain(error))
        return None
    if frame is None:
        return None
    is_turned = orientation_of(frame) & TRANSPOSE
    return (frame.height, frame.width) if is_turned else (frame.width, frame.height)


def _first_frame(container: Any, target: VideoAddress) -> Any:
    """Return the first frame that can be decoded, None if there is none among the first packets."""
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        return None
    film = film_of(streams)
    film.codec_context.options = {"max_pixels": str(target.max_pixels)}
    for packet in islice(container.demux(), MAX_PACKETS):
        if packet.stream.index == film.index:
            for frame in packet.decode():
                return frame
    return None
