"""Savant's frames as its JSON sink writes them: one `VideoFrame` per frame, one `EndOfStream` per end.

The fields are those in the source of savant-rs (February 2026); not tested against it.
Not represented: how the capture time is known and its error, drops, latency, keypoints, masks, predicted, class list.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from typing import Any

from engine.clock import NS_PER_MS
from engine.wire import EosMessage, FrameMessage, TrackedObject

NAMESPACE = "framewire"


def savant_frame(message: FrameMessage) -> dict[str, Any]:
    """Return the `VideoFrame` of a frame message; boxes become centre, width and height in pixels."""
    return {
        "schema": "VideoFrame",
        "source_id": message.source_id,
        "uuid": str(_time_ordered_uuid(message)),
        "creation_timestamp_ns": message.captured_utc_ns,
        "frame_num": message.frame_id,
        "previous_frame_seq_id": message.seq - 1 if message.seq else None,
        "width": message.width,
        "height": message.height,
        "time_base": [1, 1_000_000_000],
        "pts": message.pts_ns if message.pts_ns is not None else message.captured_utc_ns,
        "dts": None,
        "duration": None,
        "keyframe": None,
        "content": None,
        "transformations": [{"initial_size": [message.width, message.height]}],
        "attributes": [],
        "objects": [_object(number, each, message.model) for number, each in enumerate(message.objects)],
    }


def savant_end(message: EosMessage) -> dict[str, Any]:
    """Return the `EndOfStream` of a source."""
    return {"schema": "EndOfStream", "source_id": message.source_id}


def _object(number: int, found: TrackedObject, model: str) -> dict[str, Any]:
    box = _rotated(found.xyxyxyxy) if found.xyxyxyxy else _upright(found.xyxy)
    is_tracked = found.track_id >= 0
    return {
        "id": number,
        "parent_id": None,
        "namespace": model or NAMESPACE,
        "label": found.class_name,
        "draw_label": found.class_name,
        "detection_box": box,
        "confidence": found.score,
        "track_id": found.track_id if is_tracked else None,
        "track_box": box if is_tracked else None,
        "attributes": [],
    }


def _upright(xyxy: list[float]) -> dict[str, Any]:
    x1, y1, x2, y2 = xyxy
    return {"xc": (x1 + x2) / 2, "yc": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1, "angle": None}


def _rotated(corners: list[list[float]]) -> dict[str, Any]:
    (ax, ay), (bx, by), (cx, cy), _ = corners
    return {
        "xc": (ax + cx) / 2,
        "yc": (ay + cy) / 2,
        "width": math.hypot(bx - ax, by - ay),
        "height": math.hypot(cx - bx, cy - by),
        "angle": math.degrees(math.atan2(by - ay, bx - ax)),
    }


def _time_ordered_uuid(message: FrameMessage) -> uuid.UUID:
    """Return a version 7 UUID (RFC 9562) of the capture time, the same for the same message."""
    name = f"{message.engine_id}/{message.run_epoch}/{message.source_id}/{message.seq}"
    tail = hashlib.sha256(name.encode()).digest()[:10]
    value = ((message.captured_utc_ns // NS_PER_MS) & (2**48 - 1)) << 80 | int.from_bytes(tail, "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=value)
