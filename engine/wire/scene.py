"""The messages about what happens in a scene: events, and the totals of zones and lines."""

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
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        stream_epoch: +1 for each reconnect of the source.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        event: what happened, for example `track_ended` or `line_crossed`.
        event_id: unique per engine and run; the same for the beginning and the end of one happening.
        frame_id: the frame it was seen on, null where it belongs to none.
        captured_utc_ns: wall clock of that frame.
        track_id: whose it is, null where it belongs to no track.
        class_id: class of the track.
        class_name: its name.
        score: 0 to 1.
        xyxy: box at that moment.
        data: further facts, flat.
        phase: `begin`, `update` or `end` of an episode, or `point`.
        rule: name of the rule, empty for a fact about a zone or line.
        severity: `info`, `notice` or `alert`.
        place: name of the zone or line.
        began_utc_ns: wall clock of its true begin: the first observation inside, the cut of the line.
        ended_utc_ns: wall clock of its true end, null while it goes on.
        duration_s: between the two.
        reason: why it ended, where not by itself.
        track_ids: all tracks concerned.
        at: [x, y] where a line was crossed.
        why: the facts that made it, in words.
        snapshot: name of the picture that belongs to it.
        clip: name of the clip that belongs to it.

    The fields from `phase` on are left out where they do not apply.
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


class AnalyticsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of the zones and lines of a source; sent when they change, at most twice a second, and every 10 s.

    Attributes:
        schema: name and version of this message.
        engine_id: which engine sent it.
        run_epoch: start of the run.
        source_id: the camera or file.
        seq: +1 per message of this topic.
        published_utc_ns: wall clock of the sending.
        captured_utc_ns: wall clock of the frame that it speaks of.
        zones: objects inside now, by zone and class.
        visits: visits since the totals began, by zone.
        lines: crossings since the totals began, by line, direction and class.
        since_utc_ns: wall clock at which the totals began, null where it is not known.
        blind_s: seconds without live frames since then.
        open: `event_id` of the episodes that run.
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
