"""Validates the messages of a reader process: it parses untrusted data, which may have taken control of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from engine.process_log import LogLine, log_line_from
from engine.sources.live.reader_events import Finished, Opened

MAX_TEXT = 1000
MAX_SIDE = 1 << 24
MAX_COUNT = 1 << 53
FACTS = frozenset({"width", "height", "fps", "frame_count", "codec", "decoder", "pixel_aspect", "duration_s"})
PADDING_BYTES = 64_000_000
"""Largest total row padding: 64 bytes for each of the million rows of a frame one pixel wide."""


class ReaderMessageError(Exception):
    """A message that our reader never sends."""


@dataclass(frozen=True, slots=True)
class Room:
    """The process needs a ring for frames of `frame_bytes` bytes."""

    frame_bytes: int

    def check(self, max_pixels: int) -> None:
        """Raise `ReaderMessageError` if no frame of at most `max_pixels` needs this many bytes."""
        if not 0 < self.frame_bytes <= 3 * max_pixels + PADDING_BYTES:
            raise ReaderMessageError(f"it asked for frames of {self.frame_bytes} bytes")


def told_by_reader(message: bytes) -> Opened | Finished | Room | LogLine:
    """Return the parsed message. Raises `ReaderMessageError`.

    >>> told_by_reader(b'{"finished": "end of stream", "is_end": true}')
    Finished(reason='end of stream', is_end=True, is_fault=False)
    """
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ReaderMessageError("it sent a message that is not JSON") from error
    if not isinstance(fields, dict):
        raise ReaderMessageError("it sent a message that is not an object")
    if set(fields) == {"opened"} and isinstance(fields["opened"], dict):
        return Opened({name: _fact(name, value) for name, value in fields["opened"].items()})
    if set(fields) == {"room"}:
        return Room(int(_number("room", fields["room"], MAX_COUNT, whole=True)))
    if "log" in fields:
        return _log_line(fields)
    if {"finished", "is_end"} <= set(fields) <= {"finished", "is_end", "is_fault"}:
        is_end, is_fault = fields["is_end"], fields.get("is_fault", False)
        if isinstance(is_end, bool) and isinstance(is_fault, bool):
            return Finished(_text("finished", fields["finished"]), is_end, is_fault)
    raise ReaderMessageError(f"it sent an unknown message with {', '.join(sorted(fields))[:100]!r}")


def _log_line(fields: dict[str, Any]) -> LogLine:
    try:
        return log_line_from(fields)
    except ValueError as error:
        raise ReaderMessageError(f"it logged {error}") from error


def _fact(name: str, value: Any) -> Any:
    """Return a fact of `VideoReader.facts`, validated."""
    if value is None and name in (
        "width",
        "height",
        "fps",
        "frame_count",
        "codec",
        "decoder",
        "pixel_aspect",
        "duration_s",
    ):
        return None
    if name in ("width", "height"):
        return _number(name, value, MAX_SIDE, whole=True)
    if name == "frame_count":
        return _number(name, value, MAX_COUNT, whole=True)
    if name in ("fps", "pixel_aspect", "duration_s"):
        return float(_number(name, value, MAX_COUNT))
    if name in ("codec", "decoder"):
        return _text(name, value)
    raise ReaderMessageError(f"it reported an unknown fact {name[:100]!r}")


def _number(name: str, value: Any, most: int, *, whole: bool = False) -> Any:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not 0 < value <= most:
        raise ReaderMessageError(f"it reported {name} as {str(value)[:100]}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ReaderMessageError(f"it reported a {name} that is not a text of up to {MAX_TEXT} characters")
    return "".join(letter if letter.isprintable() else "?" for letter in value)
