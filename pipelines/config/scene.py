"""The keys of zones, lines and rules; `pipelines.build.scene` checks their meaning when it builds the objects."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, create_model

from pipelines.config.section import ClassName, FilePath, Section

Point = tuple[float, float]
PlaceName = str


class PictureConfig(Section):
    """The frame on which zones and lines were drawn."""

    size_wh: tuple[int, int] = Field(description="Its width and height: points are pixels of it at any resolution")


class GroundConfig(Section):
    """Ground positions of points in the frame, for speeds."""

    points: list[Point] = Field(min_length=4, description="Four or more points of the frame")
    metres: list[Point] = Field(min_length=4, description="The same points in metres, from any origin")


class ZoneConfig(Section):
    """An area of the frame."""

    EXAMPLE = "points: [[x, y], ...]"

    points: list[Point] = Field(description="Corners in order: fractions of the image, or pixels (image, pixels)")
    pixels: bool = Field(False, description="The points are pixels of the source's own frame")
    classes: list[ClassName] | None = Field(None, description="Names or numbers of the classes that count; null: all")
    anchor: Literal["bottom_center", "center", "top_center", "overlap"] = Field(
        "bottom_center", description="Point of a box that must be inside; overlap: half of its area"
    )
    enter_s: float = Field(0.3, ge=0, le=86400, description="An object is inside after this time")
    leave_s: float = Field(1.0, ge=0, le=86400, description="An object has left after this time outside")
    ground: GroundConfig | None = Field(None, description="Positions on the ground, for speeds; null: no speeds")


class LineConfig(Section):
    """A line, straight or bent."""

    EXAMPLE = "points: [[x, y], ...]"

    points: list[Point] = Field(description="From the first to the last: fractions of the image, or pixels")
    pixels: bool = Field(False, description="The points are pixels of the source's own frame")
    left_to_right: str = Field(
        "left_to_right", description="Name of crossings to the right, as seen when walking along the line"
    )
    right_to_left: str = Field("right_to_left", description="Name of crossings to the left")
    classes: list[ClassName] | None = Field(None, description="Names or numbers of the classes that count; null: all")
    anchor: Literal["bottom_center", "center", "top_center"] = Field(
        "bottom_center", description="Point of a box that must cross"
    )
    once: bool = Field(False, description="Count each object once per direction")


class SiteConfig(Section):
    """Where the cameras are."""

    timezone: str = Field("UTC", description="Time zone of schedules and resets, such as Europe/Vienna")


class AnalyticsConfig(Section):
    """Which objects count in zones, on lines and for rules."""

    min_score: float = Field(0.4, ge=0, le=1, description="Minimum mean score of a track")
    min_seen_s: float = Field(0.3, ge=0, le=3600, description="Minimum time between first and last observation")
    min_height: float | None = Field(None, ge=0, le=1, description="Minimum height as a share of the frame's")
    max_height: float | None = Field(None, ge=0, le=1, description="Maximum height as a share of the frame's")
    ignore_parked: bool = Field(
        True, description="Leave out objects that appear where one has been parked, until they move"
    )
    reset_at: str | None = Field(None, description='Time of day, "HH:MM", at which the totals are reset; null: never')
    state: FilePath | None = Field(
        None, description="File that keeps the totals over a restart; null: they begin at zero"
    )
    heat: bool = Field(True, description="Collect heat maps")


_SCHEDULE: dict[str, Any] = {
    "days": (
        list[str],
        Field(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], description="Days on which the time begins"),
    ),
    "from": (str, Field("00:00", description='Time of day, "HH:MM" in quotes')),
    "to": (str, Field("24:00", description="Time of day; not after from: on the next day")),
}
ScheduleConfig = create_model("ScheduleConfig", __base__=Section, __doc__="When a rule may begin.", **_SCHEDULE)


class RuleConfig(Section):
    """Defines when to raise an event. Which keys apply depends on `kind`; docs/analytics.md lists them."""

    name: str = Field(description="Unique name")
    kind: str = Field(
        description="presence, loiter, line, count, direction, speed, stopped, sequence, close, blind, left_behind, "
        "removed, or a custom rule: module:attribute"
    )
    sources: list[str] | None = Field(None, description="Sources; null: all that have its zone and lines")
    enabled: bool = Field(True, description="false: it raises no events")
    severity: Literal["info", "notice", "alert"] = Field("info", description="How important it is")
    schedule: ScheduleConfig | None = Field(None, description="When it may begin; null: always")
    actions: list[str] = Field(default_factory=list, description="Names of the actions that report its events")
    zone: str | None = Field(None, description="Name of a zone")
    line: str | None = Field(None, description="Name of a line")
    lines: list[str] | None = Field(None, description="Names of lines, or name:direction, in order")
    direction: str | None = Field(None, description="Name of a direction of the line; null: both")
    classes: list[ClassName] | None = Field(None, description="Names or numbers of classes; null: all")
    to_classes: list[ClassName] | None = Field(None, description="Classes of the other object")
    owners: list[ClassName] | None = Field(None, description="Classes that bring things")
    for_s: float | None = Field(None, ge=0, le=86400, description="How long it must hold")
    absence_s: float | None = Field(
        None, ge=0, le=86400, description="An absence up to this long does not count as leaving"
    )
    clear_s: float | None = Field(None, ge=0, le=86400, description="How long it must not hold before it ends")
    within_s: float | None = Field(None, ge=0, le=86400, description="From the first to the last crossing")
    stood_s: float | None = Field(None, ge=0, le=86400, description="How long a thing must have stood")
    at_least: int | None = Field(None, ge=1, description="Minimum number of objects for it to hold")
    at_most: int | None = Field(None, ge=0, description="Maximum number of objects for it to hold")
    forbidden_deg: float | None = Field(None, ge=-360, le=360, description="0 is to the right, 90 down")
    tolerance_deg: float | None = Field(None, gt=0, le=180, description="How far a heading may differ from it")
    over_kmh: float | None = Field(None, ge=0, description="Upper limit of the speed")
    under_kmh: float | None = Field(None, ge=0, description="Lower limit of the speed")
    metres: float | None = Field(None, ge=0, description="Distance on the ground")
    heights: float | None = Field(None, ge=0, description="Distance in mean heights of the two boxes")
    away_heights: float | None = Field(None, ge=0.1, description="How far the owner must be, in heights")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Arguments of a custom rule")
