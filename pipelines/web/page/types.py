"""The types of the API, from which its OpenAPI document is generated."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from engine.process import peak_memory_mb

if TYPE_CHECKING:
    from pipelines.web.page.hub import Hub, SourceView

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^/\x00-\x1f\x7f]+$")]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Point = tuple[Fraction, Fraction]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]
ClassName = str | int
Anchor = Literal["bottom_center", "center", "top_center"]
MAX_POINTS = 200
MAX_PLACES = 100


class Ground(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Points of the frame, and their positions on the ground in metres."""

    points: Annotated[list[Point], msgspec.Meta(min_length=4, max_length=MAX_POINTS)]
    metres: Annotated[list[tuple[float, float]], msgspec.Meta(min_length=4, max_length=MAX_POINTS)]


class ZoneEdit(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A zone; points are fractions of the frame."""

    points: Annotated[list[Point], msgspec.Meta(min_length=3, max_length=MAX_POINTS)]
    classes: Annotated[list[ClassName], msgspec.Meta(max_length=100)] | None = None
    anchor: Literal["bottom_center", "center", "top_center", "overlap"] = "bottom_center"
    enter_s: Seconds = 0.3
    leave_s: Seconds = 1.0
    ground: Ground | None = None


class LineEdit(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A line; points are fractions of the frame."""

    points: Annotated[list[Point], msgspec.Meta(min_length=2, max_length=MAX_POINTS)]
    left_to_right: Name = "left_to_right"
    right_to_left: Name = "right_to_left"
    classes: Annotated[list[ClassName], msgspec.Meta(max_length=100)] | None = None
    anchor: Anchor = "bottom_center"
    once: bool = False


class PlacesEdit(msgspec.Struct, forbid_unknown_fields=True):
    """All zones and lines of a source, by name."""

    zones: Annotated[dict[Name, ZoneEdit], msgspec.Meta(max_length=MAX_PLACES)] = {}
    lines: Annotated[dict[Name, LineEdit], msgspec.Meta(max_length=MAX_PLACES)] = {}


class StillQuery(msgspec.Struct, forbid_unknown_fields=True):
    """How large a still may be: its longer side in pixels."""

    w: Annotated[int, msgspec.Meta(ge=16, le=8192)] = 1280


class Kept(msgspec.Struct):
    """Where edits survive the end of the run: the name of a file, empty for nowhere.

    And why the last edit was not stored.
    """

    file: str = ""
    problem: str = ""


class Places(msgspec.Struct):
    """Zones and lines of a source, in fractions of its frame; `done` says what an edit has changed."""

    version: str
    zones: dict[str, ZoneEdit]
    lines: dict[str, LineEdit]
    done: list[str] = []
    kept: Kept = msgspec.field(default_factory=Kept)


class AllPlaces(msgspec.Struct):
    """Zones and lines of all sources, the rules, the site, and why a source offers no video (empty: it does)."""

    places: dict[str, Places]
    rules: list[dict[str, Any]]
    site: dict[str, Any]
    video: dict[str, str]
    kept: Kept = msgspec.field(default_factory=Kept)


class SourceInfo(msgspec.Struct):
    """A source and its latest statistics; null: not known yet."""

    source_id: str
    state: str | None
    reason: str
    uri: str
    is_live: bool
    width: int | None
    height: int | None
    codec: str | None
    decoder: str | None
    stream_epoch: int | None
    published: int | None
    fps: float | None
    latency_ms: dict[str, float]
    dropped: dict[str, int]
    zones: dict[str, dict[str, int]]
    visits: dict[str, int]
    lines: dict[str, dict[str, dict[str, int]]]
    since_utc_ns: int | None
    blind_s: float | None


def source_info(view: SourceView) -> SourceInfo:
    """Return the known facts about a source."""
    status, stats, scene = view.status, view.stats, view.analytics
    return SourceInfo(
        source_id=view.source_id,
        state=None if status is None else status.state,
        reason="" if status is None else status.reason,
        uri="" if status is None else status.uri,
        is_live=status is not None and status.is_live,
        width=None if status is None else status.width,
        height=None if status is None else status.height,
        codec=None if status is None else status.codec,
        decoder=None if status is None else status.decoder,
        stream_epoch=None if status is None else status.stream_epoch,
        published=None if stats is None else stats.published,
        fps=None if stats is None else stats.fps,
        latency_ms={} if stats is None else stats.latency_ms,
        dropped={} if stats is None else stats.dropped,
        zones={} if scene is None else scene.zones,
        visits={} if scene is None else scene.visits,
        lines={} if scene is None else scene.lines,
        since_utc_ns=None if scene is None else scene.since_utc_ns,
        blind_s=None if scene is None else scene.blind_s,
    )


class SystemInfo(msgspec.Struct):
    """The engine and the web process."""

    version: str
    is_connected: bool
    engine_id: str | None
    uptime_s: float | None
    overflows: dict[str, int]
    models: dict[str, Any]
    recordings: dict[str, Any]
    sources: int
    viewers: int
    watched: list[str]
    web_pid: int
    web_max_rss_mb: float

    @staticmethod
    def of(hub: Hub, status: dict[str, Any]) -> SystemInfo:
        """Return the facts; `status` is the engine's reply to `status`, possibly empty."""
        beat = hub.heartbeat
        return SystemInfo(
            version=version("framewire"),
            is_connected=hub.is_connected,
            engine_id=None if beat is None else beat.engine_id,
            uptime_s=None if beat is None else beat.uptime_s,
            overflows={} if beat is None else beat.overflows,
            models=status.get("models", {}),
            recordings=status.get("recordings", {}),
            sources=len(hub.sources),
            viewers=hub.watchers,
            watched=hub.wanted,
            web_pid=os.getpid(),
            web_max_rss_mb=round(peak_memory_mb(), 1),
        )
