"""The rows of the store. Names of columns are names of fields; times are UTC in ns unless the name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from engine.analytics.findings import Phase, Severity

ClipState = Literal["", "due", "exact", "keyframe", "partial", "none"]
ActionState = Literal["due", "sent", "failed", "suppressed", "digested"]
MediaKind = Literal["recording", "snapshot", "clip"]


@dataclass(frozen=True, slots=True)
class EventRow:
    """One episode of a rule, or one point.

    Attributes:
        event_id: never repeats; the same as on the wire.
        engine_id: the engine that saw it.
        run_epoch: start of that run.
        source_id: the camera or file.
        rule: name of the rule.
        severity: of the rule.
        place: name of the zone or line; may be empty.
        class_name: class of the object; empty if it is not about one.
        phase: the last one reported; `end` and `point` are final.
        began_utc_ns: when it began.
        ended_utc_ns: when it ended; None while it continues; a point ends when it begins.
        began_scene_ns: when it began in the source's scene time, which clock steps do not affect.
        duration_s: between begin and end in scene time; None while it continues.
        reason: why it ended, unless it ended on its own: `engine_stopped`, `engine_killed`, `stream_restarted`, …
        facts: `track_ids`, `why`, `data`, `score`, `xyxy`, `at`, `frame_id`, `captured_utc_ns`, as on the wire.
        snapshot: name of the trigger image, relative to the folder; empty if there is none yet.
        best: name of the best image.
        clip: name of the clip.
        clip_state: empty: no clip is wanted; `due`: wanted but not made yet; otherwise the outcome.
        clip_reason: why it is not `exact`.
        kept: never deleted by retention.
        changed_by: the engine that changed this row last, or empty if a person did; set by the writer.
        changed: number of that change among all changes by the same writer.
    """

    event_id: str
    engine_id: str
    run_epoch: int
    source_id: str
    rule: str
    severity: Severity
    place: str
    class_name: str
    phase: Phase
    began_utc_ns: int
    ended_utc_ns: int | None
    began_scene_ns: int
    duration_s: float | None = None
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    snapshot: str = ""
    best: str = ""
    clip: str = ""
    clip_state: ClipState = ""
    clip_reason: str = ""
    kept: bool = False
    changed_by: str = ""
    changed: int = 0

    @property
    def track_ids(self) -> list[int]:
        """Ids of the tracks concerned."""
        return list(self.facts.get("track_ids", ()))


@dataclass(frozen=True, slots=True)
class FactRow:
    """A visit to a zone, a crossing of a line, or a change of places, whether or not a rule uses it.

    Attributes:
        fact_id: `event_id` on the wire.
        engine_id: the engine that saw it.
        run_epoch: start of that run.
        source_id: the camera or file.
        kind: `visit`, `crossing` or `places_changed`.
        place: the zone or line.
        direction: of a crossing.
        class_name: class of the object.
        track_id: its track; -1 if it has none.
        began_utc_ns: when it entered or crossed.
        ended_utc_ns: when it left; None while it is inside.
        began_scene_ns: the beginning in scene time.
        duration_s: of a visit that ended.
        reason: why it ended, unless the object left.
    """

    fact_id: str
    engine_id: str
    run_epoch: int
    source_id: str
    kind: str
    place: str
    direction: str
    class_name: str
    track_id: int
    began_utc_ns: int
    ended_utc_ns: int | None
    began_scene_ns: int
    duration_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrackRow:
    """A piece of a track's path; long tracks have several. `engine.events.track_paths` packs and unpacks `path`."""

    engine_id: str
    run_epoch: int
    source_id: str
    track_id: int
    piece: int
    class_name: str
    began_utc_ns: int
    ended_utc_ns: int
    began_scene_ns: int
    score: float
    width: int
    height: int
    path: bytes
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class HeatRow:
    """Where objects of a class were in one UTC hour of one run; `engine.events.path_heat` unpacks `grid`."""

    source_id: str
    class_name: str
    hour: int
    run_epoch: int
    grid: bytes


@dataclass(frozen=True, slots=True)
class CountRow:
    """Crossings of a line by direction, or visits of a zone (`visit`), in one UTC minute of one run."""

    source_id: str
    place: str
    name: str
    class_name: str
    minute: int
    run_epoch: int
    n: int


@dataclass(frozen=True, slots=True)
class OccupancyRow:
    """The occupancy of a zone in one UTC minute of one run.

    Attributes:
        source_id: the camera or file.
        place: the zone.
        minute: UTC minutes since 1970.
        run_epoch: start of the run.
        seen_s: observed seconds.
        object_s: objects times seconds; divided by `seen_s`, the mean.
        busy_s: seconds with at least one object.
        most: largest number at once.
    """

    source_id: str
    place: str
    minute: int
    run_epoch: int
    seen_s: float
    object_s: float
    busy_s: float
    most: int


@dataclass(frozen=True, slots=True)
class SourceRunRow:
    """How long an engine watched a source.

    Attributes:
        engine_id: the engine.
        run_epoch: start of the run.
        source_id: the camera or file.
        began_utc_ns: first frame.
        seen_utc_ns: last frame, at most about a second ago while the engine runs.
        seen_scene_ns: scene time of that frame.
        reason: why it ended; empty while it continues.
    """

    engine_id: str
    run_epoch: int
    source_id: str
    began_utc_ns: int
    seen_utc_ns: int
    seen_scene_ns: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GapRow:
    """A time span in which a source was not seen.

    `to_utc_ns` is None while it lasts; `cause` is the state or the reason.
    """

    source_id: str
    from_utc_ns: int
    to_utc_ns: int | None
    engine_id: str
    run_epoch: int
    cause: str


@dataclass(frozen=True, slots=True)
class MediaRow:
    """One file; all kinds count towards the same limits.

    Attributes:
        path: relative to the folder of events, or absolute if it is elsewhere.
        kind: `recording`, `snapshot` or `clip`.
        source_id: the camera or file.
        event_id: the event that it belongs to; empty for recordings.
        began_utc_ns: first frame.
        ended_utc_ns: last frame.
        bytes: size.
        state: empty, or `deleting`: the file is being removed, then the row.
        detail: further facts as JSON (codec, …).
    """

    path: str
    kind: MediaKind
    source_id: str
    event_id: str
    began_utc_ns: int
    ended_utc_ns: int
    bytes: int
    state: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One message of an action, delivered at least once. The key (event, phase, action) never repeats.

    Attributes:
        event_id: the event.
        phase: `begin`, `end`, `point`, or another name for a digest.
        action: name of the action.
        engine_id: the engine that delivers it.
        created_utc_ns: when it was planned.
        due_utc_ns: when to try next.
        expires_utc_ns: when to give up.
        tries: failed attempts.
        state: `due`, `sent`, `failed` (given up), `suppressed` or `digested`.
        cause: why it is suppressed, or the last error.
        payload: what to send, as JSON.
    """

    event_id: str
    phase: str
    action: str
    engine_id: str
    created_utc_ns: int
    due_utc_ns: int
    expires_utc_ns: int
    tries: int = 0
    state: ActionState = "due"
    cause: str = ""
    payload: str = "{}"


@dataclass(frozen=True, slots=True)
class SnoozeRow:
    """Suppresses the actions for events of a source (empty: of all sources) until a given time.

    Events themselves continue.
    """

    source_id: str
    until_utc_ns: int
