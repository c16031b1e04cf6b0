"""Turns the findings of analytics into rows: episodes of rules, visits and crossings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from engine.analytics.findings import Finding
from engine.data import Run
from engine.events.store.rows import EventRow, FactRow
from engine.wire.findings import SECONDS_DECIMALS, EpisodeTimes, Moment, finding_id, finding_message
from engine.wire.scene import EventMessage

_KINDS = {"zone_entered": "visit", "zone_left": "visit", "line_crossed": "crossing", "places_changed": "places_changed"}
_FACTS = ("track_ids", "why", "data", "score", "xyxy", "at", "frame_id", "captured_utc_ns", "class_id", "stream_epoch")


class RowMaker:
    """Makes the rows of one source.

    Args:
        run: the engine and run.
        clip_severities: severities whose events want a clip.
    """

    def __init__(self, run: Run, clip_severities: Collection[str] = ()) -> None:
        self._run = run
        self._clip_severities = frozenset(clip_severities)
        self._times = EpisodeTimes()

    def row(self, finding: Finding, moment: Moment) -> EventRow | FactRow:
        """Return the row of a finding."""
        event_id = finding_id(finding, moment.source_id, self._run)
        offset_ns = self._times.offset_ns(finding, event_id, moment)
        began_ns = finding.captured_ns if finding.began_ns is None else finding.began_ns
        began_utc_ns = began_ns + offset_ns
        if finding.rule:
            message = finding_message(finding, moment, self._run, seq=0, published_utc_ns=0, offset_ns=offset_ns)
            return self._event(finding, message, began_ns, began_utc_ns)
        is_visit, duration_s = finding.event in ("zone_entered", "zone_left"), finding.duration_s
        ended_utc_ns = None if finding.ended_ns is None else finding.ended_ns + offset_ns
        return FactRow(
            fact_id=event_id,
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            source_id=moment.source_id,
            kind=_KINDS.get(finding.event, finding.event),
            place=finding.place,
            direction=finding.direction,
            class_name=finding.class_name,
            track_id=finding.track_ids[0] if finding.track_ids else -1,
            began_utc_ns=began_utc_ns,
            ended_utc_ns=ended_utc_ns if is_visit else began_utc_ns,
            began_scene_ns=began_ns,
            duration_s=None if duration_s is None else round(duration_s, SECONDS_DECIMALS),
            reason=finding.reason,
        )

    def _event(self, finding: Finding, message: EventMessage, began_ns: int, began_utc_ns: int) -> EventRow:
        is_point = finding.phase == "point"
        facts = {name: value for name in _FACTS if (value := _given(getattr(message, name))) is not None}
        return EventRow(
            event_id=message.event_id,
            engine_id=message.engine_id,
            run_epoch=message.run_epoch,
            source_id=message.source_id,
            rule=finding.rule,
            severity=finding.severity,
            place=finding.place,
            class_name=finding.class_name,
            phase=finding.phase,
            began_utc_ns=began_utc_ns,
            ended_utc_ns=began_utc_ns if is_point else _given(message.ended_utc_ns),
            began_scene_ns=began_ns,
            duration_s=0.0 if is_point else _given(message.duration_s),
            reason=finding.reason,
            facts=facts,
            clip_state="due" if finding.severity in self._clip_severities else "",
        )


def _given(value: Any) -> Any:
    return None if value is msgspec.UNSET else value
