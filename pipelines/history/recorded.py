"""Finds a source's recordings and plays them: coded images pass unchanged, in fragmented MP4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from engine.clock import NS_PER_S
from engine.errors import ConfigError, EngineError
from engine.events.media.timeline import Segment, SegmentReader, segments_between
from engine.sinks.camera_video.keyframe_index import NS_PER_US
from engine.video.coded.fmp4 import fragment, init_segment
from engine.video.coded.nal import ParameterSets, sets_in_header, units_of
from engine.video.explain import explain, video_errors
from engine.video.timing.access_units import CODECS

JOIN_NS = 1_500_000_000
"""Two recordings with a gap no longer than this appear as one."""
MAX_DURATION_US = 1_000_000
GUESSED_GROUP_NS = 2 * NS_PER_S


def recorded_between(folder: Path, begin_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Return the spans of wall clock that are recorded, in order, within a span."""
    found: list[tuple[int, int]] = []
    for segment in segments_between(folder, begin_ns, end_ns).segments:
        low, high = max(segment.began_ns, begin_ns), min(_end_ns(segment), end_ns)
        if high <= low:
            continue
        if found and low - found[-1][1] <= JOIN_NS:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return found


def _end_ns(segment: Segment) -> int:
    """Return where a recording ends; one being written extends by about one group of images."""
    last = segment.rows[-1]
    if last.kind == "end":
        return last.utc_ns
    keys = [row.utc_ns for row in segment.keyframes]
    return last.utc_ns + (keys[-1] - keys[-2] if len(keys) > 1 else GUESSED_GROUP_NS)


class _Picture(NamedTuple):
    packet: Any
    utc_ns: int
    decode_ns: int


def play(folder: Path, begin_ns: int, end_ns: int, tell: Callable[[dict[str, Any]], None], out: BinaryIO) -> None:
    """Write the recording from the keyframe before `begin_ns` up to `end_ns`, or to a change of the video format.

    Args:
        folder: of the source.
        begin_ns: wall clock of the first image to show.
        end_ns: wall clock at which it ends.
        tell: called first with `t0_ns`, the wall clock at which the time of the media is 0, `codec`, `width` and
            `height`.
        out: receives the MP4.

    Raises:
        ConfigError: nothing is recorded there, or browsers cannot play it.
        EngineError: the first recording cannot be read.
    """
    segments = segments_between(folder, begin_ns, end_ns).segments
    film: _Film | None = None
    for segment in segments:
        try:
            with SegmentReader(segment) as reader:
                sets = _sets_of(reader)
                if film is not None and film.sets != sets:
                    break
                for picture in _pictures(reader, begin_ns, end_ns):
                    if film is None:
                        context = reader.stream.codec_context
                        is_sized = bytes(context.extradata or b"")[:1] == b"\x01"
                        film = _Film(sets, picture.decode_ns, out, is_sized=is_sized)
                        size = {"width": context.width, "height": context.height}
                        tell({"t0_ns": picture.decode_ns, "codec": sets.name, **size})
                        out.write(init_segment(sets, context.width, context.height))
                    film.take(picture)
        except EOFError:
            continue  # the file is so new that it is still empty
        except (BrokenPipeError, ConfigError):
            raise
        except video_errors() as error:
            if film is None:
                raise EngineError(f"{segment.path.name} cannot be read: {explain(error)}") from error
    if film is None:
        raise ConfigError("there is no recording of this time")
    film.finish()


def _sets_of(reader: SegmentReader) -> ParameterSets:
    context = reader.stream.codec_context
    if context.name not in CODECS:
        raise ConfigError(f"it is recorded as {context.name}, which browsers cannot play: expected H.264 or H.265")
    sets = sets_in_header(context.name, bytes(context.extradata or b""))
    if not sets.is_complete:
        raise ConfigError("the recording has no parameter sets in its head")
    return sets


def _pictures(reader: SegmentReader, begin_ns: int, end_ns: int) -> Iterator[_Picture]:
    segment = reader.segment
    for packet, time_us in reader.packets_from(segment.keyframe_before(begin_ns)):
        utc_ns = segment.utc_ns(time_us)
        delay = (packet.pts - packet.dts) * packet.time_base if packet.dts is not None else 0
        decode_ns = utc_ns - int(delay * NS_PER_S)
        if decode_ns >= end_ns:
            return
        yield _Picture(packet, utc_ns, decode_ns)


class _Film:
    """Fragments on one timeline that starts at the first image's decode time; gaps stay gaps."""

    def __init__(self, sets: ParameterSets, t0_ns: int, out: BinaryIO, *, is_sized: bool) -> None:
        self.sets, self._is_sized = sets, is_sized
        self._t0_ns, self._out = t0_ns, out
        self._waiting: tuple[int, int, bytes, bool] | None = None
        self._number, self._duration_us = 0, MAX_DURATION_US // 10

    def take(self, picture: _Picture) -> None:
        """Write the previous image, whose duration is now known."""
        at_us = max((picture.decode_ns - self._t0_ns) // NS_PER_US, 0)
        if self._waiting is not None:
            at_us = max(at_us, self._waiting[0] + 1)
            self._duration_us = min(at_us - self._waiting[0], MAX_DURATION_US)
        self.finish()
        shift_us = max((picture.utc_ns - picture.decode_ns) // NS_PER_US, 0)
        sample = self.sets.shown(units_of(bytes(picture.packet), is_sized=self._is_sized))
        self._waiting = at_us, shift_us, sample, bool(picture.packet.is_keyframe)

    def finish(self) -> None:
        """Write the waiting image."""
        if self._waiting is None:
            return
        self._number += 1
        at_us, shift_us, sample, is_key = self._waiting
        self._waiting = None
        self._out.write(
            fragment(self._number, sample, dts=at_us, shift=shift_us, duration=self._duration_us, is_key=is_key)
        )
