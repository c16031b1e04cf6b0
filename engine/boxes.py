"""Boxes as numpy columns: conversion, clipping, overlap. Pure and vectorised.

`xyxy` is left, top, right, bottom in pixels, right and bottom exclusive; `cxcywh` is centre and size;
`tlwh` is left, top and size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.errors import ConfigError

Boxes = NDArray[np.float32]


def xyxy_from_cxcywh(cxcywh: Boxes) -> Boxes:
    """Convert (N, 4) centre-and-size boxes to xyxy.

    >>> xyxy_from_cxcywh(np.float32([[5, 5, 4, 2]]))
    array([[3., 4., 7., 6.]], dtype=float32)
    """
    half = cxcywh[:, 2:] * np.float32(0.5)
    return np.concatenate((cxcywh[:, :2] - half, cxcywh[:, :2] + half), axis=1)


def cxcywh_from_xyxy(xyxy: Boxes) -> Boxes:
    """Convert (N, 4) xyxy boxes to centre and size.

    >>> cxcywh_from_xyxy(np.float32([[3, 4, 7, 6]]))
    array([[5., 5., 4., 2.]], dtype=float32)
    """
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate((xyxy[:, :2] + size * np.float32(0.5), size), axis=1)


def xyxy_from_tlwh(tlwh: Boxes) -> Boxes:
    """Convert (N, 4) left-top-and-size boxes to xyxy.

    >>> xyxy_from_tlwh(np.float32([[3, 4, 4, 2]]))
    array([[3., 4., 7., 6.]], dtype=float32)
    """
    return np.concatenate((tlwh[:, :2], tlwh[:, :2] + tlwh[:, 2:]), axis=1)


def clip(xyxy: Boxes, width: int, height: int) -> Boxes:
    """Clip (N, 4) boxes to a `width` x `height` image.

    >>> clip(np.float32([[-5, 2, 30, 40]]), 20, 10)
    array([[ 0.,  2., 20., 10.]], dtype=float32)
    """
    limit = np.array([width, height, width, height], dtype=np.float32)
    return np.minimum(np.maximum(xyxy, np.float32(0)), limit)


def area(xyxy: Boxes) -> NDArray[np.float32]:
    """Return (N,) areas in square pixels; 0 for boxes that are inside out."""
    size = np.maximum(xyxy[:, 2:] - xyxy[:, :2], np.float32(0))
    product: NDArray[np.float32] = size[:, 0] * size[:, 1]
    return product


def iou_matrix(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every box in `a` with every box in `b`.

    Args:
        a: (N, 4) xyxy boxes in pixels.
        b: (M, 4) xyxy boxes in pixels.

    Returns:
        (N, M) float32 in [0, 1]; 0 if either box has no area.

    >>> iou_matrix(np.float32([[0, 0, 2, 2]]), np.float32([[1, 0, 3, 2]]))
    array([[0.33333334]], dtype=float32)
    """
    left = np.maximum(a[:, None, 0], b[None, :, 0])
    top = np.maximum(a[:, None, 1], b[None, :, 1])
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - left
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - top
    intersection = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
    union = area(a)[:, None] + area(b)[None, :] - intersection
    iou: NDArray[np.float32] = np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
    return iou


def checked_column(values: Any, dtype: DTypeLike, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Return `values` as a read-only column of a shape and type. Raises `ConfigError` if they do not fit."""
    array = np.asarray(values, dtype=dtype)
    if array.size == 0:
        array = array.reshape(shape)
    if array.shape != shape:
        raise ConfigError(f"{name} has shape {array.shape}: expected {shape}")
    view = array.view()
    view.flags.writeable = False
    return view
