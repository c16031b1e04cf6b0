"""The images of a training run: listed and hashed by the parent, read by the child. The test part is never listed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ConfigError
from pipelines.learning.classic.crops import MIN_PER_CLASS, read_listing
from pipelines.learning.yaml_files import class_names, yaml_file
from pipelines.scoring.labels import Truth, find_images, read_truth
from pipelines.scoring.pictures import read_picture

VAL_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Listing:
    """The images for training and for model selection.

    Attributes:
        class_names: by class id.
        train: entries of `image`, and `boxes` (class, cx, cy, w, h as shares) or `class_id`.
        val: the same, of images not used for training.
        sha256: of all images and labels.
    """

    class_names: tuple[str, ...]
    train: list[dict[str, Any]]
    val: list[dict[str, Any]]
    sha256: str

    def write(self, path: Path) -> None:
        """Write the listing for the child."""
        values = {"class_names": self.class_names, "train": self.train, "val": self.val}
        path.write_text(json.dumps(values), encoding="utf-8")


def list_objects(folder: Path, classes: Sequence[str] | None, seed: int) -> Listing:
    """List a detection data set: `images/` and `labels/`, with `train` and `val` in each or not, names in `data.yaml`.

    Raises:
        ConfigError: it has no class names, no images or no objects, or a class without objects.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder: expected a data set of images/ and labels/, or a project")
    names = tuple(classes or _names(folder))
    if (folder / "images" / "train").is_dir():
        train = _objects(folder / "images" / "train", folder / "labels" / "train", names)
        place = folder / "images" / "val"
        val = _objects(place, folder / "labels" / "val", names) if place.is_dir() else []
    else:
        train, val = _objects(folder, None, names), []
    if not val:
        train, val = _split(train, seed)
    counts = np.bincount([int(row[0]) for one in train for row in one["boxes"]], minlength=len(names))
    for name, count in zip(names, counts.tolist(), strict=True):
        if count < MIN_PER_CLASS:
            raise ConfigError(
                f"{folder}: class {name!r} has {count} objects to learn from: expected at least {MIN_PER_CLASS}; label "
                "more, or leave the class out"
            )
    return Listing(names, train, val, _hash([*train, *val]))


def list_pictures(folder: Path, holdout: float, seed: int) -> Listing:
    """List a classification data set: one folder of images per class. Raises `ConfigError`."""
    names, paths, class_id, is_val = read_listing(folder, holdout=holdout, seed=seed)
    entries = [{"image": str(path), "class_id": number} for path, number in zip(paths, class_id.tolist(), strict=True)]
    parts = [[entry for entry, held in zip(entries, is_val, strict=True) if held == part] for part in (False, True)]
    return Listing(names, parts[0], parts[1], _hash(entries))


def _names(folder: Path) -> list[str]:
    """Return the class names of `data.yaml` or `project.yaml`."""
    for name, key in (("data.yaml", "names"), ("project.yaml", "classes")):
        path = folder / name
        if path.is_file():
            values = yaml_file(path)
            names = class_names(values.get(key) if isinstance(values, dict) else None, f"{path}: {key}")
            if names:
                return names
            raise ConfigError(f"{path}: {key}: expected a list of class names")
    raise ConfigError(f"{folder}: no data.yaml with names: give --classes NAME,NAME in the order of the labels")


def _objects(images: Path, labels: Path | None, names: Sequence[str]) -> list[dict[str, Any]]:
    truth = read_truth(images, labels if labels is None or labels.is_dir() else None, names)
    find_images(images)
    return [{"image": str(one.image), "boxes": _shares(one)} for one in truth]


def _shares(truth: Truth) -> list[list[float]]:
    """Return rows of class, centre and size as fractions of the image; crowd regions are left out."""
    xyxy = truth.xyxy
    if not truth.normalised:
        image = read_picture(truth.image)
        xyxy = (xyxy / np.array([image.shape[1], image.shape[0]] * 2)).astype(np.float32)
    xyxy = np.clip(xyxy, 0, 1)
    centre, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    rows = np.concatenate((truth.class_id[:, None], centre, size), axis=1)
    kept = rows[~truth.crowd & (size > 1e-4).all(axis=1)]
    return [[float(value) for value in row] for row in kept]


def _split(entries: list[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the images for training and for model selection, chosen at random.

    Holding out whole blocks of a clip's frames would give a more honest estimate, but training would miss what only
    they show.
    """
    if len(entries) < 5:
        raise ConfigError(f"{len(entries)} images: expected at least 5, or your own images/val")
    order = np.random.default_rng(seed).permutation(len(entries)).tolist()
    held = set(order[: max(1, round(VAL_SHARE * len(entries)))])
    return [e for n, e in enumerate(entries) if n not in held], [e for n, e in enumerate(entries) if n in held]


def _hash(entries: Sequence[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        labels = json.dumps(entry.get("boxes", entry.get("class_id")))
        digest.update(hashlib.sha256(Path(entry["image"]).read_bytes()).digest() + labels.encode())
    return digest.hexdigest()
