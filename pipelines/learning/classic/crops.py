"""Images in folders named after their class, split into a training part and a held-out part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.sources.preparation import Preparation
from engine.video.read_image import IMAGE_SUFFIXES
from pipelines.scoring.pictures import read_picture

MIN_PER_CLASS = 10
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Crops:
    """Labelled images, read and prepared.

    Attributes:
        class_names: by class id.
        images: (h, w, 3) uint8 BGR each.
        class_id: (N,) int64.
        is_test: (N,) bool, held out.
        sha256: of all files with their classes.
    """

    class_names: tuple[str, ...]
    images: Sequence[Image]
    class_id: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    sha256: str

    def part(self, *, test: bool) -> tuple[list[Image], NDArray[np.int64]]:
        """Return the images, (h, w, 3) uint8 BGR each, and the (N,) classes of one part."""
        rows = np.flatnonzero(self.is_test == test)
        return [self.images[row] for row in rows.tolist()], self.class_id[rows]


def read_crops(folder: Path, *, holdout: float, seed: int, preparation: Preparation | None = None) -> Crops:
    """Read `folder/CLASS/*.jpg`; with `folder/train/CLASS` and `folder/test/CLASS` that split is kept.

    Args:
        folder: of one folder per class.
        holdout: share of each class to hold out, if the folder has no split.
        seed: of the split.
        preparation: applied to each image, as to the camera's frames.

    Raises:
        ConfigError: fewer than two classes, fewer than 10 images in one, or a file that is not an image.
    """
    names, paths, class_id, is_test = read_listing(folder, holdout=holdout, seed=seed)
    images = [_read(path, preparation) for path in paths]
    return Crops(names, images, class_id, is_test, _hash(paths, class_id))


def read_listing(
    folder: Path, *, holdout: float, seed: int
) -> tuple[tuple[str, ...], list[Path], NDArray[np.int64], NDArray[np.bool_]]:
    """Return class names, N images, their (N,) classes, and (N,) which are held out, without reading the images.

    Raises:
        ConfigError: fewer than two classes, or fewer than 10 images in one.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder: expected one folder of images per class in it")
    if not 0.05 <= holdout <= 0.9:
        raise ConfigError(f"holdout {holdout}: expected a share between 0.05 and 0.9")
    names, files, class_id = _listed(folder)
    given = np.array([is_test for _, is_test in files], bool)
    is_test = given if given.any() else _held_back(class_id, holdout, np.random.default_rng(seed))
    _check_counts(folder, names, class_id[~is_test], class_id[is_test])
    return names, [path for path, _ in files], class_id, is_test


def _listed(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, bool]], NDArray[np.int64]]:
    has_split = (folder / "train").is_dir() and (folder / "test").is_dir()
    roots = [(folder / "train", False), (folder / "test", True)] if has_split else [(folder, False)]
    names = sorted({place.name for root, _ in roots for place in root.iterdir() if place.is_dir()})
    if len(names) < 2:
        raise ConfigError(f"{folder}: {len(names)} folders of images: expected one per class, at least two")
    files, class_id = [], []
    for number, name in enumerate(names):
        for root, is_test in roots:
            found = pictures_of(root / name)
            files += [(path, is_test) for path in found]
            class_id += [number] * len(found)
    return tuple(names), files, np.array(class_id, np.int64)


def pictures_of(folder: Path) -> list[Path]:
    """Return the images in a folder by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _held_back(class_id: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which images are held out: the same share of each class, at random."""
    is_test = np.zeros(len(class_id), bool)
    for number in np.unique(class_id):
        rows = rng.permutation(np.flatnonzero(class_id == number))
        is_test[rows[: max(1, round(share * len(rows)))]] = True
    return is_test


def _check_counts(folder: Path, names: Sequence[str], learnt: NDArray[np.int64], held: NDArray[np.int64]) -> None:
    for number, name in enumerate(names):
        count = int((learnt == number).sum())
        if count < MIN_PER_CLASS:
            raise ConfigError(
                f"{folder}: class {name!r} has {count} images to learn from: expected at least {MIN_PER_CLASS}; "
                "add images, or remove the class"
            )
        if not (held == number).any():
            raise ConfigError(f"{folder}: class {name!r} has no image in test/: without one it cannot be scored")


def _read(path: Path, preparation: Preparation | None) -> Image:
    image = read_picture(path)
    return image if preparation is None else preparation.apply(image)


def _hash(paths: Sequence[Path], class_id: NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for path, number in zip(paths, class_id.tolist(), strict=True):
        digest.update(f"{number}\0{path.name}\0".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
