"""Recordings made from encoded clips, and what a player shows of the clips cut from them."""

from __future__ import annotations

from pathlib import Path

import av

from engine.clock import NS_PER_S
from engine.sinks.camera_video.segments import Captured, SegmentFolder, SegmentWriter
from engine.sources.synthetic import number_in_image
from tests.media import encode_clip, numbered_images

UTC_NS = 1_700_000_000 * NS_PER_S
FPS = 25


def record(
    clip: Path, folder: Path, *, after_s: float = 0.0, container: str = "mp4", segment: slice = slice(None)
) -> None:
    """Write a clip into a recording; its frame 0 was captured `after_s` after `UTC_NS`."""
    writer = SegmentWriter(SegmentFolder(str(folder), segment_s=1000, container=container))
    with av.open(str(clip)) as given:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size][segment]
        for packet in packets:
            at_ns = UTC_NS + round((float(packet.pts * packet.time_base) + after_s) * NS_PER_S)
            writer.write(packet, stream, Captured(at_ns, "rtcp"))
        writer.close()


def shown(path: Path) -> list[tuple[int | None, float]]:
    """Return number and time of each frame that a player shows."""
    with av.open(str(path)) as container:
        return [
            (number_in_image(frame.to_ndarray(format="bgr24")), float(frame.pts * frame.time_base))
            for frame in container.decode(video=0)
        ]


def numbered_clip(folder: Path) -> Path:
    """Encode ten seconds of numbered frames with a keyframe every two seconds."""
    images = numbered_images(250, width=160, height=120)
    options = {"g": "50", "sc_threshold": "0", "preset": "ultrafast", "bf": "0"}
    return encode_clip(folder / "numbered.mp4", images, options=options)
