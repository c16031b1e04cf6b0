"""Twelve kinds of image degradation of a camera, each at five strengths, after ImageNet-C (Hendrycks 2019).

Implemented with OpenCV alone. The noise depends on the seed and the image's name, not on the order of images.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError

Image = NDArray[np.uint8]
Rng = np.random.Generator
STRENGTHS = (1, 2, 3, 4, 5)
DROPS_PER_PIXEL = 1 / 900
Corruption = Callable[[Image, int, Rng], Image]


def _bytes(values: NDArray[np.floating]) -> Image:
    result: Image = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return result


def _gaussian_noise(image: Image, level: int, rng: Rng) -> Image:
    return _bytes(image + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[level] * 255, image.shape))


def _shot_noise(image: Image, level: int, rng: Rng) -> Image:
    photons = (60, 25, 12, 5, 3)[level]
    return _bytes(rng.poisson(image / 255 * photons) / photons * 255)


def _impulse_noise(image: Image, level: int, rng: Rng) -> Image:
    share, chance = (0.03, 0.06, 0.09, 0.17, 0.27)[level], rng.random(image.shape)
    return np.where(chance < share / 2, 0, np.where(chance > 1 - share / 2, 255, image)).astype(np.uint8)


def _defocus(image: Image, level: int, rng: Rng) -> Image:
    radius = (2, 3, 4, 6, 8)[level]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.float32)
    return np.asarray(cv2.filter2D(image, -1, disc / disc.sum()), np.uint8)


def _motion_blur(image: Image, level: int, rng: Rng) -> Image:
    length = (7, 11, 15, 21, 29)[level]
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), float(rng.uniform(-45, 45)), 1)
    line = cv2.warpAffine(line, turn, (length, length))
    return np.asarray(cv2.filter2D(image, -1, line / line.sum()), np.uint8)


def _fog(image: Image, level: int, rng: Rng) -> Image:
    height, width = image.shape[:2]
    coarse = rng.normal(0, 1, (6, 8)).astype(np.float32)
    cloud = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    share = np.clip((0.3, 0.42, 0.54, 0.66, 0.78)[level] + 0.08 * cloud, 0, 0.95)
    return _bytes(image * (1 - share) + 225 * share)


def _rain(image: Image, level: int, rng: Rng) -> Image:
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    length = max(6, height // 12)
    for _ in range(round((1, 2, 4, 6, 9)[level] * DROPS_PER_PIXEL * height * width / 4)):
        x, y = int(rng.integers(0, width)), int(rng.integers(-length, height))
        cv2.line(layer, (x, y), (x - length // 4, y + length), int(rng.integers(120, 220)), 1, cv2.LINE_AA)
    share = cv2.GaussianBlur(layer, (3, 3), 0)[..., None] / 255
    return _bytes(image * (0.92 - 0.06 * level) * (1 - share) + 215 * share)


def _dark(image: Image, level: int, rng: Rng) -> Image:
    light = (0.5, 0.35, 0.22, 0.14, 0.08)[level]
    return _bytes(image * light + rng.normal(0, 2 + 2 * level, image.shape))


def _bright(image: Image, level: int, rng: Rng) -> Image:
    return _bytes(image * (1.3, 1.6, 2.0, 2.6, 3.4)[level] + (10, 20, 30, 40, 50)[level])


def _contrast(image: Image, level: int, rng: Rng) -> Image:
    factor, mean = (0.4, 0.3, 0.2, 0.12, 0.06)[level], image.mean(axis=(0, 1), keepdims=True)
    return _bytes((image - mean) * factor + mean)


def _pixelate(image: Image, level: int, rng: Rng) -> Image:
    share, (height, width) = (0.5, 0.35, 0.25, 0.17, 0.12)[level], image.shape[:2]
    small = cv2.resize(image, (max(1, int(width * share)), max(1, int(height * share))), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _jpeg(image: Image, level: int, rng: Rng) -> Image:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, (25, 15, 10, 6, 3)[level]])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8) if done else image


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus": _defocus,
    "motion_blur": _motion_blur,
    "fog": _fog,
    "rain": _rain,
    "dark": _dark,
    "bright": _bright,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}


def corrupt(image: Image, kind: str, strength: int, *, name: str = "", seed: int = 0) -> Image:
    """Return a corrupted copy of a (h, w, 3) uint8 image.

    Args:
        image: the image.
        kind: one of `CORRUPTIONS`.
        strength: 1 to 5.
        name: of the image; the same name, seed and kind give the same noise.
        seed: of the noise.

    Raises:
        ConfigError: an unknown kind or strength.

    >>> corrupt(np.full((8, 8, 3), 100, np.uint8), "dark", 5).max() < 60
    True
    """
    if kind not in CORRUPTIONS:
        raise ConfigError(f"corruption {kind!r}: expected one of {', '.join(CORRUPTIONS)}")
    if strength not in STRENGTHS:
        raise ConfigError(f"strength {strength}: expected 1 to 5")
    rng = np.random.default_rng([seed, zlib.crc32(f"{kind}\0{name}".encode("utf-8", "surrogateescape"))])
    return CORRUPTIONS[kind](image, strength - 1, rng)


def parse_strengths(text: str) -> Sequence[int]:
    """Return the strengths in a text such as `1,3,5`. Raises `ConfigError`."""
    try:
        strengths = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        strengths = ()
    if not strengths or not set(strengths) <= set(STRENGTHS):
        raise ConfigError(f"strengths {text!r}: expected some of 1,2,3,4,5")
    return strengths
