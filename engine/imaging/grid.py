"""Several cameras in one image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.imaging.scene import TEXT, write

Image = NDArray[np.uint8]
SIZE_WH = (1920, 1080)
EMPTY = 40
GAP = 4


class Grid:
    """Puts one image per source into an image of fixed size, row by row in the order of their names.

    Args:
        names: the sources that have a place from the start; others get one when they appear.
        size_wh: of the whole image.
    """

    def __init__(self, names: Sequence[str] = (), size_wh: tuple[int, int] = SIZE_WH) -> None:
        self._size_wh = size_wh
        self._tiles: dict[str, Image | None] = dict.fromkeys(names)
        self._notes: dict[str, str] = {}

    @property
    def tile_wh(self) -> tuple[int, int]:
        """Width and height of the place of each source."""
        columns = max(math.ceil(math.sqrt(len(self._tiles))), 1)
        rows = max(math.ceil(len(self._tiles) / columns), 1)
        return self._size_wh[0] // columns, self._size_wh[1] // rows

    def has(self, name: str) -> bool:
        """Return whether a source has a place."""
        return name in self._tiles

    def put(self, name: str, picture: Image) -> None:
        """Show an image, (H, W, 3) uint8 BGR, in the place of a source, scaled to fit."""
        self._tiles[name] = picture
        self._notes.pop(name, None)

    def note(self, name: str, text: str) -> None:
        """Write a text, such as `offline`, on the last image of a source until its next one."""
        self._tiles.setdefault(name, None)
        self._notes[name] = text

    def picture(self) -> Image:
        """Return the whole image, (H, W, 3) uint8 BGR."""
        whole = np.full((self._size_wh[1], self._size_wh[0], 3), EMPTY, np.uint8)
        width, height = self.tile_wh
        columns = self._size_wh[0] // width
        for number, (name, tile) in enumerate(self._tiles.items()):
            x, y = number % columns * width, number // columns * height
            place = whole[y : y + height, x : x + width]
            text = self._notes.get(name, "" if tile is not None else "waiting")
            if tile is not None:
                _fit(place[GAP // 2 : height - GAP // 2, GAP // 2 : width - GAP // 2], tile, is_old=bool(text))
            if text:
                write(place, f"{name}: {text}", (width // 2 - 8 * len(name), height // 2), max(height / 720, 0.6), TEXT)
        return whole


def _fit(place: Image, picture: Image, *, is_old: bool) -> None:
    """Draw an image into the middle of a place, keeping its aspect; an old one is dimmed."""
    scale = min(place.shape[1] / picture.shape[1], place.shape[0] / picture.shape[0])
    size = max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sized = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    x, y = (place.shape[1] - size[0]) // 2, (place.shape[0] - size[1]) // 2
    place[y : y + size[1], x : x + size[0]] = sized // 2 if is_old else sized
