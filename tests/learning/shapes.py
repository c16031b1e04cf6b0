"""A detection data set drawn here: discs, squares and triangles of any colour on plain or noisy backgrounds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

NAMES = ("disc", "square", "triangle")
SIDE = 320


def background(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return smooth clouds of random colours, with lines."""
    coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 8))):
        start, end = (tuple(map(int, rng.integers(0, SIDE, 2))) for _ in range(2))
        cv2.line(image, start, end, tuple(map(int, rng.integers(0, 256, 3))), int(rng.integers(1, 4)), cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def picture(rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[tuple[int, int, int, int]]]:
    """Return an image and its objects: class, centre and radius."""
    image, objects = background(rng), []
    for _ in range(int(rng.integers(1, 5))):
        kind, radius = int(rng.integers(0, 3)), int(rng.integers(16, 46))
        x, y = (int(value) for value in rng.integers(radius, SIDE - radius, 2))
        if any(abs(x - a) < radius + r and abs(y - b) < radius + r for _, a, b, r in objects):
            continue
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        if kind == 0:
            cv2.circle(image, (x, y), radius, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.rectangle(image, (x - radius, y - radius), (x + radius, y + radius), colour, -1)
        else:
            corners = np.array([[x, y - radius], [x - radius, y + radius], [x + radius, y + radius]])
            cv2.fillPoly(image, [corners], colour, cv2.LINE_AA)
        objects.append((kind, x, y, radius))
    return image, objects


def write_shapes(folder: Path, train: int, val: int, seed: int = 1) -> Path:
    """Write `train` and `val` images with YOLO labels and a `data.yaml`."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for number in range(count):
            image, objects = picture(rng)
            cv2.imwrite(str(folder / "images" / part / f"{number:03d}.jpg"), image)
            rows = [
                f"{k} {x / SIDE:.5f} {y / SIDE:.5f} {2 * r / SIDE:.5f} {2 * r / SIDE:.5f}" for k, x, y, r in objects
            ]
            (folder / "labels" / part / f"{number:03d}.txt").write_text("\n".join(rows))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {list(NAMES)}\n")
    return folder
