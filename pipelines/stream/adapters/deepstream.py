"""DeepStream's minimal message (`nvmsgconv`, payload type 1): one per frame, one text per object.

The form is that of DeepStream 9.1: `<track>|<left>|<top>|<right>|<bottom>|<label>|#|<confidence>`. Unlike
DeepStream's, `@timestamp` is the capture time, and every frame has a message.
Not represented: run and stream epoch, sequence number, pts, drops, stage times, age, predicted, the task fields.
"""

from __future__ import annotations

from typing import Any

from engine.wire import FrameMessage, TrackedObject
from pipelines.stream.adapters.times import iso_utc

VERSION = "4.0"
UNTRACKED_TEXT = "-1"


def deepstream_minimal(message: FrameMessage) -> dict[str, Any]:
    """Return the minimal payload of a frame, to be encoded as JSON."""
    return {
        "version": VERSION,
        "id": str(message.frame_id),
        "@timestamp": iso_utc(message.captured_utc_ns),
        "sensorId": message.source_id,
        "objects": [_object(each) for each in message.objects],
    }


def _object(found: TrackedObject) -> str:
    track = str(found.track_id) if found.track_id >= 0 else UNTRACKED_TEXT
    box = "|".join(f"{value:g}" for value in found.xyxy)
    label = found.class_name.replace("|", "_")
    return f"{track}|{box}|{label}|#|{found.score:g}"
