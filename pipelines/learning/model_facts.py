"""A model file's record of its training: stored in its ONNX metadata, printed by `inspect`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from engine.backends.files.base import read_model_file
from engine.errors import ConfigError
from engine.optional import require

PREFIX = "framewire_"


def stamp(path: Path, facts: Mapping[str, str], class_names: Sequence[str] | None = None) -> None:
    """Add facts to the metadata of an ONNX file, each under `framewire_NAME`, and class names if given.

    Raises:
        MissingDependencyError: onnx is not installed.
        OSError: the file cannot be written.
    """
    onnx, helper = require("onnx", extra="classic"), require("onnx.helper", extra="classic")
    model = onnx.load(str(path))
    values = {entry.key: entry.value for entry in model.metadata_props}
    values |= {f"{PREFIX}{key}": value for key, value in facts.items()}
    if class_names is not None:
        values["names"] = str(dict(enumerate(class_names)))
    del model.metadata_props[:]
    helper.set_model_props(model, values)
    part = path.with_name(f"{path.name}.part")
    onnx.save(model, str(part))
    part.replace(path)


def facts_of(path: Path) -> dict[str, str]:
    """Return the facts that `stamp` stored. Raises `ModelError`."""
    metadata = read_model_file(path).metadata
    return {key.removeprefix(PREFIX): str(value) for key, value in metadata.items() if key.startswith(PREFIX)}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_of(place: Path, suffixes: Collection[str] = (".onnx", ".npz")) -> Path:
    """Return the model file of a run or a release, or the file itself.

    Raises:
        ConfigError: a folder has no such file, or several.
    """
    if not place.is_dir():
        return place
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in suffixes)
    if len(found) != 1:
        raise ConfigError(f"{place}: {len(found)} models in it: name the file")
    return found[0]
