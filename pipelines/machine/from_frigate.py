"""Converts cameras, zones, masks and object filters of a Frigate configuration, and lists what it could not convert."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.plain_yaml.reading import parsed_yaml, read_bytes
from pipelines.machine.new_config import NewConfig

_FRIGATE_VARIABLE = re.compile(r"\{(FRIGATE_\w{1,60})\}")
_LOCAL = ("rtsp://127.0.0.1:8554/", "rtsp://localhost:8554/")
_TAKEN = {
    "camera": {"ffmpeg", "detect", "zones", "objects", "motion", "record", "enabled"},
    "root": {"cameras", "objects", "detect", "record", "motion", "go2rtc", "mqtt", "version"},
}
_SIDES = ("width", "height")


def new_from_frigate(path: str) -> NewConfig:
    """Return a configuration that is equivalent to a Frigate `config.yml`, as far as possible.

    Raises:
        ConfigError: the file cannot be read, or has no cameras.
    """
    try:
        tree = parsed_yaml(read_bytes(Path(path)), path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give Frigate's config.yml") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("cameras"), dict):
        raise ConfigError(f"{path} has no cameras: give Frigate's config.yml")
    new = NewConfig()
    new.classes = _texts(_table(tree, "objects").get("track")) or ["person"]  # as Frigate does without objects.track
    streams = _table(_table(tree, "go2rtc"), "streams")
    for name, camera in tree["cameras"].items():
        if isinstance(camera, dict):
            _add_camera(new, str(name), camera, tree, streams)
    for key in sorted(set(map(str, tree)) - _TAKEN["root"]):
        new.notes.append(f"not converted: {key}")
    if "mqtt" in tree:
        host = _table(tree, "mqtt").get("host", "HOST")
        new.notes.append(f"mqtt: framewire bridge tcp://127.0.0.1:5555 mqtt://{host} --format frigate")
    if "auto" not in str(new.model):
        new.notes.append("model: choose one with the classes above; the embedded one has those of COCO")
    return new


def _add_camera(
    new: NewConfig, name: str, camera: Mapping[str, Any], tree: Mapping[str, Any], streams: Mapping[str, Any]
) -> None:
    if camera.get("enabled") is False:
        new.notes.append(f"{name}: it is disabled in Frigate, so it is left out")
        return
    inputs = [entry for entry in _list(_table(camera, "ffmpeg").get("inputs")) if isinstance(entry, dict)]
    detect = next((entry for entry in inputs if "detect" in _texts(entry.get("roles"))), inputs[0] if inputs else None)
    if detect is None or not isinstance(detect.get("path"), str):
        new.notes.append(f"{name}: it has no input with the role detect, so it is left out")
        return
    missing: list[str] = []
    uri = _address(str(detect["path"]), streams, missing)
    keys = _keys(name, camera, tree, missing)
    record = next((entry for entry in inputs if "record" in _texts(entry.get("roles"))), None)
    if record is not None and _setting(camera, tree, "record", "enabled"):
        main = _address(str(record.get("path", "")), streams, missing)
        keys["record"] = {"folder": "recordings", "max_mb": 20000}
        if main and main != uri:
            keys["record"]["uri"] = new.without_password(name, main)
    missing += [f"{key} is not converted" for key in sorted(set(map(str, camera)) - _TAKEN["camera"])]
    new.add(name, uri, keys=keys, notes=missing)
    new.notes += [f"{name}: {what}" for what in missing]


def _keys(name: str, camera: Mapping[str, Any], tree: Mapping[str, Any], missing: list[str]) -> dict[str, Any]:
    """Return the keys of a source: rate, size of the image, zones, masks, filters."""
    keys: dict[str, Any] = {}
    fps = _setting(camera, tree, "detect", "fps")
    keys["detect_hz"] = float(fps) if isinstance(fps, int | float) and 0 < fps <= 1000 else 5.0
    size = [_setting(camera, tree, "detect", side) for side in _SIDES]
    size_wh = (int(size[0]), int(size[1])) if all(isinstance(side, int) and side > 0 for side in size) else None
    places = {
        str(zone): _zone(str(zone), facts, size_wh, missing)
        for zone, facts in _table(camera, "zones").items()
        if isinstance(facts, dict)
    }
    zones = {zone: facts for zone, facts in places.items() if facts}
    if zones:
        keys["zones"] = zones
    masks = _masks(camera, size_wh, missing)
    if masks:
        keys["ignore"] = masks
    classes = _texts(_table(camera, "objects").get("track"))
    if classes:
        keys["classes"] = classes
    filters = _table(_table(camera, "objects") or _table(tree, "objects"), "filters")
    scores = [float(f["min_score"]) for f in filters.values() if isinstance(f, dict) and _is_number(f.get("min_score"))]
    if scores:
        keys["score_threshold"] = max(min(scores), 0.25)
    for class_name, limits in filters.items():
        others = sorted(set(map(str, limits or ())) - {"min_score", "mask"}) if isinstance(limits, dict) else []
        if others:
            missing.append(f"objects.filters.{class_name}.{', '.join(others)}: see analytics.min_height, min_area")
    return keys


def _zone(name: str, facts: Mapping[str, Any], size_wh: tuple[int, int] | None, missing: list[str]) -> dict[str, Any]:
    points = _points(facts.get("coordinates"), size_wh)
    if points is None:
        missing.append(f"zone {name}: its coordinates need detect.width and height, or are not a polygon")
        return {}
    zone: dict[str, Any] = {"points": points}
    classes = _texts(facts.get("objects"))
    if classes:
        zone["classes"] = classes
    for key in sorted(set(map(str, facts)) - {"coordinates", "objects", "inertia"}):
        hint = "a rule of kind loiter does that" if key == "loitering_time" else "not converted"
        missing.append(f"zone {name}, {key}: {hint}")
    return zone


def _masks(camera: Mapping[str, Any], size_wh: tuple[int, int] | None, missing: list[str]) -> list[Any]:
    """Return the object masks as polygons in pixels, in which objects are ignored."""
    filters = _table(_table(camera, "objects"), "filters").values()
    texts = _list(_table(camera, "objects").get("mask"))
    texts += [mask for each in filters if isinstance(each, dict) for mask in _list(each.get("mask"))]
    if _list(_table(camera, "motion").get("mask")):
        missing.append("motion.mask: motion does not decide where the detector looks, so it is not needed")
    found = []
    for text in texts:
        points = _points(text, size_wh)
        if points is None or size_wh is None:
            missing.append("objects.mask: needs detect.width and height, or is not a polygon")
            continue
        found.append([[round(x * size_wh[0]), round(y * size_wh[1])] for x, y in points])
    return found


def _points(text: Any, size_wh: tuple[int, int] | None) -> list[list[float]] | None:
    """Return the corners as fractions of the image; None if they are invalid."""
    parts = text.split(",") if isinstance(text, str) else [str(each) for each in _list(text)]
    try:
        numbers = [float(part) for each in parts for part in each.split(",")]
    except ValueError:
        return None
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if max(numbers) > 1:
        if size_wh is None:
            return None
        pairs = [(x / size_wh[0], y / size_wh[1]) for x, y in pairs]
    return [[round(min(max(x, 0.0), 1.0), 4), round(min(max(y, 0.0), 1.0), 4)] for x, y in pairs]


def _address(path: str, streams: Mapping[str, Any], missing: list[str]) -> str:
    """Return a camera's address: that of go2rtc's own source if Frigate reads its restream."""
    restream = next((path[len(prefix) :].partition("?")[0] for prefix in _LOCAL if path.startswith(prefix)), None)
    if restream is not None:
        source = next((text for text in _texts(streams.get(restream)) if text.partition("#")[0].startswith("rtsp")), "")
        if source:
            path = source.partition("#")[0]
        else:
            missing.append(f"it reads go2rtc's stream {restream}: keep go2rtc running, or give the camera's address")
    return _FRIGATE_VARIABLE.sub(r"${\1}", path)


def _setting(camera: Mapping[str, Any], tree: Mapping[str, Any], section: str, key: str) -> Any:
    return _table(camera, section).get(key, _table(tree, section).get(key))


def _table(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return (
        list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [] if value is None else [value]
    )


def _texts(value: Any) -> list[str]:
    return [text for text in _list(value) if isinstance(text, str)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
