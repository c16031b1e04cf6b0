"""Histograms of oriented gradients (Dalal and Triggs 2005) as an ONNX graph.

OpenCV 5 has HOG only in its contrib modules; a graph runs on every backend, and is the same in training and in the
engine.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.learning.classic.graph import GraphBuilder

BINS = 9
CELL = 8
GREY = (0.299, 0.587, 0.114)
EPSILON = 1e-3
TINY = 1e-9


def hog(graph: GraphBuilder, images: str, size: int) -> str:
    """Add the features of (b, 3, size, size) RGB images and return (b, D): blocks of 2 x 2 cells of 9 directions.

    A gradient is shared between the two nearest directions; each block is scaled to length 1.
    """
    cells = size // CELL
    dx, dy = _gradients(graph, images)
    length = graph.node("Sqrt", _add(graph, _mul(graph, dx, dx), _mul(graph, dy, dy), graph.weight(TINY)))
    shares = _directions(graph, dx, dy, length)
    pooled = graph.node("AveragePool", shares, kernel_shape=[CELL, CELL], strides=[CELL, CELL])
    corners = [_block_part(graph, pooled, row, column, cells - 1) for row in (0, 1) for column in (0, 1)]
    blocks = graph.node("Concat", *corners, axis=1)
    norm = graph.node("ReduceL2", blocks, axes=[1], keepdims=1)
    scaled = graph.node("Div", blocks, graph.node("Add", norm, graph.weight(EPSILON)))
    return graph.node("Flatten", scaled, axis=1)


def _mul(graph: GraphBuilder, *factors: str) -> str:
    return graph.node("Mul", *factors)


def _add(graph: GraphBuilder, first: str, *others: str) -> str:
    for other in others:
        first = graph.node("Add", first, other)
    return first


def _gradients(graph: GraphBuilder, images: str) -> tuple[str, str]:
    """Return the (b, 1, h, w) differences of brightness to the right and downwards, with the edge repeated."""
    grey = graph.node("Conv", images, graph.weight(np.reshape(GREY, (1, 3, 1, 1))))
    padded = graph.node("Pad", grey, graph.weight([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="edge")
    right, down = np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 3, 3))
    right[0, 0, 1], down[0, 0, :, 1] = (-0.5, 0, 0.5), (-0.5, 0, 0.5)
    return graph.node("Conv", padded, graph.weight(right)), graph.node("Conv", padded, graph.weight(down))


def _directions(graph: GraphBuilder, dx: str, dy: str, length: str) -> str:
    """Return (b, 9, h, w): the gradient's length, shared between the directions nearest to it (without sign)."""
    angle = np.arange(BINS) * math.pi / BINS
    square = _mul(graph, length, length)
    cosine = graph.node("Div", graph.node("Sub", _mul(graph, dx, dx), _mul(graph, dy, dy)), square)
    sine = graph.node("Div", _mul(graph, _mul(graph, dx, dy), graph.weight(2)), square)
    along = _mul(graph, cosine, graph.weight(np.cos(2 * angle).reshape(1, BINS, 1, 1)))
    across = _mul(graph, sine, graph.weight(np.sin(2 * angle).reshape(1, BINS, 1, 1)))
    inside = graph.node("Clip", graph.node("Add", along, across), graph.weight(-1), graph.weight(1))
    distance = _mul(graph, graph.node("Acos", inside), graph.weight(-BINS / (2 * math.pi)))
    nearness = graph.node("Relu", graph.node("Add", distance, graph.weight(1)))
    return _mul(graph, nearness, length)


def _block_part(graph: GraphBuilder, cells: str, row: int, column: int, count: int) -> str:
    starts = graph.weight([row, column], np.int64)
    ends = graph.weight([row + count, column + count], np.int64)
    return graph.node("Slice", cells, starts, ends, graph.weight([2, 3], np.int64))
