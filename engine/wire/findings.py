"""Converts analytics findings to messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from engine.data import Packet, Run
from engine.wire.convert import owner_of
from engine.wire.scene import AnalyticsMessage, EventMessage, RuleState, Scalar

if TYPE_CHECKING:
    from engine.analytics.findings import Finding
    from engine.analytics.view import View

PIXEL_DECIMALS = 2
SCORE_DECIMALS = 4
SECONDS_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """The place of findings in a source's stream, and how its scene time becomes wall clock.

    Attributes:
        source_id: the source.
        stream_epoch: of the stream.
        utc_offset_ns: wall clock minus scene time: of the capture for a camera; for a file, the start of the run.
        frame_id: frame on which they were found; None if the source ended.
    """

    source_id: str
    stream_epoch: int
    utc_offset_ns: int
    frame_id: int | None

    @classmethod
    def of(cls, packet: Packet) -> Moment:
        """Return the moment of a packet's frame."""
        frame = packet.frame
        return cls(frame.source_id, frame.stream_epoch, packet.scene_utc_ns - frame.scene_ns, frame.frame_id)


class EpisodeTimes:
    """Gives all messages of an episode or visit the wall clock of its beginning, whatever the clock does in between."""

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {}

    def offset_ns(self, finding: Finding, event_id: str, moment: Moment) -> int:
        """Return wall clock minus scene time for the beginning and the end of a finding's episode."""
        if finding.phase == "begin" or finding.event == "zone_entered":
            self._offsets[event_id] = moment.utc_offset_ns
        elif finding.phase == "end" or finding.event == "zone_left":
            return self._offsets.pop(event_id, moment.utc_offset_ns)
        return self._offsets.get(event_id, moment.utc_offset_ns)


def finding_id(finding: Finding, source_id: str, run: Run) -> str:
    """Return the `event_id`, which the messages about one episode or visit share."""
    if finding.rule:
        return f"{source_id}-{run.run_epoch}-{finding.rule}-{finding.number}"
    return f"{source_id}-{run.run_epoch}-{finding.place}-i{finding.identity or 0}-{finding.began_ns or 0}"


def finding_message(
    finding: Finding, moment: Moment, run: Run, *, seq: int, published_utc_ns: int, offset_ns: int | None = None
) -> EventMessage:
    """Return the wire message of a finding.

    Args:
        finding: what was found.
        moment: its place in the stream.
        run: the engine and run.
        seq: of the message.
        published_utc_ns: when it is sent.
        offset_ns: wall clock minus scene time for begin and end, see `EpisodeTimes`; None: that of the frame.
    """
    offset_ns = moment.utc_offset_ns if offset_ns is None else offset_ns

    def utc(ns: int | None) -> int | None:
        return None if ns is None else ns + offset_ns

    data: dict[str, Scalar] = {name: value for name, value in finding.data.items() if _is_scalar(value)}
    if finding.direction:
        data["direction"] = finding.direction
    duration = finding.duration_s
    return EventMessage(
        engine_id=run.engine_id,
        run_epoch=run.run_epoch,
        owner_epoch=owner_of(run),
        source_id=moment.source_id,
        stream_epoch=moment.stream_epoch,
        seq=seq,
        published_utc_ns=published_utc_ns,
        event=finding.event,
        event_id=finding_id(finding, moment.source_id, run),
        frame_id=moment.frame_id,
        captured_utc_ns=finding.captured_ns + moment.utc_offset_ns,
        track_id=finding.track_ids[0] if finding.track_ids else None,
        class_id=finding.class_id,
        class_name=finding.class_name or None,
        score=None if finding.score is None else round(finding.score, SCORE_DECIMALS),
        xyxy=None if finding.xyxy is None else [round(value, PIXEL_DECIMALS) for value in finding.xyxy],
        data=data,
        phase=finding.phase,
        rule=finding.rule or UNSET,
        rule_kind=finding.kind or UNSET,
        severity=finding.severity if finding.rule else UNSET,
        place=finding.place or UNSET,
        began_utc_ns=utc(finding.began_ns),
        ended_utc_ns=utc(finding.ended_ns),
        duration_s=None if duration is None else round(duration, SECONDS_DECIMALS),
        reason=finding.reason or UNSET,
        track_ids=_list(finding.track_ids),
        at=UNSET if finding.at is None else [round(value, PIXEL_DECIMALS) for value in finding.at],
        why=_list(finding.why),
    )


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _list(values: Iterable[Any]) -> list[Any] | UnsetType:
    return list(values) or UNSET


def analytics_message(view: View, moment: Moment, run: Run, *, seq: int, published_utc_ns: int) -> AnalyticsMessage:
    """Return the wire message with the totals of a source."""
    return AnalyticsMessage(
        engine_id=run.engine_id,
        run_epoch=run.run_epoch,
        owner_epoch=owner_of(run),
        source_id=moment.source_id,
        seq=seq,
        published_utc_ns=published_utc_ns,
        captured_utc_ns=view.captured_ns + moment.utc_offset_ns,
        zones={zone: view.occupancy_by_class(zone) if view.occupancy[zone] else {} for zone in view.zones},
        visits=dict(view.visits),
        lines={line: {name: dict(n) for name, n in counts.items()} for line, counts in view.class_totals.items()},
        since_utc_ns=view.since_utc_ns,
        blind_s=round(view.blind_ns / 1e9, SECONDS_DECIMALS),
        open=[finding_id(begin, moment.source_id, run) for begin in view.open],
        rules=_rules(view) or UNSET,
    )


def _rules(view: View) -> dict[str, RuleState]:
    count = Counter(begin.rule for begin in view.open)
    return {name: RuleState(severity=severity, open=count[name]) for name, severity in view.rules.items()}
