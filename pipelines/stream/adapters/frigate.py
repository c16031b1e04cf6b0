"""Frigate's `frigate/events`: `new`, `update` and `end` per track, sent on change rather than per frame.

The form is that documented for Frigate 0.18. Boxes are pixels of the source frame, because this engine has no separate
detect size. Not represented: everything per frame. Always empty, because this stream lacks them: zones, sub labels,
attributes, snapshots, clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.clock import NS_PER_S
from engine.wire import FrameMessage, TrackedObject

END_AFTER_S = 5.0
BETTER_SCORE = 0.05


@dataclass(frozen=True, slots=True)
class FrigateTrack:
    """What the events of one track need to remember.

    Attributes:
        first_utc_ns: capture time of the first frame.
        last_utc_ns: capture time of the last frame.
        top_score: best score so far.
        told: the object in the last event.
    """

    first_utc_ns: int
    last_utc_ns: int
    top_score: float
    told: Mapping[str, Any]


Tracks = Mapping[int, FrigateTrack]


def frigate_events(
    tracks: Tracks, message: FrameMessage, *, end_after_s: float = END_AFTER_S, better_score: float = BETTER_SCORE
) -> tuple[list[dict[str, Any]], Tracks]:
    """Return the events that a frame causes, and the state for the next frame of this source.

    Args:
        tracks: the state that the previous call returned; empty at the start of a run.
        message: the next frame of the source.
        end_after_s: a track not seen for this long has ended.
        better_score: send an `update` when the best score rises by this much.
    """
    now_ns = message.captured_utc_ns
    events: list[dict[str, Any]] = []
    following = dict(tracks)
    for found in message.objects:
        if found.track_id >= 0:
            event, following[found.track_id] = _seen(tracks.get(found.track_id), found, message, better_score)
            events += [event] if event else []
    for track_id, track in tracks.items():
        if following[track_id] is track and now_ns - track.last_utc_ns > end_after_s * NS_PER_S:
            after = {**track.told, "end_time": track.last_utc_ns / NS_PER_S}
            events.append({"type": "end", "before": dict(track.told), "after": after})
            del following[track_id]
    return events, following


def _seen(
    track: FrigateTrack | None, found: TrackedObject, message: FrameMessage, better_score: float
) -> tuple[dict[str, Any] | None, FrigateTrack]:
    now_ns = message.captured_utc_ns
    if track is None:
        told = _object(found, message, now_ns, found.score)
        return {"type": "new", "before": told, "after": told}, FrigateTrack(now_ns, now_ns, found.score, told)
    top_score = max(track.top_score, found.score)
    told = _object(found, message, track.first_utc_ns, top_score)
    if top_score < track.told["top_score"] + better_score:
        return None, replace(track, last_utc_ns=now_ns, top_score=top_score)
    event = {"type": "update", "before": dict(track.told), "after": told}
    return event, FrigateTrack(track.first_utc_ns, now_ns, top_score, told)


def _object(found: TrackedObject, message: FrameMessage, first_utc_ns: int, top_score: float) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(value) for value in found.xyxy)
    return {
        "id": f"{first_utc_ns / NS_PER_S:.6f}-{message.run_epoch % 46_656:x}t{found.track_id}",
        "camera": message.source_id,
        "frame_time": message.captured_utc_ns / NS_PER_S,
        "label": found.class_name,
        "sub_label": None,
        "top_score": top_score,
        "score": found.score,
        "false_positive": False,
        "start_time": first_utc_ns / NS_PER_S,
        "end_time": None,
        "box": [x1, y1, x2, y2],
        "area": (x2 - x1) * (y2 - y1),
        "ratio": round((x2 - x1) / max(y2 - y1, 1), 2),
        "region": [0, 0, message.width, message.height],
        "current_zones": [],
        "entered_zones": [],
        "attributes": {},
        "current_attributes": [],
        "has_snapshot": False,
        "has_clip": False,
        "active": not found.predicted,
        "stationary": False,
    }
