"""Findings of the analytics: one frozen object per fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engine.errors import ConfigError

Phase = Literal["begin", "update", "end", "point"]
Severity = Literal["info", "notice", "alert"]
PlaceEvent = Literal["zone_entered", "zone_left", "line_crossed", "places_changed"]
RuleEvent = Literal["rule_began", "rule_updated", "rule_ended"]

EVENT_OF_PHASE: dict[Phase, RuleEvent] = {
    "begin": "rule_began",
    "update": "rule_updated",
    "end": "rule_ended",
    "point": "rule_began",
}


def check_severity(where: str, severity: str) -> None:
    """Raise `ConfigError` unless the severity is one of the three."""
    if severity not in get_args(Severity):
        raise ConfigError(f"{where}: severity {severity!r}; expected one of: {', '.join(get_args(Severity))}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the scene. Times are scene time in ns, positions pixels of the frame.

    Attributes:
        event: `zone_entered`, `zone_left`, `line_crossed`, `places_changed`, `rule_began`, `rule_updated` or
            `rule_ended`.
        captured_ns: capture time of the frame that revealed it.
        phase: episodes have a `begin`, optional `update`s and an `end`; everything else is a `point`.
        rule: name of the rule; empty for a fact about a place.
        kind: of the rule, such as `loiter`; empty for a fact about a place.
        severity: of the rule.
        place: name of the zone or line.
        began_ns: when it actually began or happened: the first observation inside, or the moment the line was cut.
        ended_ns: when it actually ended; None while it is open.
        reason: why it ended, unless it ended on its own: `track_ended`, `engine_stopped`, …
        number: counter of the rule's episodes from 1, the same in `begin` and `end`.
        identity: of the object, stable across track id changes; None if the fact is about a place.
        track_ids: of the objects concerned.
        class_id: class of the object.
        class_name: name of that class.
        score: of its last detection.
        xyxy: its box.
        at: where it crossed.
        direction: of a crossing, by name.
        why: the facts behind it, as text.
        data: further facts by name.
    """

    event: str
    captured_ns: int
    phase: Phase = "point"
    rule: str = ""
    severity: Severity = "info"
    place: str = ""
    began_ns: int | None = None
    ended_ns: int | None = None
    reason: str = ""
    number: int = 0
    identity: int | None = None
    track_ids: tuple[int, ...] = ()
    class_id: int | None = None
    class_name: str = ""
    score: float | None = None
    xyxy: tuple[float, float, float, float] | None = None
    at: tuple[float, float] | None = None
    direction: str = ""
    why: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""

    @property
    def duration_s(self) -> float | None:
        """Seconds from the actual beginning to the actual end; None if it has not ended."""
        if self.began_ns is None or self.ended_ns is None:
            return None
        return (self.ended_ns - self.began_ns) / 1e9
