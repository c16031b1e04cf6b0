"""Names of images and clips, and the event facts stored inside them, from which a lost store is rebuilt.

`snapshots/<source>/<day>/<event_id>.trigger.jpg` and `.best.jpg`, `clips/<source>/<day>/<event_id>.mp4`, days in UTC.
Imports no numpy.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote

from engine.clock import NS_PER_S
from engine.events.store.rows import EventRow

SNAPSHOTS, CLIPS = "snapshots", "clips"
SnapshotKind = Literal["trigger", "best"]
MAX_NAME = 180
MAX_FACTS = 60_000  # bytes of a JPEG comment
NS_PER_DAY = 86_400 * NS_PER_S
_KEY = "framewire.event"
_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_CLIP_SUFFIXES = (".mp4", ".mkv")
_KEPT = ("event_id", "engine_id", "run_epoch", "source_id", "rule", "severity", "place", "class_name", "phase")
_TIMES = ("began_utc_ns", "ended_utc_ns", "began_scene_ns", "duration_s", "reason", "facts")
_FACTS = (*_KEPT, *_TIMES)
_facts_of = attrgetter(*_FACTS)
_json = json.JSONEncoder(separators=(",", ":")).encode


@lru_cache(1024)
def safe_name(text: str) -> str:
    """Turn a text into the name of a file or folder: no separators, no leading dot, bounded in length.

    >>> safe_name("gate"), safe_name("../up"), len(safe_name("a" * 5000))
    ('gate', '%2E.%2Fup', 180)
    """
    name = quote(text, safe="")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 17]}~{sha256(text.encode()).hexdigest()[:16]}"


def is_day(name: str) -> bool:
    """Return whether a folder's name is a day."""
    return _DAY.fullmatch(name) is not None


def day_of(utc_ns: int) -> str:
    """Return the UTC day of a time."""
    return _day(utc_ns // NS_PER_DAY)


@lru_cache(64)
def _day(number: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(number * NS_PER_DAY // NS_PER_S))


def snapshot_name(event: EventRow, kind: SnapshotKind) -> str:
    """Return the name of an event's image, relative to the folder of events."""
    return (
        f"{SNAPSHOTS}/{safe_name(event.source_id)}/{day_of(event.began_utc_ns)}/{safe_name(event.event_id)}.{kind}.jpg"
    )


def clip_name(event: EventRow) -> str:
    """Return the name of an event's clip without suffix, relative to the folder of events."""
    return f"{CLIPS}/{safe_name(event.source_id)}/{day_of(event.began_utc_ns)}/{safe_name(event.event_id)}"


@dataclass(frozen=True, slots=True)
class MediaName:
    """What a file's name says: its kind, the source, and the event's id (or its safe name, if the id was too long)."""

    kind: Literal["snapshot", "clip"]
    source_id: str
    event_id: str
    image: str = ""


def parse_name(name: str) -> MediaName | None:
    """Return what a name relative to the folder of events says; None if it is not one of ours.

    >>> parse_name("clips/gate/2026-05-01/gate-17-intruder-3.mp4").event_id
    'gate-17-intruder-3'
    >>> parse_name("clips/gate/2026-05-01/notes.txt"), parse_name("snapshots/holiday.jpg")
    (None, None)
    """
    parts = PurePosixPath(name).parts
    if len(parts) != 4 or parts[1] == ".." or not is_day(parts[2]):
        return None
    source_id = unquote(parts[1])
    if parts[0] == CLIPS and parts[3].endswith(_CLIP_SUFFIXES):
        stem, _, part = parts[3][:-4].rpartition("_")
        is_part = bool(stem) and part.isdigit() and len(part) < 4
        return MediaName("clip", source_id, unquote(stem if is_part else parts[3][:-4]))
    stem, _, image = parts[3].removesuffix(".jpg").rpartition(".")
    if parts[0] == SNAPSHOTS and stem and parts[3].endswith(".jpg") and image in ("trigger", "best"):
        return MediaName("snapshot", source_id, unquote(stem), image)
    return None


def facts_text(event: EventRow) -> str:
    """Return the facts of an event as text to store in its images and clips."""
    return _json({_KEY: dict(zip(_FACTS, _facts_of(event), strict=True))})


def with_facts(jpeg: bytes, text: str) -> bytes:
    """Return a JPEG with a comment; without it, if the text is too long for one."""
    comment = text.encode()
    if not jpeg.startswith(_START) or len(comment) > MAX_FACTS:
        return jpeg
    return b"".join([_START, _COMMENT, (len(comment) + 2).to_bytes(2, "big"), comment, memoryview(jpeg)[2:]])


def facts_in_image(path: Path) -> Mapping[str, Any]:
    """Return the facts stored in one of our images; empty if there are none. Raises `OSError`."""
    with open(path, "rb") as file:
        head = file.read(6)
        if head[:4] != _START + _COMMENT:
            return {}
        return facts_from_text(file.read(int.from_bytes(head[4:6], "big") - 2))


def facts_from_text(text: str | bytes) -> Mapping[str, Any]:
    """Return the facts in a text that `facts_text` made; empty for any other text."""
    try:
        found = json.loads(text).get(_KEY)
    except (ValueError, AttributeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def event_from_facts(facts: Mapping[str, Any]) -> EventRow | None:
    """Return the event that facts describe; None if they are incomplete or of wrong types."""
    try:
        values = {name: facts[name] for name in _FACTS}
    except KeyError:
        return None
    numbers = ("run_epoch", "began_utc_ns", "began_scene_ns")
    texts = [values[name] for name in (*_KEPT, "reason") if name != "run_epoch"]
    if not all(isinstance(values[name], int) for name in numbers) or not all(isinstance(text, str) for text in texts):
        return None
    is_known = values["severity"] in ("info", "notice", "alert") and values["phase"] in (
        "begin",
        "update",
        "end",
        "point",
    )
    if not is_known or not isinstance(values["facts"], dict):
        return None
    if not isinstance(values["ended_utc_ns"], (int, type(None))) or not isinstance(
        values["duration_s"], (int, float, type(None))
    ):
        return None
    return EventRow(**values)
