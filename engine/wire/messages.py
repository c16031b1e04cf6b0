"""The messages that travel on the wire, one struct per kind.

Compatibility: within a major version fields are only added, always with a default, and readers ignore those that
they do not know. Another major version is refused. Boxes are float pixels of the source frame, x2/y2 exclusive.
Times ending in `_utc_ns` are nanoseconds since 1970; JavaScript reads them with a precision of about 256 ns.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.data import CapturedSource, SourceState
from engine.wire.objects import Counter, Four, TrackedObject
from engine.wire.scene import AnalyticsMessage, EventMessage
from engine.wire.version import schema_of

Kind = Literal["frame", "status", "event", "stats", "heartbeat", "eos", "image", "crop", "analytics"]
TOPIC_KINDS: tuple[Kind, ...] = ("frame", "status", "event", "stats", "heartbeat", "eos", "image", "crop", "analytics")


class FrameMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What was found on one frame; sent for every frame, also when nothing was found.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: wall clock at the start of the run, in ns: a new value means that the publisher restarted.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic: a gap is a loss on the way.
        frame_id: +1 per captured frame of the source: a gap is a frame that was not processed (see `dropped`).
        captured_utc_ns: wall clock of the capture.
        captured_source: how it is known (`arrival`: our clock after reading; `rtcp`: the camera's;
            `segment`: our clock when a frame of HLS was released, segments later than its capture; `file`: no clock).
        captured_error_ns: bound of its error, null where unknown.
        pts_ns: stream time, null where the source has none.
        published_utc_ns: wall clock of the hand-over to the socket.
        latency_ms: from capture to hand-over, by the monotonic clock.
        stage_ms: milliseconds per stage.
        width: pixels of the source frame.
        height: rows of the source frame.
        dropped: captured frames lost since the previous message of this source, by cause.
        model: name of the model file.
        objects: ordered by `track_id`.
        pixel_aspect: width by height of a pixel; left out where pixels are square.
    """

    schema: str = schema_of("frame")
    engine_id: str
    run_epoch: int
    source_id: str
    stream_epoch: int
    seq: Counter
    frame_id: Counter
    captured_utc_ns: int
    captured_source: CapturedSource
    captured_error_ns: int | None
    pts_ns: int | None
    published_utc_ns: int
    latency_ms: float
    stage_ms: dict[str, float]
    width: Counter
    height: Counter
    dropped: dict[str, Counter]
    model: str
    objects: list[TrackedObject]
    pixel_aspect: float | msgspec.UnsetType = msgspec.UNSET


class StatusMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A change in the state of a source; sizes and rates are null until they are known.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        state: `connecting`, `live`, `stalled`, `offline` or `ended`.
        reason: why, in words; may be empty.
        uri: where it reads, without password.
        is_live: a camera, that does not wait for its reader.
        width: pixels of a frame.
        height: rows of a frame.
        fps: nominal frames per second.
        frame_count: nominal length of a file.
        codec: FFmpeg's name of the codec.
        decoder: what decodes it.
    """

    schema: str = schema_of("status")
    engine_id: str
    run_epoch: int
    source_id: str
    stream_epoch: int
    seq: Counter
    published_utc_ns: int
    state: SourceState
    reason: str = ""
    uri: str = ""
    is_live: bool = False
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frame_count: int | None = None
    codec: str | None = None
    decoder: str | None = None


class StatsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and times of one source, as seen where messages are published.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        interval_s: time that `fps`, `latency_ms` and `stage_ms` speak of.
        published: frames published since the start of the run.
        dropped: frames dropped since the start of the run, by cause.
        fps: frames published per second.
        latency_ms: `p50`, `p99` and `max` from capture to hand-over; empty where nothing was published.
        stage_ms: mean milliseconds per stage.
    """

    schema: str = schema_of("stats")
    engine_id: str
    run_epoch: int
    source_id: str
    seq: Counter
    published_utc_ns: int
    interval_s: float
    published: Counter
    dropped: dict[str, Counter]
    fps: float
    latency_ms: dict[str, float]
    stage_ms: dict[str, float]


class HeartbeatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Sent each second: the publisher is alive, and how far each source has come.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        seq: +1 per heartbeat.
        published_utc_ns: wall clock of the sending.
        interval_s: when to expect the next one; after three without, take the publisher for dead.
        uptime_s: seconds since the start of the run.
        frame_seq: `seq` of the last frame message per source: a reader sees here that it lost the latest ones.
        overflows: how often a message met the full queue of some reader, by kind (see docs/wire.md).
        endpoints: further sockets of this publisher by name (`events`, `latest`, `snapshot`).
        replayed: what this publisher sends was recorded earlier.
    """

    schema: str = schema_of("heartbeat")
    engine_id: str
    run_epoch: int
    seq: Counter
    published_utc_ns: int
    interval_s: float
    uptime_s: float
    frame_seq: dict[str, Counter]
    overflows: dict[str, Counter] = {}
    endpoints: dict[str, str] = {}
    replayed: bool = False


class EosMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The last message of a source in this run.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        last_seq: `seq` of the source's last frame message, null where it had none.
        reason: why it ended, in words; may be empty.
    """

    schema: str = schema_of("eos")
    engine_id: str
    run_epoch: int
    source_id: str
    seq: Counter
    published_utc_ns: int
    last_seq: int | None = None
    reason: str = ""


class ImageMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture of a whole frame, as a JPEG in a third part behind the body; sent by choice, at a limited rate.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        frame_id: the frame shown.
        captured_utc_ns: wall clock of its capture.
        width: pixels of the JPEG.
        height: rows of the JPEG.
        region: [x1, y1, x2, y2] of the source frame that is shown.
        blurred: classes made unrecognisable in the picture.
        jpeg: the third part, set by readers; never in the body.
    """

    schema: str
    engine_id: str
    run_epoch: int
    source_id: str
    stream_epoch: int
    seq: Counter
    published_utc_ns: int
    frame_id: Counter
    captured_utc_ns: int
    width: Counter
    height: Counter
    region: Four
    blurred: list[str] = []
    jpeg: bytes = b""


class CropMessage(ImageMessage, frozen=True, kw_only=True, omit_defaults=True):
    """The best picture of a new track in its first second, as a JPEG in a third part behind the body.

    Attributes (with those of `ImageMessage`):
        track_id: whose picture it is.
        class_name: its class.
        score: of the detection shown.
    """

    track_id: int
    class_name: str
    score: float


class SnapshotMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything stands: the answer of the snapshot socket, and what the latest socket sends.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        seq: +1 per snapshot made.
        published_utc_ns: wall clock of the making.
        frames: the last frame message of each source.
        statuses: the last state of each source.
        analytics: the last totals of each source with zones, lines or rules; left out where there are none.
        last_seq: `seq` of the last message by topic: live messages after those continue from here.
    """

    schema: str = schema_of("snapshot")
    engine_id: str
    run_epoch: int
    seq: Counter
    published_utc_ns: int
    frames: list[FrameMessage]
    statuses: list[StatusMessage]
    last_seq: dict[str, Counter]
    analytics: list[AnalyticsMessage] | msgspec.UnsetType = msgspec.UNSET


Message = (
    FrameMessage
    | StatusMessage
    | EventMessage
    | StatsMessage
    | HeartbeatMessage
    | EosMessage
    | ImageMessage
    | CropMessage
    | SnapshotMessage
    | AnalyticsMessage
)

MESSAGE_TYPES: dict[str, type[Message]] = {
    "frame": FrameMessage,
    "status": StatusMessage,
    "event": EventMessage,
    "stats": StatsMessage,
    "heartbeat": HeartbeatMessage,
    "eos": EosMessage,
    "image": ImageMessage,
    "crop": CropMessage,
    "snapshot": SnapshotMessage,
    "analytics": AnalyticsMessage,
}
