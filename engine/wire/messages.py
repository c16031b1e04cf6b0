"""The messages that travel on the wire, one struct per kind.

Compatibility: within a major version fields are only added, always with a default, and readers ignore those that
they do not know. Another major version is refused. Boxes are float pixels of the source frame, x2/y2 exclusive.
Times ending in `_utc_ns` are nanoseconds since 1970; JavaScript reads them with a precision of about 256 ns.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from engine.data import CapturedSource, SourceState

MAJOR = 1
MINOR = 0
TOPIC_ROOT = f"v{MAJOR}"
UNTRACKED = -1

Kind = Literal["frame", "status", "event", "stats", "heartbeat", "eos"]
TOPIC_KINDS: tuple[Kind, ...] = ("frame", "status", "event", "stats", "heartbeat", "eos")
Scalar = str | int | float | bool | None
Four = Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)]
Counter = Annotated[int, msgspec.Meta(ge=0)]


def schema_of(kind: str) -> str:
    """Return the schema name that this version writes for `kind`.

    >>> schema_of("frame")
    'framewire.frame/1.0'
    """
    return f"framewire.{kind}/{MAJOR}.{MINOR}"


class Rle(msgspec.Struct, frozen=True, gc=False):
    """A mask as run lengths in COCO's uncompressed form: columns first, starting with a run of zeros.

    Attributes:
        size: [height, width] of the source frame.
        counts: lengths of alternating runs of 0 and 1; they add up to height * width.
    """

    size: Annotated[list[Counter], msgspec.Meta(min_length=2, max_length=2)]
    counts: list[Counter]


class ClassScore(msgspec.Struct, frozen=True, gc=False):
    """One of the most likely classes of an object or frame."""

    class_id: int
    class_name: str
    score: float


class TrackedObject(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One object on one frame.

    Attributes:
        track_id: unique per source and run, never reused; -1 where no tracker runs.
        class_id: number of the class in the model.
        class_name: its name.
        score: 0 to 1, of the last detection.
        xyxy: [x1, y1, x2, y2] pixels of the source frame, to a hundredth of a pixel.
        age: frames since the track began.
        predicted: the box is the tracker's prediction: the detector did not see the object on this frame.
        mask: where the object is, for segmentation models.
        keypoints: [x, y, score] per keypoint, for pose models.
        xyxyxyxy: the four corners [x, y] of an oriented box.
        classes: the most likely classes, best first.

    The fields from `predicted` on are left out where they have their default.
    """

    track_id: int
    class_id: int
    class_name: str
    score: float
    xyxy: Four
    age: int = 1
    predicted: bool = False
    mask: Rle | None = None
    keypoints: list[list[float]] | None = None
    xyxyxyxy: list[list[float]] | None = None
    classes: list[ClassScore] | None = None


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
        captured_source: how it is known (`arrival`: our clock after reading; `rtcp`: the camera's; `file`: no clock).
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


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: a track that began or ended, a line that was crossed, a rule that fired.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        event: what happened, for example `track_ended` or `line_crossed`.
        event_id: unique per engine and run; the same for the beginning and the end of one happening.
        frame_id: the frame it was seen on, null where it belongs to none.
        captured_utc_ns: wall clock of that frame.
        track_id: whose it is, null where it belongs to no track.
        class_id: class of the track.
        class_name: its name.
        score: 0 to 1.
        xyxy: box at that moment.
        data: further facts, flat.
    """

    schema: str = schema_of("event")
    engine_id: str
    run_epoch: int
    source_id: str
    stream_epoch: int
    seq: Counter
    published_utc_ns: int
    event: str
    event_id: str
    frame_id: int | None = None
    captured_utc_ns: int | None = None
    track_id: int | None = None
    class_id: int | None = None
    class_name: str | None = None
    score: float | None = None
    xyxy: Four | None = None
    data: dict[str, Scalar] = {}


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


Message = FrameMessage | StatusMessage | EventMessage | StatsMessage | HeartbeatMessage | EosMessage | SnapshotMessage

MESSAGE_TYPES: dict[str, type[Message]] = {
    "frame": FrameMessage,
    "status": StatusMessage,
    "event": EventMessage,
    "stats": StatsMessage,
    "heartbeat": HeartbeatMessage,
    "eos": EosMessage,
    "snapshot": SnapshotMessage,
}
