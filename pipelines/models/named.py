"""`framewire models`: the contents of the catalogue, and downloading its files to this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.catalogue import CATALOGUE, Download, NamedModel, find_named, why_missing
from engine.errors import ConfigError
from engine.paths import path_from_text
from pipelines.models.download import fetch, is_right, take

MIRROR_VARIABLE = "FRAMEWIRE_MODELS_FROM"
Progress = Callable[[int, int], None]


def listed() -> list[dict[str, Any]]:
    """Return one row per model, as plain values; opens no connection."""
    return [_row(model) for model in CATALOGUE.values()]


def _row(model: NamedModel) -> dict[str, Any]:
    source = model.download
    place = find_named(model.name)
    return {
        "name": model.name,
        "task": model.task,
        "licence": model.licence,
        "classes": model.classes,
        "size": None if model.size_wh is None else f"{model.size_wh[0]}x{model.size_wh[1]}",
        "map50": model.map50,
        "map50_95": model.map50_95,
        "ms": model.ms,
        "mb": _megabytes(model, place),
        "state": _state(model, place),
        "path": None if place is None else str(place),
        "address": None if source is None else source.address,
        "sha256": None if source is None else source.sha256,
        "origin": model.origin,
        "export": model.export or None,
        "use": model.use.replace("NAME", model.name),
        "note": model.note,
    }


def _megabytes(model: NamedModel, place: Path | None) -> float | None:
    if model.download is not None:
        return round(model.download.bytes / 1e6, 2)
    return None if place is None else round(place.stat().st_size / 1e6, 2)


def _state(model: NamedModel, place: Path | None) -> str:
    if model.asset:
        return "embedded"
    if model.download is None:
        return "export"
    return "here" if place is not None else "get"


def get(name: str, *, given: str | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Put the file of a model into the user's folder and return its path.

    Args:
        name: of the catalogue.
        given: a file, or the address of a file or of a folder (ending in `/`), to use in place of the catalogue's
            address; None: `FRAMEWIRE_MODELS_FROM`, else the catalogue's. The hash is always the catalogue's.
        progress: called with the bytes present and the total bytes.

    Raises:
        ConfigError: an unknown name, one that has to be exported, or a folder that cannot be written.
        DownloadError: the file cannot be downloaded, or is not the catalogue's.
    """
    model = named(name)
    place, wanted = model.path(), model.download
    if place is None or (wanted is None and not model.asset):
        raise ConfigError(f"{name} cannot be downloaded by name, because its hash is unknown: {model.how_to_get()}")
    fetched = wanted is not None and _bring(wanted, place, given or os.environ.get(MIRROR_VARIABLE), progress)
    return {"name": name, "path": str(place), "fetched": fetched, "licence": model.licence, "origin": model.origin}


def _bring(wanted: Download, place: Path, given: str | None, progress: Progress | None) -> bool:
    if given is None:
        return fetch(wanted, place, progress=progress)
    if given.lower().startswith(("http://", "https://")):
        address = given + wanted.file_name if given.endswith("/") else given
        return fetch(wanted, place, address=address, progress=progress)
    file = path_from_text(given)
    return take(wanted, file / wanted.file_name if file.is_dir() else file, place)


def path_of(name: str) -> Path:
    """Return the file of a model on this machine after checking its content. Raises `ConfigError`."""
    model = named(name)
    place = find_named(name)
    if place is None:
        raise ConfigError(f"{name}: {why_missing(name)}")
    if model.download is not None and not is_right(place, model.download):
        raise ConfigError(f"{place}: its content has changed: {model.how_to_get()}, which replaces it")
    return place


def named(name: str) -> NamedModel:
    """Return a model of the catalogue. Raises `ConfigError`, with a similar name if there is one."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    expected = f"expected one of {', '.join(CATALOGUE)}"
    raise ConfigError(f"{name}: {why_missing(name) or expected}")


def shown(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the columns of `listed` that fit a terminal."""
    names = ("name", "task", "licence", "size", "mb", "map50", "map50_95", "ms", "state")
    return [{name: "" if row[name] is None else row[name] for name in names} for row in rows]
