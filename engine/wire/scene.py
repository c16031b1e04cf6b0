"""The messages about events in a scene, and the totals of zones and lines."""

from __future__ import annotations

from typing import Annotated

import msgspec

from engine.analytics.findings import Phase, Severity
from engine.wire.objects import Counter, Four
from engine.wire.version import schema_of

Scalar = str | int | float | bool | None
Two = Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: a track that began or ended, a line that was crossed, a rule that fired.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock when it was sent.
        event: what happened, for example `track_ended` or `line_crossed`.
        event_id: unique per engine and run; the messages about one episode share it.
        frame_id: the frame on which it happened, null if there is none.
        captured_utc_ns: wall clock of that frame; for a file, here and below, the run's start plus stream time.
        track_id: id of the track, null if it does not belong to one.
        class_id: class of the track.
        class_name: its name.
        score: 0 to 1.
        xyxy: box at that moment.
        data: further facts, without nesting.
        phase: `begin`, `update` or `end` of an episode, or `point`.
        rule: name of the rule, empty for a fact about a zone or line.
        severity: `info`, `notice` or `alert`.
        place: name of the zone or line.
        began_utc_ns: wall clock of its actual start: the first observation inside, or the crossing of the line.
        ended_utc_ns: wall clock of its actual end, null while it continues.
        duration_s: between the two.
        reason: why it ended, if not by itself.
        track_ids: all tracks concerned.
        at: [x, y] where a line was crossed.
        why: the facts that caused it, in words.
        snapshot: name of the image that belongs to it.
        clip: name of the clip that belongs to it.
        rule_kind: kind of the rule, such as `loiter`.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.

    The fields from `phase` on are omitted if they do not apply.
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
    phase: Phase | msgspec.UnsetType = msgspec.UNSET
    rule: str | msgspec.UnsetType = msgspec.UNSET
    severity: Severity | msgspec.UnsetType = msgspec.UNSET
    place: str | msgspec.UnsetType = msgspec.UNSET
    began_utc_ns: int | msgspec.UnsetType | None = msgspec.UNSET
    ended_utc_ns: int | msgspec.UnsetType | None = msgspec.UNSET
    duration_s: float | msgspec.UnsetType | None = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    track_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    at: Two | msgspec.UnsetType = msgspec.UNSET
    why: list[str] | msgspec.UnsetType = msgspec.UNSET
    snapshot: str | msgspec.UnsetType = msgspec.UNSET
    clip: str | msgspec.UnsetType = msgspec.UNSET
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET
    rule_kind: str | msgspec.UnsetType = msgspec.UNSET


class RuleState(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of a source.

    Attributes:
        severity: of its events.
        open: number of its episodes in progress.
    """

    severity: Severity
    open: Counter


class AnalyticsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of the zones and lines of a source; sent when they change, at most twice a second, and every 10 s.

    Attributes:
        schema: name and version of this message.
        engine_id: the engine that sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock when it was sent.
        captured_utc_ns: wall clock of the frame that it describes.
        zones: objects inside now, by zone and class.
        visits: visits since the totals began, by zone.
        lines: crossings since the totals began, by line, direction and class.
        since_utc_ns: wall clock at which the totals began, null if unknown.
        blind_s: seconds without live frames since then.
        open: `event_id` of the episodes in progress.
        rules: the rules of the source by name; omitted if there are none.
        owner_epoch: rises each time that a fleet hands the source to another engine; omitted outside a fleet.
    """

    schema: str = schema_of("analytics")
    engine_id: str
    run_epoch: int
    source_id: str
    seq: Counter
    published_utc_ns: int
    captured_utc_ns: int
    zones: dict[str, dict[str, Counter]]
    visits: dict[str, Counter]
    lines: dict[str, dict[str, dict[str, Counter]]]
    since_utc_ns: int | None
    blind_s: float
    open: list[str]
    rules: dict[str, RuleState] | msgspec.UnsetType = msgspec.UNSET
    owner_epoch: Counter | msgspec.UnsetType = msgspec.UNSET
