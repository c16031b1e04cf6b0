"""The messages that travel on the wire, one struct per kind.

Compatibility: within a major version, fields are only added, always with a default, and readers ignore those that
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
    """The objects found on one frame; sent for every frame, even if there are none.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: wall clock at the start of the run, in ns: a new value means that the publisher restarted.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic: a gap is a loss in transit.
        frame_id: +1 per captured frame of the source: a gap is a frame that was not processed (see `dropped`).
        captured_utc_ns: wall clock of the capture.
        captured_source: how it is known (`arrival`: our clock after reading; `rtcp`: the camera's;
            `segment`: our clock when a frame of HLS was released, segments later than its capture; `file`: no clock).
        captured_error_ns: bound of its error, null if unknown.
        pts_ns: stream time, null if the source has none.
        published_utc_ns: wall clock when the message was handed to the socket.
        latency_ms: from capture to hand-over, by the monotonic clock.
        stage_ms: milliseconds per stage.
        width: pixels of the source frame.
        height: rows of the source frame.
        dropped: captured frames lost since the previous message of this source, by cause.
        model: name of the model file.
        objects: ordered by `track_id`.
        traceparent: W3C trace context of a traced frame (`tracing.every`); omitted for all others.
        pixel_aspect: width by height of a pixel; omitted if pixels are square.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.
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
    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET


class StatusMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A change in the state of a source; sizes and rates are null until they are known.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock when it was sent.
        state: `connecting`, `live`, `stalled`, `offline` or `ended`.
        reason: an explanation for humans; may be empty.
        uri: its address, without the password.
        is_live: whether it is a camera, which does not wait for its reader.
        width: pixels of a frame.
        height: rows of a frame.
        fps: nominal frames per second.
        frame_count: nominal length of a file.
        codec: FFmpeg's name for the codec.
        decoder: the decoder in use.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.
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
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET


class StatsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and times of one source, measured where messages are published.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock when it was sent.
        interval_s: period that `fps`, `latency_ms` and `stage_ms` cover.
        published: frames published since the start of the run.
        dropped: frames dropped since the start of the run, by cause.
        fps: frames published per second.
        latency_ms: `p50`, `p99` and `max` from capture to hand-over; empty if nothing was published.
        stage_ms: mean milliseconds per stage.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.
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
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET


class HeartbeatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Sent each second: shows that the publisher is alive, and how far each source has come.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        seq: +1 per heartbeat.
        published_utc_ns: wall clock when it was sent.
        interval_s: when to expect the next one; after three missing ones, assume that the publisher is dead.
        uptime_s: seconds since the start of the run.
        frame_seq: `seq` of the last frame message per source, from which a reader sees that it lost the latest ones.
        overflows: number of times that a message met a reader's full queue, by kind (see docs/wire.md).
        endpoints: further sockets of this publisher by name (`events`, `latest`, `snapshot`).
        replayed: whether the messages of this publisher were recorded earlier.
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
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock when it was sent.
        last_seq: `seq` of the source's last frame message, null if it had none.
        reason: an explanation for humans; may be empty.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.
    """

    schema: str = schema_of("eos")
    engine_id: str
    run_epoch: int
    source_id: str
    seq: Counter
    published_utc_ns: int
    last_seq: int | None = None
    reason: str = ""
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET


class ImageMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole frame as a JPEG, in a third part after the body; optional, at a limited rate.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock when it was sent.
        frame_id: the frame shown.
        captured_utc_ns: wall clock of its capture.
        width: pixels of the JPEG.
        height: rows of the JPEG.
        region: [x1, y1, x2, y2] of the source frame that is shown.
        blurred: classes that are blurred in the JPEG.
        jpeg: the third part, set by readers; never in the body.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.
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
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET


class CropMessage(ImageMessage, frozen=True, kw_only=True, omit_defaults=True):
    """The best crop of a new track in its first second, as a JPEG in a third part after the body.

    Attributes (with those of `ImageMessage`):
        track_id: id of the track shown.
        class_name: its class.
        score: of the detection shown.
    """

    track_id: int
    class_name: str
    score: float


class SnapshotMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of every source: the snapshot socket answers with it, and the latest socket sends it.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        seq: +1 per snapshot made.
        published_utc_ns: wall clock when it was made.
        frames: the last frame message of each source.
        statuses: the last state of each source.
        analytics: the last totals of each source with zones, lines or rules; omitted if there are none.
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
