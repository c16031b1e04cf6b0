"""Frigate's `frigate/reviews`: `new`, `update` and `end` of a time span that should be reviewed.

The form is that documented for Frigate 0.18. An episode of severity `alert` is an `alert`, any other a `detection`; a
point begins and ends at once. Not represented: why, the place in the image, the reason for an end. Always empty: sub
labels, audio; the thumbnail is the name of the event's image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.clock import NS_PER_S
from engine.wire import EventMessage

Reviews = Mapping[str, Mapping[str, Any]]
"""The last state of each open review, by `event_id`."""
MAX_OPEN = 10_000


def frigate_reviews(open_reviews: Reviews, message: EventMessage) -> tuple[list[dict[str, Any]], Reviews]:
    """Return the reviews that a message causes, and the open ones for the next message.

    Args:
        open_reviews: the result of the previous call; empty at the start of a run.
        message: the next event; an event without a rule causes no review.
    """
    if message.rule is msgspec.UNSET or not message.rule:
        return [], open_reviews
    before, after = open_reviews.get(message.event_id), _review(message)
    following = {event_id: told for event_id, told in open_reviews.items() if event_id != message.event_id}
    made = []
    if before is None:
        opened = {**after, "end_time": None}
        made.append({"type": "new", "before": opened, "after": opened})
        before = opened
    elif message.phase in ("begin", "update"):
        made.append({"type": "update", "before": dict(before), "after": after})
    if message.phase in ("end", "point"):
        made.append({"type": "end", "before": dict(before), "after": after})
    elif len(following) < MAX_OPEN:
        following[message.event_id] = after
    return made, following


def _review(message: EventMessage) -> dict[str, Any]:
    began_ns = _given(message.began_utc_ns) or message.captured_utc_ns or message.published_utc_ns
    ended_ns = began_ns if message.phase == "point" else _given(message.ended_utc_ns)
    tracks = _given(message.track_ids) or ([] if message.track_id is None else [message.track_id])
    place = _given(message.place)
    return {
        "id": message.event_id,
        "camera": message.source_id,
        "start_time": began_ns / NS_PER_S,
        "end_time": None if ended_ns is None else ended_ns / NS_PER_S,
        "severity": "alert" if message.severity == "alert" else "detection",
        "thumb_path": _given(message.snapshot) or "",
        "data": {
            "detections": [f"{message.run_epoch % 46_656:x}t{track_id}" for track_id in tracks],
            "objects": [message.class_name] if message.class_name else [],
            "sub_labels": [],
            "zones": [place] if place else [],
            "audio": [],
        },
    }


def _given(value: Any) -> Any:
    return None if value is msgspec.UNSET else value
