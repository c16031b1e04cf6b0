"""Charts of a test as SVG, drawn here so that a report needs no other library and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
MAX_CLASSES = 40
"""With more classes than this, a confusion matrix shows only the most confused ones."""
CELL = 30
Counts = NDArray[np.int64]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" font-family="sans-serif" {more}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
    )


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_name: str, y_name: str) -> str:
    """Return a chart of lines by name, each of x and y values from 0 to 1."""
    left, top, side = 52, 16, 340
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = left + tick * side, top + (1 - tick) * side
        parts.append(f'<path d="M{left} {y:.1f}h{side}M{x:.1f} {top}v{side}" stroke="#e5e7eb" fill="none"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:g}", 'text-anchor="end"'))
        parts.append(_text(x, top + side + 18, f"{tick:g}", 'text-anchor="middle"'))
    for index, (name, (xs, ys)) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(f"{left + x * side:.1f},{top + (1 - y) * side:.1f}" for x, y in zip(xs, ys, strict=True))
        dashes = "" if index < len(COLOURS) else ' stroke-dasharray="6 3"'
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(_text(left + side + 40, top + 12 + 18 * index, name))
        key = f"M{left + side + 14} {top + 8 + 18 * index}h20"  # as long as one dash, gap and dash
        parts.append(f'<path d="{key}" fill="none" stroke="{colour}" stroke-width="3"{dashes}/>')
    parts.append(_text(left + side / 2, top + side + 38, x_name, 'text-anchor="middle"'))
    parts.append(_text(14, top + side / 2, y_name, f'text-anchor="middle" transform="rotate(-90 14 {top + side / 2})"'))
    height = max(top + side + 50, top + 24 + 18 * len(series))
    return _svg(left + side + 234, height, parts, f"{y_name} by {x_name}")


def confusion_matrix(table: Counts, names: Sequence[str]) -> str:
    """Return an image of (true, found) counts; each row is coloured by its shares."""
    rows = _shown(table)
    table, names = table[np.ix_(rows, rows)], [names[row] for row in rows]
    left, top = 150, 130
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    parts = [_text(10, 20, "true class: rows, found class: columns", 'fill="#4b5563"')]
    for row, name in enumerate(names):
        y, x = top + row * CELL, left + row * CELL + CELL / 2
        parts.append(_text(left - 8, y + 20, _short(name), 'text-anchor="end"'))
        parts.append(_text(x, top - 8, _short(name), f'transform="rotate(-55 {x:.1f} {top - 8})"'))
        for column in range(len(names)):
            share, count = float(shares[row, column]), int(table[row, column])
            colour = f"rgba({'5,150,105' if row == column else '220,38,38'},{share:.2f})"
            at = left + column * CELL
            parts.append(f'<rect x="{at}" y="{y}" width="{CELL}" height="{CELL}" fill="{colour}" stroke="#e5e7eb"/>')
            if count:
                parts.append(_text(at + CELL / 2, y + 20, str(count), 'text-anchor="middle" font-size="10"'))
    side = len(names) * CELL
    return _svg(left + side + 110, top + side + 20, parts, "confusion matrix")


def _shown(table: Counts) -> list[int]:
    """Return the classes to show: those that occur, at most `MAX_CLASSES`, preferring the most confused."""
    occurs = np.flatnonzero(table.sum(axis=0) + table.sum(axis=1))
    wrong = (table.sum(axis=0) + table.sum(axis=1) - 2 * table.diagonal())[occurs]
    return sorted(occurs[np.argsort(-wrong, kind="stable")][:MAX_CLASSES].tolist())


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def bars(values: Mapping[str, float], reference: float | None, unit: str) -> str:
    """Return horizontal bars of values from 0 to 1, with a line at a reference."""
    left, width = 150, 340
    parts = []
    for index, (name, value) in enumerate(values.items()):
        y = 10 + 22 * index
        parts.append(_text(left - 8, y + 13, _short(name), 'text-anchor="end"'))
        parts.append(f'<rect x="{left}" y="{y}" width="{max(value, 0) * width:.1f}" height="16" fill="#2563eb"/>')
        parts.append(_text(left + max(value, 0) * width + 6, y + 13, f"{value:.3f}"))
    height = 22 * len(values) + 34
    if reference is not None:
        x = left + reference * width
        parts.append(f'<path d="M{x:.1f} 4V{height - 28}" stroke="#dc2626" stroke-dasharray="4 3"/>')
        parts.append(_text(x, height - 12, f"clean {reference:.3f}", 'text-anchor="middle" fill="#dc2626"'))
    return _svg(left + width + 90, height, parts, unit)
