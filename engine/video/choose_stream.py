"""Chooses the main video stream of several: not the cover, thumbnail or preview. Imports no numpy."""

from __future__ import annotations

from typing import Any

_ASIDE = ("attached_pic", "still_image", "timed_thumbnails")
LONG_SHARE = 0.5  # fraction of the longest stream's duration: anything shorter is a preview or a cover


def film_of(streams: list[Any]) -> Any:
    """Return the stream of a file to decode: the largest of those that last as long as the file does.

    Covers and thumbnails (marked as such, or with a single frame) come last. Among equals the default stream wins, then
    the first. Muxers mark the first stream as the default unless configured otherwise, so size counts for more.

    Args:
        streams: `av` video streams that can be decoded, at least one.
    """
    longest_s = max(map(_seconds, streams))
    return max(streams, key=lambda stream: _rank(stream, longest_s))


def first_of(streams: list[Any]) -> Any:
    """Return the stream of a camera to decode: the first one that is not marked as a cover or thumbnail.

    Sizes are not known yet, and an HLS playlist lists its recommended variant first.
    """
    return next((stream for stream in streams if not _is_aside(stream)), streams[0])


def _rank(stream: Any, longest_s: float) -> tuple[bool, bool, int, bool]:
    context = stream.codec_context
    is_long = not stream.duration or _seconds(stream) >= LONG_SHARE * longest_s
    is_film = not _is_aside(stream) and stream.frames != 1
    return is_film, is_long, context.width * context.height, _is_marked(stream, "default")


def _seconds(stream: Any) -> float:
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _is_aside(stream: Any) -> bool:
    return any(_is_marked(stream, name) for name in _ASIDE)


def _is_marked(stream: Any, name: str) -> bool:
    """Return whether a stream has a disposition, which PyAV represents as flags."""
    disposition = getattr(stream, "disposition", 0)
    flag = getattr(type(disposition), name, None)
    return flag is not None and bool(disposition & flag)
