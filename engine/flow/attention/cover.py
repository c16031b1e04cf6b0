"""Chooses the windows that cover the places to examine at the lowest cost of inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.flow.attention.geometry import Window

FIXED_AREA = 4500
"""What an inference costs besides its area, in pixels (yolo11n INT8 on a CPU: 0.35 ms, and 77 us per 1000 pixels)."""
WHOLE_SHARE = 0.85
"""Windows that cost this share of the whole frame are not worth it."""
MAX_WINDOWS = 6
MAX_PLACES = 16
"""Separate places up to which windows are sought; beyond, too much is going on."""

Span = tuple[int, int, int, int]
"""Left, top, right, bottom in cells of the grid."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid of the model's stride on its frame; a window aligned with it shows the model the same pixels.

    Attributes:
        step: pixels per cell.
        columns: cells per row.
        rows: cells per column.
        sizes: columns and rows of the windows that the model can run.
    """

    step: int
    columns: int
    rows: int
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, frame_wh: tuple[int, int], step: int, sizes_wh: Sequence[tuple[int, int]]) -> Grid:
        """Return the grid of a model's frame; only windows that fit into it are used."""
        columns, rows = frame_wh[0] // step, frame_wh[1] // step
        cells = ((width // step, height // step) for width, height in sizes_wh)
        return cls(step, columns, rows, tuple((w, h) for w, h in cells if w <= columns and h <= rows))

    def mark(self, needed: NDArray[np.uint8], xyxy: Sequence[float], margin: float) -> None:
        """Mark the cells of a (rows, columns) map that a box, grown by a margin in pixels, touches."""
        x1, y1 = (max(int((side - margin) // self.step), 0) for side in xyxy[:2])
        x2, y2 = (max(int(-(-(side + margin) // self.step)), 0) for side in xyxy[2:])
        needed[y1:y2, x1:x2] = 1

    def nothing(self) -> NDArray[np.uint8]:
        """Return a (rows, columns) map without marks."""
        return np.zeros((self.rows, self.columns), np.uint8)


def cover(needed: NDArray[np.uint8], grid: Grid) -> list[Window] | None:
    """Return windows that cover all marked cells; None if the whole frame is as good.

    Args:
        needed: (rows, columns) 1 where detection is needed.
        grid: of the model's frame.

    >>> grid = Grid.of((640, 384), 32, [(192, 192), (320, 320)])
    >>> needed = grid.nothing()
    >>> grid.mark(needed, (100, 100, 150, 200), margin=8)
    >>> cover(needed, grid)
    [(0, 32, 192, 224)]
    """
    if needed.mean() > WHOLE_SHARE:
        return None
    count, _, stats, _ = cv2.connectedComponentsWithStats(needed, connectivity=4)
    if count - 1 > MAX_PLACES:
        return None
    spans = [_fit((x, y, x + width, y + height), grid) for x, y, width, height, _ in stats[1:].tolist()]
    fitting = [span for span in spans if span is not None]
    if len(fitting) < len(spans):
        return None
    chosen = _merged(fitting, grid)
    whole = _cost((0, 0, grid.columns, grid.rows), grid)
    if len(chosen) > MAX_WINDOWS or sum(_cost(span, grid) for span in chosen) >= WHOLE_SHARE * whole:
        return None
    step = grid.step
    return [(x1 * step, y1 * step, x2 * step, y2 * step) for x1, y1, x2, y2 in chosen]


def _merged(spans: list[Span], grid: Grid) -> list[Span]:
    """Return the windows after joining pairs for as long as that is cheaper, the best pair first."""
    while len(spans) > 1:
        best: tuple[int, int, int, Span] | None = None
        for i, a in enumerate(spans):
            for j, b in enumerate(spans[:i]):
                joined = _fit((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])), grid)
                if joined is None:
                    continue
                gain = _cost(a, grid) + _cost(b, grid) - _cost(joined, grid)
                if gain > 0 and (best is None or gain > best[0]):
                    best = gain, i, j, joined
        if best is None:
            break
        _, i, j, joined = best
        spans = [span for n, span in enumerate(spans) if n not in (i, j)] + [joined]
    return spans


def _fit(span: Span, grid: Grid) -> Span | None:
    """Return the smallest window around a span, in the frame; None if none is large enough."""
    x1, y1, x2, y2 = span
    fitting = [(w * h, w, h) for w, h in grid.sizes if w >= x2 - x1 and h >= y2 - y1]
    if not fitting:
        return None
    _, width, height = min(fitting)
    left = min(max((x1 + x2 - width) // 2, 0), grid.columns - width)
    top = min(max((y1 + y2 - height) // 2, 0), grid.rows - height)
    return left, top, left + width, top + height


def _cost(span: Span, grid: Grid) -> int:
    return FIXED_AREA + (span[2] - span[0]) * (span[3] - span[1]) * grid.step * grid.step
