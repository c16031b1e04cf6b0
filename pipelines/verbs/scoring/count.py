"""`framewire count`: zones and lines on the tracks of a file."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json, place_points, size_of

UNTIL_ITS_LAST_ROW_S = 86_400.0
"""An identity that is missing for a while is the same when it returns, as the file states."""


def count(
    mot: Annotated[str, typer.Option(help="Tracks in MOTChallenge form: ground truth, or the output of a tracker")],
    fps: Annotated[float, typer.Option(help="Frames per second of the video that they come from")],
    size: Annotated[str, typer.Option(help="Its width and height in pixels: 1920x1080")],
    line: Annotated[list[str] | None, typer.Option(help="NAME=x,y,x,y: pixels, or fractions up to 1; repeat")] = None,
    zone: Annotated[list[str] | None, typer.Option(help="NAME=x,y,x,y,x,y: the corners in order; repeat")] = None,
    min_score: Annotated[float, typer.Option(help="Ignore tracks with a lower mean score")] = 0.4,
    min_seen: Annotated[float, typer.Option(help="Ignore tracks seen for fewer seconds")] = 0.3,
    as_json: Json = False,
) -> None:
    """Count objects that cross lines and visit zones in the tracks of a file."""
    from engine.analytics.analytics import Analytics
    from engine.analytics.identity import Eligibility
    from engine.analytics.places import Line, Zone
    from engine.errors import ConfigError
    from pipelines.scoring.count import count_mot

    lines = [Line(name, points) for name, points in map(place_points, line or [])]
    zones = [Zone(name, points) for name, points in map(place_points, zone or [])]
    if not lines and not zones:
        raise ConfigError("there is nothing to count: give --line NAME=x,y,x,y or --zone NAME=x,y,x,y,x,y")
    eligibility = Eligibility(min_score=min_score, min_seen_s=min_seen)
    analytics = Analytics(zones, lines, eligibility=eligibility, heat=False, forget_s=UNTIL_ITS_LAST_ROW_S)
    counted = count_mot(mot, fps, size_of(size), analytics)
    if as_json:
        console.result_json(counted)
        return
    for name, directions in counted["lines"].items():
        console.result(f"{name}: {', '.join(f'{direction} {n}' for direction, n in directions.items())}")
    for name, told in counted["zones"].items():
        dwell = told["dwell_s"]
        console.result(
            f"{name}: {told['visits']} visits, {told['now']} at the end, "
            f"dwell {dwell['p50']:.1f} s (median), {dwell['max']:.1f} s (longest), {dwell['sum']:.1f} s (sum)"
        )
