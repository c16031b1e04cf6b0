"""The header of coded video on the media socket.

It is not part of the stream, and readers of the stream never see it.
"""

from __future__ import annotations

import msgspec

from engine.wire.objects import Counter
from engine.wire.version import schema_of


class VideoMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An init segment or a fragment of MP4, in a third part after the body.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera.
        seq: +1 per message of this topic: a gap is a loss, after which playing can begin at the next keyframe.
        published_utc_ns: wall clock when it was sent.
        codec: as browsers name it, for example `avc1.4D401F`.
        init: whether it is an init segment; it is repeated before each keyframe.
        key: whether playing can begin here.
        pts_ns: stream time of the image: that of its frame message.
        t0_ns: stream time at which the time of the media is 0; a different value means that the media starts over.
        start: which start of the media this belongs to: it counts up when the media's time starts over.
        captured_utc_ns: wall clock when the image arrived.
        width: pixels of an image.
        height: rows of an image.
    """

    schema: str = schema_of("video")
    engine_id: str
    run_epoch: int
    source_id: str
    seq: Counter
    published_utc_ns: int
    codec: str
    init: bool
    key: bool
    pts_ns: int
    t0_ns: int
    start: Counter = 0
    captured_utc_ns: int
    width: Counter
    height: Counter
