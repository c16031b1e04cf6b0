"""Labelled boxes as stored on disk: a text file per image, `class cx cy w h` per line, as fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import ConfigError
from pipelines.scoring.label_files import is_coordinate

MAX_LABEL_BYTES = 4 << 20
_EXPECTED = "expected class cx cy w h, as fractions of the image"


@dataclass(frozen=True, slots=True)
class Box:
    """One labelled object; centre and size are fractions of the image."""

    class_id: int
    cx: float
    cy: float
    w: float
    h: float

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """Corners as fractions of the image."""
        return self.cx - self.w / 2, self.cy - self.h / 2, self.cx + self.w / 2, self.cy + self.h / 2


@dataclass(frozen=True, slots=True)
class NamedBox:
    """An object from another tool's file, with its class by name. Raises `ValueError` if a number is not finite."""

    name: str
    cx: float
    cy: float
    w: float
    h: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.cx, self.cy, self.w, self.h))):
            raise ValueError(f"a box of {self.name[:40]!r} has a coordinate that is not a finite number")


def named_box(name: str, x1: float, y1: float, x2: float, y2: float, size_wh: Sequence[float]) -> NamedBox:
    """Return a box given in pixels of an image of this size.

    >>> named_box("cat", 10, 20, 30, 60, (100, 200))
    NamedBox(name='cat', cx=0.2, cy=0.2, w=0.2, h=0.2)
    """
    width, height = size_wh
    return NamedBox(name, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)


def boxes_from_text(text: str, place: str) -> list[Box]:
    """Return the boxes of one text file; a polygon becomes its bounding box. Raises `ConfigError` naming the line."""
    lines = enumerate(text.splitlines(), 1)
    return [_box(line, f"{place}, line {number}") for number, line in lines if line.strip()]


def text_from_boxes(boxes: Iterable[Box]) -> str:
    """Return the text of a label file; nine digits keep a box of the largest image to a thousandth of a pixel.

    >>> text_from_boxes([Box(1, 0.5, 0.25, 1 / 3, 0.1)])
    '1 0.5 0.25 0.333333333 0.1\\n'
    """
    return "".join(f"{one.class_id} {one.cx:.9g} {one.cy:.9g} {one.w:.9g} {one.h:.9g}\n" for one in boxes)


def _box(line: str, place: str) -> Box:
    parts = line.split()
    try:
        class_id, numbers = int(float(parts[0])), [float(part) for part in parts[1:]]
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{place}: {line[:60]!r}: {_EXPECTED}") from error
    if class_id < 0 or not all(map(is_coordinate, numbers)):
        raise ConfigError(f"{place}: {line[:60]!r}: {_EXPECTED}")
    if len(numbers) == 4:
        return Box(class_id, *numbers)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ConfigError(f"{place}: {len(numbers)} numbers after the class: expected 4, or a polygon")
    x, y = numbers[::2], numbers[1::2]
    left, top, right, bottom = min(x), min(y), max(x), max(y)
    return Box(class_id, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def why_unsound(box: Box, classes: int) -> str | None:
    """Return what is wrong with a box, or None.

    >>> why_unsound(Box(0, 0.5, 0.5, 1.5, 0.2), 1)
    'reaches outside the image'
    """
    if box.class_id >= classes:
        return f"has class {box.class_id}: there are {classes} classes"
    if box.w <= 0 or box.h <= 0:
        return "has no area"
    if min(box.xyxy) < -1e-6 or max(box.xyxy) > 1 + 1e-6:
        return "reaches outside the image"
    return None
