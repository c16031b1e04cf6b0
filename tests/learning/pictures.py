"""Labelled images made here: scikit-learn's digits, and drawn textures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
SIDE = 96


def write_digits(folder: Path, count: int) -> Path:
    """Write `count` images of each digit into a folder per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(10):
        place = folder / str(number)
        place.mkdir(parents=True)
        for row in np.flatnonzero(digits.target == number)[:count]:
            cv2.imwrite(str(place / f"{row:04d}.png"), (digits.images[row] / 16 * 255).round().astype(np.uint8))
    return folder


def texture(kind: int, rng: np.random.Generator) -> Image:
    """Return an image of stripes, checks, discs, strokes or clouds."""
    image = rng.normal(128, 12, (SIDE, SIDE))
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    phase, turn, pitch = rng.uniform(0, 6.28), rng.uniform(-0.3, 0.3), rng.uniform(0.35, 0.5)
    u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    if kind == 0:
        image += 60 * np.sign(np.sin(u * pitch + phase))
    elif kind == 1:
        image += 60 * np.sign(np.sin(u * pitch + phase) * np.sin(v * pitch + phase))
    elif kind == 2:
        for _ in range(30):
            at, radius = tuple(map(int, rng.integers(0, SIDE, 2))), int(rng.integers(3, 7))
            cv2.circle(image, at, radius, float(rng.integers(0, 255)), -1)
    elif kind == 3:
        for _ in range(25):
            start, end = (tuple(map(int, rng.integers(0, SIDE, 2))) for _ in range(2))
            cv2.line(image, start, end, float(rng.integers(0, 255)), 2)
    else:
        image = cv2.GaussianBlur(rng.normal(128, 200, (SIDE, SIDE)), (0, 0), 3)
        image = (image - image.mean()) / image.std() * 50 + 128
    return np.clip(image, 0, 255).astype(np.uint8)


def write_textures(folder: Path, count: int) -> Path:
    """Write `count` images of each of five textures into a folder per class."""
    rng = np.random.default_rng(0)
    for kind, name in enumerate(("stripes", "checks", "discs", "strokes", "clouds")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), texture(kind, rng))
    return folder
