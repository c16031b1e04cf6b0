"""Guesses what a wrong key means: a typo, another tool's word, or a key of another section."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from engine.errors import ConfigError

LIKENESS = 0.6
MAX_WORD_CHARS = 64
OTHER_WORDS: Mapping[str, str] = {
    "name": "source_id",
    "id": "source_id",
    "label": "source_id",
    "camera": "uri or source_id",
    **dict.fromkeys(("url", "source", "path", "address", "rtsp", "rtsp_url", "stream", "stream_url", "input"), "uri"),
    "conf": "score_threshold",
    "confidence": "score_threshold",
    "score": "score_threshold",
    "threshold": "score_threshold",
    "iou": "iou_threshold",
    "nms": "iou_threshold",
    "imgsz": "size",
    "img_size": "size",
    "input_size": "size",
    "weights": "model",
    "device": "backend",
    "half": "precision",
    "fp16": "precision",
    "f16": "precision",
    "labels": "names",
    "batch": "max_batch",
    "batch_size": "max_batch",
    "cameras": "sources",
    "streams": "sources",
    "rate": "max_fps",
    "framerate": "max_fps",
    "resolution": "size_wh",
    "tracking": "tracker",
}
"""Terms of other tools, and the corresponding keys here."""
_IN_URI = "write it into the address: uri: rtsp://USER:PASSWORD@HOST/PATH"
_BY_BRIDGE = "another program passes messages on: framewire bridge, see docs/how-to/other-systems.md"
EXPLAINED: Mapping[str, str] = {
    **dict.fromkeys(("user", "username", "login", "password"), _IN_URI),
    **dict.fromkeys(("mqtt", "broker", "webhook", "homeassistant", "redis"), _BY_BRIDGE),
    **dict.fromkeys(
        ("log", "logs", "logging", "log_level", "loglevel", "verbose"), "options of the command: -v, --quiet"
    ),
    "max_det": "at most 300 boxes of a frame are kept: score_threshold and classes select fewer",
    "agnostic_nms": "boxes of different classes do not suppress each other, which cannot be changed",
}
"""Terms of other tools that are not keys here, and what to use instead."""
_LIMITS: Mapping[str, str] = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_MEDIA = re.compile(
    r"\.(mp4|mkv|avi|mov|webm|m4v|mpe?g|ts|flv|wmv|h?26[45]|hevc|jpe?g|png|bmp|gif|webp|avif|heic)$", re.IGNORECASE
)


def suggestion(root: type[BaseModel], location: Sequence[str | int]) -> str:
    """Return the hint after `unknown key`: the intended key, with its section if it is in another one."""
    word = str(location[-1])[:MAX_WORD_CHARS]
    other = OTHER_WORDS.get(word, word)
    model = _model_at(root, location[:-1])
    if set(other.split(" or ")) <= model.model_fields.keys():
        return f": did you mean {other}?"
    sections, plural = list(_sections(root)), f"{word}s"
    is_elsewhere = any(word in keys for path, keys in sections if "." not in path)
    for key in (plural, OTHER_WORDS.get(plural), word.removesuffix("s")):
        if key in model.model_fields and not is_elsewhere:
            return f": did you mean {key}?"
    if word in EXPLAINED:
        return f": {EXPLAINED[word]}"
    places = [f"{path}.{key}" for key in (plural, word, other) for path, keys in sections if key in keys]
    elsewhere = min(places, key=lambda place: place.count("."), default=None)
    near = nearest(word, list(model.model_fields))
    near = elsewhere or near if len(location) == 1 else near or elsewhere
    return f": did you mean {near}?" if near else f": expected one of {', '.join(model.model_fields)}"


def expected_number(root: type[BaseModel], location: Sequence[str | int]) -> str:
    """Return `expected a finite number, at least 0 and at most 1`: what the field at `location` accepts."""
    field, model = None, root
    for part in location:
        found = model.model_fields.get(str(part))
        if found is not None:
            field, model = found, section_of(found.annotation) or model
    limits = dict(_limits(field)) if field is not None else {}
    allowed = " and ".join(f"{words} {limits[key]:g}" for key, words in _LIMITS.items() if key in limits)
    return f"expected a finite number{', ' if allowed else ''}{allowed}"


def _limits(part: object) -> Iterator[tuple[str, float]]:
    """Yield the limits in a field or its type, by the names that pydantic gives them."""
    constraints: tuple[object, ...] = getattr(part, "metadata", ()) or getattr(part, "__metadata__", ())
    for constraint in constraints:
        yield from ((key, float(getattr(constraint, key))) for key in _LIMITS if hasattr(constraint, key))
        yield from _limits(constraint)
    for inner in typing.get_args(getattr(part, "annotation", part)):
        yield from _limits(inner)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known key that `word` most likely means: similar to a whole key or a part of one (`scoore`, `id`)."""

    def likeness(key: str) -> float:
        parts = [difflib.SequenceMatcher(None, word, part).ratio() for part in key.split("_")]
        return max(difflib.SequenceMatcher(None, word, key).ratio(), 0.95 * max(parts))

    best = max(known, key=likeness)
    return best if likeness(best) >= LIKENESS else None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `did you mean X?`, or else the existing names, for an unknown name."""
    by_lower = {name.lower(): name for name in known}
    if word.strip().lower() in by_lower:
        return f"did you mean {by_lower[word.strip().lower()]}?"
    close = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.65)
    if close:
        return f"did you mean {' or '.join(by_lower[name] for name in close)}?"
    some = ", ".join(list(known)[:8]) + (", ..." if len(known) > 8 else "")
    return f"expected one of {some}" if known else "there is none"


def why_no_configuration(path: str) -> str | None:
    """Return what a path given as a configuration actually is, or None if it may be a configuration."""
    if path.isdecimal() or _MEDIA.search(path) or path.startswith("/dev/video"):
        return "a camera, video or image"
    if Path(path).suffix.lower() in (".onnx", ".plan", ".engine", ".tflite", ".xml", ".pt"):
        return "a model"
    return "a folder" if Path(path).is_dir() else None


def section_of(annotation: object) -> type[BaseModel] | None:
    """Return the section in a field's type: plain, in a list, or optional."""
    is_class = isinstance(annotation, type) and typing.get_origin(annotation) is None  # list[X] is a type in 3.10
    if is_class and issubclass(cast("type", annotation), BaseModel):
        return cast("type[BaseModel]", annotation)
    for part in typing.get_args(annotation):
        found = section_of(part)
        if found is not None:
            return found
    return None


def _model_at(root: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    model = root
    for part in location:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = section_of(field.annotation) or model
    return model


def _sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield each section of a configuration by its dotted path, with its keys."""
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            here = f"{path}{name}" + (".0" if str(field.annotation).startswith("list") else "")
            yield here, list(inner.model_fields)
            yield from _sections(inner, f"{here}.")


@contextmanager
def at_key(*paths: str) -> Iterator[None]:
    """Prefix a `ConfigError` raised in the block with the path of its key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{' or '.join(paths)}: {error}") from error
