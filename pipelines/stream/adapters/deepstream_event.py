"""DeepStream's full message (`nvmsgconv`, payload type 0) for what happens in a scene, with its `event.type`.

Types are those of DeepStream's schema: a zone or an episode that begins is an `entry`, its end an `exit`, a crossing
`moving`. Not represented: why, severity, the numbers of episodes, masks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.wire import EventMessage
from pipelines.stream.adapters.times import iso_utc

VERSION = "1.0"
_TYPES = {"zone_entered": "entry", "zone_left": "exit", "line_crossed": "moving"}
_PHASES = {"begin": "entry", "end": "exit", "point": "moving"}


def deepstream_event(message: EventMessage) -> dict[str, Any] | None:
    """Return the payload of an event, to be encoded as JSON; None for events that DeepStream cannot express."""
    of_rule = _PHASES.get(str(message.phase)) if _given(message.rule) else None
    kind = of_rule or _TYPES.get(message.event)
    if kind is None:
        return None
    utc_ns = message.captured_utc_ns or message.published_utc_ns
    place = _given(message.place) or ""
    return {
        "messageid": f"{message.event_id}-{message.seq}",
        "mdsversion": VERSION,
        "@timestamp": iso_utc(utc_ns),
        "place": {"id": place, "name": place, "type": "zone"},
        "sensor": {"id": message.source_id, "type": "Camera", "description": "", "location": {}, "coordinate": {}},
        "analyticsModule": {
            "id": _given(message.rule) or message.event,
            "description": message.event,
            "source": message.engine_id,
            "version": VERSION,
        },
        "object": _object(message),
        "event": {"id": message.event_id, "type": kind},
        "videoPath": "",
    }


def _object(message: EventMessage) -> dict[str, Any]:
    made: dict[str, Any] = {"id": "-1" if message.track_id is None else str(message.track_id)}
    if message.class_name:
        made[message.class_name] = {"confidence": message.score}
    if message.xyxy is not None:
        names = ("topleftx", "toplefty", "bottomrightx", "bottomrighty")
        made["bbox"] = dict(zip(names, message.xyxy, strict=True))
    return made


def _given(value: Any) -> Any:
    return None if value is msgspec.UNSET else value
