"""One frame of a recording as JPEG, at the size of the recording. Imports no numpy."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine.clock import NS_PER_S
from engine.events.media.cut import PART, check_room
from engine.events.media.names import with_facts
from engine.events.media.timeline import Segment, SegmentReader, segments_between
from engine.paths import FILE_MODE, make_folder
from engine.video.explain import explain, video_errors
from engine.video.orientation import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, UPRIGHT, orientation_of
from engine.video.sizes.displayed import displayed_wh, pixel_aspect_of

SEARCH_NS = NS_PER_S  # the frame at that moment may be in the next recording
QUANTIZER = "2"  # for FFmpeg's JPEG encoder: gives about as many bytes as quality 85 elsewhere


@dataclass(frozen=True, slots=True)
class StillWanted:
    """Which frame to store.

    Attributes:
        folder: recordings of the source.
        utc_ns: wall clock of the frame.
        path: of the JPEG.
        max_side: longer side in pixels; larger frames are scaled down.
        facts: comment to store in it.
    """

    folder: Path
    utc_ns: int
    path: Path
    max_side: int
    facts: str = ""


@dataclass(frozen=True, slots=True)
class Still:
    """The outcome: size of the file (0: there is none, see `reason`) and wall clock of the frame."""

    bytes: int = 0
    utc_ns: int = 0
    reason: str = ""


def still(wanted: StillWanted) -> Still:
    """Write the frame that a recording shows at a moment; never raises for the state of files on disk."""
    segments, _ = segments_between(wanted.folder, wanted.utc_ns, wanted.utc_ns + SEARCH_NS)
    if not segments:
        return Still(reason="there is no recording of this moment")
    try:
        frame, pixel_aspect, utc_ns = _frame_at(segments[0], wanted.utc_ns)
        if frame is None or abs(utc_ns - wanted.utc_ns) > SEARCH_NS:
            return Still(reason="there is no recording of this moment")
        return Still(
            write_file(wanted.path, with_facts(_jpeg(frame, pixel_aspect, wanted.max_side), wanted.facts)), utc_ns
        )
    except video_errors() as error:
        return Still(reason=explain(error))


def write_file(path: Path, data: bytes) -> int:
    """Write a file that other users cannot read, whole or not at all, and return its size. Raises `OSError`."""
    try:
        check_room(path.parent)
    except FileNotFoundError:
        make_folder(path.parent)
        check_room(path.parent)
    part = f"{path}{PART}"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
        finally:
            os.close(handle)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            os.unlink(part)
        raise
    return len(data)


def _frame_at(segment: Segment, utc_ns: int) -> tuple[Any, float, int]:
    """Return the decoded frame that is nearest to a moment, width by height of its pixels, and its time."""
    found: tuple[Any, float, int] = (None, 1.0, 0)
    with SegmentReader(segment) as reader:
        context, aspect = reader.stream.codec_context, float(pixel_aspect_of(reader.stream) or 1)
        for packet, time_us in reader.packets_from(segment.keyframe_before(utc_ns)):
            at_ns = segment.utc_ns(time_us)
            packet.pts = at_ns // 1000  # the decoder passes it through, even if frames are reordered
            for frame in context.decode(packet):
                if found[0] is None or abs(frame.pts * 1000 - utc_ns) < abs(found[2] - utc_ns):
                    found = (frame, aspect, frame.pts * 1000)
                elif frame.pts * 1000 > utc_ns:
                    return found
    return found


def _jpeg(stored: Any, pixel_aspect: float, max_side: int) -> bytes:
    """Return a frame as a JPEG, upright and with square pixels."""
    from av.codec import CodecContext

    orientation = orientation_of(stored)
    frame = _turned(stored, orientation)
    aspect = 1 / pixel_aspect if orientation & TRANSPOSE else pixel_aspect
    encoder: Any = CodecContext.create("mjpeg", "w")
    size_wh = displayed_wh(frame.width, frame.height, aspect, max_side)
    encoder.width, encoder.height = (max(2, side // 2 * 2) for side in size_wh)
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qscale": QUANTIZER, "qmin": QUANTIZER, "qmax": QUANTIZER}
    picture = frame.reformat(encoder.width, encoder.height, "yuvj420p", dst_color_range="JPEG")
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def _turned(frame: Any, orientation: int) -> Any:
    """Return a frame turned and mirrored by FFmpeg's filters, which need no numpy."""
    from av.filter import Graph

    if orientation == UPRIGHT:
        return frame
    graph = Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))]
    for bit, name in ((TRANSPOSE, "transpose=0"), (FLIP_ROWS, "vflip"), (FLIP_COLUMNS, "hflip")):
        if orientation & bit:
            nodes.append(graph.add(*name.partition("=")[::2]))
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()
