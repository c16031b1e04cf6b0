"""One message of each kind with every field set, and packets to make messages from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, Tracks
from engine.wire import (
    AnalyticsMessage,
    ClassScore,
    CropMessage,
    EosMessage,
    EventMessage,
    FrameMessage,
    HeartbeatMessage,
    ImageMessage,
    Message,
    Rle,
    SnapshotMessage,
    StatsMessage,
    StatusMessage,
    TrackedObject,
    schema_of,
)

UTC_NS = 1_790_000_000_000_000_000
RUN = Run("engine-1", UTC_NS, "yolo11n", ("person", "bicycle"))
INFO = SourceInfo("gate", "rtsp://gate/stream", True, 768, 576, 25.0, None, "h264", "libavcodec")


def packet(objects: int = 3, *, seq: int = 0, source_id: str = "gate", size_wh: tuple[int, int] = (768, 576)) -> Packet:
    """Return a packet with this many tracks, the same for the same arguments."""
    rng = np.random.default_rng(objects)
    corner = rng.uniform(0, 0.8 * min(size_wh), (objects, 2))
    xyxy = np.hstack([corner, corner + rng.uniform(8, max(8.5, 0.2 * min(size_wh)), (objects, 2))])
    rows = np.arange(objects)
    score, class_id = rng.uniform(0.3, 1, objects), rows % 2
    image: NDArray[np.uint8] = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
    frame = Frame(image, source_id, seq, seq * 40_000_000, UTC_NS + seq * 40_000_000, seq * 40_000_000, "file")
    return Packet(
        frame,
        Detections(xyxy, score, class_id),
        Tracks(xyxy, score, class_id, rows + 1, rows + 5, rows),
        RUN,
        {"queue": 0.25, "infer": 16.125, "track": 0.5},
        seq=seq,
        published_utc_ns=UTC_NS + seq * 40_000_000 + 20_000_000,
        latency_ms=20.5,
        dropped={"age": 1} if seq % 5 == 4 else {},
    )


def status(state: str = "live", source_id: str = "gate") -> SourceStatus:
    """Return a state of a camera."""
    info = SourceInfo(source_id, f"rtsp://{source_id}/stream", True, 768, 576, 25.0, None, "h264", "libavcodec")
    return SourceStatus(info, state, "")  # type: ignore[arg-type]


_PLAIN = TrackedObject(7, 0, "person", 0.91, [10.5, 20.25, 110.0, 220.75], 12)
_FULL = TrackedObject(
    8,
    1,
    "bicycle",
    0.5,
    [0.0, 0.0, 4.0, 2.0],
    3,
    predicted=True,
    mask=Rle([2, 4], [0, 3, 5]),
    keypoints=[[1.0, 1.5, 0.9], [2.0, 0.5, 0.25]],
    xyxyxyxy=[[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]],
    classes=[ClassScore(1, "bicycle", 0.5), ClassScore(0, "person", 0.125)],
    zones=["yard"],
    kmh=4.5,
    identity=6,
    parked=True,
    held=True,
)

SAMPLES: dict[str, Message] = {
    "frame": FrameMessage(
        engine_id="engine-1",
        run_epoch=UTC_NS,
        source_id="gate",
        stream_epoch=2,
        seq=41,
        frame_id=44,
        captured_utc_ns=UTC_NS + 1,
        captured_source="rtcp",
        captured_error_ns=2_000_000,
        pts_ns=1_760_000_000,
        published_utc_ns=UTC_NS + 34_000_000,
        latency_ms=34.125,
        stage_ms={"queue": 0.5, "infer": 16.25},
        width=768,
        height=576,
        dropped={"age": 2, "overflow": 1},
        model="yolo11n",
        objects=[_PLAIN, _FULL],
    ),
    "status": StatusMessage(
        engine_id="engine-1",
        run_epoch=UTC_NS,
        source_id="gate",
        stream_epoch=2,
        seq=3,
        published_utc_ns=UTC_NS + 5,
        state="live",
        reason="reconnected after 3 attempts",
        uri="rtsp://gate/stream",
        is_live=True,
        width=768,
        height=576,
        fps=25.0,
        frame_count=None,
        codec="h264",
        decoder="libavcodec",
    ),
    "event": EventMessage(
        engine_id="engine-1",
        run_epoch=UTC_NS,
        source_id="gate",
        stream_epoch=2,
        seq=0,
        published_utc_ns=UTC_NS + 6,
        event="track_ended",
        event_id="engine-1/1790000000/gate/7",
        frame_id=44,
        captured_utc_ns=UTC_NS + 1,
        track_id=7,
        class_id=0,
        class_name="person",
        score=0.875,
        xyxy=[1.0, 2.0, 3.0, 4.0],
        data={"zone": "door", "dwell_s": 2.5, "count": 3, "inside": True, "note": None},
        phase="end",
        rule="intruder",
        severity="alert",
        place="yard",
        began_utc_ns=UTC_NS,
        ended_utc_ns=UTC_NS + 2,
        duration_s=2.5,
        reason="track_ended",
        track_ids=[7, 9],
        at=[12.5, 40.0],
        why=["in yard for 2.04 s >= for_s 2"],
        snapshot="gate-1-intruder-7/trigger",
        clip="gate-1-intruder-7",
    ),
    "stats": StatsMessage(
        engine_id="engine-1",
        run_epoch=UTC_NS,
        source_id="gate",
        seq=9,
        published_utc_ns=UTC_NS + 7,
        interval_s=1.0,
        published=250,
        dropped={"age": 4},
        fps=25.0,
        latency_ms={"p50": 30.5, "p99": 41.0, "max": 44.25},
        stage_ms={"infer": 16.0},
    ),
    "heartbeat": HeartbeatMessage(
        engine_id="engine-1",
        run_epoch=UTC_NS,
        seq=10,
        published_utc_ns=UTC_NS + 8,
        interval_s=1.0,
        uptime_s=10.0,
        frame_seq={"gate": 41},
        overflows={"frame": 2},
        endpoints={"snapshot": "tcp://127.0.0.1:5556"},
        replayed=True,
    ),
    "eos": EosMessage(
        engine_id="engine-1",
        run_epoch=UTC_NS,
        source_id="gate",
        seq=0,
        published_utc_ns=UTC_NS + 9,
        last_seq=41,
        reason="end of file",
    ),
}
SAMPLES["analytics"] = AnalyticsMessage(
    engine_id="engine-1",
    run_epoch=UTC_NS,
    source_id="gate",
    seq=4,
    published_utc_ns=UTC_NS + 10,
    captured_utc_ns=UTC_NS + 1,
    zones={"yard": {"person": 2, "car": 1}, "street": {}},
    visits={"yard": 12, "street": 0},
    lines={"door": {"in": {"person": 8}, "out": {}}},
    since_utc_ns=UTC_NS,
    blind_s=1.5,
    open=["gate-1790000000000000000-intruder-7"],
)
SAMPLES["image"] = ImageMessage(
    schema=schema_of("image"),
    engine_id="engine-1",
    run_epoch=UTC_NS,
    source_id="gate",
    stream_epoch=2,
    seq=5,
    published_utc_ns=UTC_NS + 11,
    frame_id=44,
    captured_utc_ns=UTC_NS + 1,
    width=640,
    height=480,
    region=[0.0, 0.0, 768.0, 576.0],
    blurred=["person"],
)
SAMPLES["crop"] = CropMessage(
    schema=schema_of("crop"),
    engine_id="engine-1",
    run_epoch=UTC_NS,
    source_id="gate",
    stream_epoch=2,
    seq=1,
    published_utc_ns=UTC_NS + 12,
    frame_id=44,
    captured_utc_ns=UTC_NS + 1,
    width=112,
    height=220,
    region=[4.0, 10.0, 116.0, 230.0],
    track_id=7,
    class_name="person",
    score=0.875,
)
SAMPLES["snapshot"] = SnapshotMessage(
    engine_id="engine-1",
    run_epoch=UTC_NS,
    seq=2,
    published_utc_ns=UTC_NS + 10,
    frames=[SAMPLES["frame"]],  # type: ignore[list-item]
    statuses=[SAMPLES["status"]],  # type: ignore[list-item]
    last_seq={"v1/frame/gate/": 41, "v1/status/gate/": 3},
)
