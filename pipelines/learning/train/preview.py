"""`dataset augment`: a contact sheet of images as training will see them, changed at random."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.optional import require
from engine.video.read_image import write_image
from pipelines.learning.dataset.project import Project
from pipelines.learning.train.augment import Samples
from pipelines.learning.train.options import Augment

COLOURS = ((255, 160, 74), (122, 196, 63), (61, 177, 255), (107, 107, 255), (255, 139, 192), (216, 208, 57))
GAP = 6
MAX_PICTURES = 200


def preview(
    project: Project, augment: Augment, out: Path, *, count: int = 12, size: int = 320, seed: int = 0
) -> dict[str, Any]:
    """Write a contact sheet of `count` training images with their boxes, changed as `framewire train` does.

    Args:
        project: whose training split is shown; the test split never is.
        augment: the changes.
        out: the file.
        count: number of images.
        size: rows and columns of each, as `train --size`.
        seed: of the choice and of the changes.

    Raises:
        ConfigError: nothing is labelled, or the file cannot be written.
        MissingDependencyError: the extra `train` is not installed.
    """
    if not 1 <= count <= MAX_PICTURES:
        raise ConfigError(f"--preview {count}: expected 1 to {MAX_PICTURES}")
    images = project.images("train")
    if not images:
        raise ConfigError(f"{project.folder}: no labelled images in the training split yet")
    torch = require("torch", extra="train")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    chosen = [images[at] for at in rng.permutation(len(images))[:count].tolist()]
    entries = [_entry(project, image) for image in chosen]
    samples = Samples(torch, entries, size, augment, rng)
    cells = [_cell(*samples[row % len(samples)], project.classes) for row in range(count)]
    write_image(out, _grid(cells))
    return {"file": str(out), "pictures": count, "of": len(images), "size": size}


def _entry(project: Project, image: Path) -> dict[str, Any]:
    boxes = [[box.class_id, box.cx, box.cy, box.w, box.h] for box in project.boxes(image)]
    return {"image": str(image), "boxes": boxes}


def _cell(image: Any, boxes: Any, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return a changed image (3, s, s) in 0..1 RGB with its boxes, as (s, s, 3) BGR."""
    pixels = (image.clamp(0, 1).numpy() * 255).astype(np.uint8).transpose(1, 2, 0)[..., ::-1].copy()
    side = len(pixels)
    for class_id, cx, cy, w, h in boxes.tolist():
        colour = COLOURS[int(class_id) % len(COLOURS)]
        low = round((cx - w / 2) * side), round((cy - h / 2) * side)
        cv2.rectangle(pixels, low, (round((cx + w / 2) * side), round((cy + h / 2) * side)), colour, 2)
        name = classes[int(class_id)] if class_id < len(classes) else str(int(class_id))
        cv2.putText(
            pixels, name, (low[0] + 3, max(low[1] - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA
        )
    return np.asarray(pixels, np.uint8)


def _grid(cells: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    columns = math.ceil(math.sqrt(len(cells) * 4 / 3))
    rows, side = math.ceil(len(cells) / columns), len(cells[0])
    canvas = np.full((rows * (side + GAP) + GAP, columns * (side + GAP) + GAP, 3), 24, np.uint8)
    for at, cell in enumerate(cells):
        y, x = (GAP + (side + GAP) * part for part in divmod(at, columns))
        canvas[y : y + side, x : x + side] = cell
    return canvas
