"""Zones and lines on the control socket: reported as fractions of the frame, and replaced as a whole per source."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.sinks.media import MediaPublisher
from pipelines.build.edits import EditsFile, digest
from pipelines.build.sources import named_sources
from pipelines.build.video import hidden_sources
from pipelines.config.models import Config
from pipelines.config.scene import LineConfig, ZoneConfig
from pipelines.config.source import SourceConfig
from pipelines.running.control_client import ConflictError
from pipelines.running.reconfigure import Reconfigurer

DECIMALS = 5
Points = list[tuple[float, float]]
Size = tuple[int, int] | None


def places_of(pipeline: Pipeline, config: Config, edits: EditsFile | None = None) -> dict[str, Any]:
    """Return `places` by source (version, zones, lines), `rules`, `site`, `video` and `kept`.

    `video` says why a source offers no video; see `kept_facts` for `kept`. Points are fractions of the frame. Those
    given in pixels are left out until the size of the frames is known.
    """
    sizes = {info.source_id: _size(info.width, info.height) for info in (s.info for s in pipeline.sources)}
    sources = named_sources(config)
    return {
        "places": {name: _places(source, sizes.get(name)) for name, source in sources},
        "rules": [rule.model_dump(exclude_unset=True) for rule in config.rules],
        "site": config.site.model_dump(),
        "video": _video(pipeline, config),
        "kept": kept_facts(edits),
    }


def change_places(
    pipeline: Pipeline, changes: Reconfigurer, request: dict[str, Any], edits: EditsFile | None = None
) -> dict[str, Any]:
    """Replace the zones and lines of `source_id`; return `done`, one line per change, and `kept`, see `kept_facts`.

    Args:
        pipeline: the run.
        changes: applies them.
        request: `source_id`, `zones` and `lines` by name, optionally the `version` that they are based on, and `by`,
            their author.
        edits: stores them; None: they end with the run.

    Raises:
        ConfigError: the source does not exist, or a place is invalid; the message names its key.
        ConflictError: the places have a newer version.
    """
    source_id, zones, lines = request.get("source_id"), request.get("zones"), request.get("lines")
    if not (isinstance(source_id, str) and isinstance(zones, dict) and isinstance(lines, dict)):
        raise ConfigError("set_places needs source_id, zones and lines")
    now = places_of(pipeline, changes.config)["places"].get(source_id)
    if now is None:
        raise ConfigError(f"there is no source {source_id}")
    if request.get("version") not in (None, now["version"]):
        raise ConflictError(f"the zones and lines of {source_id} were changed in the meantime: read them again")
    done = changes.set_places(source_id, zones, lines)
    problem = "" if edits is None else edits.keep_places(source_id, zones, lines, person(request))
    return {"done": done, "kept": kept_facts(edits, problem)}


def kept_facts(edits: EditsFile | None, problem: str = "") -> dict[str, str]:
    """Return `file`, the name of the file with edits (empty: none), and `problem`: why the last edit was not stored."""
    return {"file": "" if edits is None else edits.path.name, "problem": problem}


def person(request: dict[str, Any]) -> str:
    """Return the author of a change."""
    return str(request.get("by") or "framewire ctl")[:64]


def _video(pipeline: Pipeline, config: Config) -> dict[str, str]:
    """Return, by source, an empty text if its coded video is offered, else `private` or `file`."""
    media = next((sink for sink in pipeline.sinks if isinstance(sink, MediaPublisher)), None)
    offered: frozenset[str] = frozenset() if media is None else media.with_video
    hidden = hidden_sources(config)
    reasons = {name: "private" if name in hidden else "file" for name, _ in named_sources(config)}
    return {name: "" if name in offered else reason for name, reason in reasons.items()}


def _places(source: SourceConfig, size: Size) -> dict[str, Any]:
    zones = {name: _zone(zone, source, size) for name, zone in source.zones.items()}
    lines = {name: _place(line, source, size) for name, line in source.lines.items()}
    found = {
        "zones": {name: zone for name, zone in zones.items() if zone is not None},
        "lines": {name: line for name, line in lines.items() if line is not None},
    }
    return {"version": digest(found), **found}


def _zone(zone: ZoneConfig, source: SourceConfig, size: Size) -> dict[str, Any] | None:
    found = _place(zone, source, size)
    if found is not None and zone.ground is not None:
        points = _fractions(zone.ground.points, zone, source, size)
        found["ground"] = {"points": points, "metres": zone.ground.metres}
    return found


def _place(place: ZoneConfig | LineConfig, source: SourceConfig, size: Size) -> dict[str, Any] | None:
    points = _fractions(place.points, place, source, size)
    if points is None:
        return None
    return {**place.model_dump(exclude={"pixels", "points"}, exclude_none=True), "points": points}


def _fractions(
    points: Points, place: ZoneConfig | LineConfig, source: SourceConfig, size: Size
) -> list[list[float]] | None:
    """Return points as fractions of the frame; None if its size is not known yet."""
    wh: Size = (1, 1)
    if place.pixels:
        wh = size
    elif source.picture is not None:
        wh = source.picture.size_wh
    return None if wh is None else [[round(x / wh[0], DECIMALS), round(y / wh[1], DECIMALS)] for x, y in points]


def _size(width: int | None, height: int | None) -> Size:
    return None if width is None or height is None else (width, height)
