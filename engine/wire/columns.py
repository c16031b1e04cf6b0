"""Converts the columns of tracks to the plain values of messages, those of several packets in one step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import NO_DETECTION, Packet

PIXEL_DECIMALS = 2
SCORE_DECIMALS = 4

Columns = list[list[Any]]
"""Of one packet: track ids, class ids, class names, scores, boxes, ages, and whether a box is predicted."""


def track_columns(packets: Sequence[Packet]) -> list[Columns]:
    """Return the first columns of a `TrackedObject` for each packet.

    Calls dominate the cost, not objects, so the packets of one inference are converted together; the values do not
    depend on which others they are converted with.
    """
    tracks = [packet.tracks for packet in packets]
    ends = list(accumulate(map(len, tracks)))
    track_id, class_id = _joined([one.track_id for one in tracks]), _joined([one.class_id for one in tracks])
    score, xyxy = _joined([one.score for one in tracks]), _joined([one.xyxy for one in tracks])
    age, index = _joined([one.age for one in tracks]), _joined([one.detection_index for one in tracks])
    whole: Columns = [
        track_id.tolist(),
        class_id.tolist(),
        rounded(score, SCORE_DECIMALS),
        rounded(xyxy, PIXEL_DECIMALS),
        age.tolist(),
        (index == NO_DETECTION).tolist(),
    ]
    found = []
    for packet, start, end in zip(packets, (0, *ends), ends, strict=False):
        columns = [column[start:end] for column in whole]
        columns.insert(2, _names(columns[1], packet.run.class_names))
        found.append(columns)
    return found


def rounded(values: NDArray[Any], decimals: int) -> list[Any]:
    """Return values of any shape as floats with at most that many decimals, in lists nested like the array."""
    plain: list[Any] = values.astype(np.float64).round(decimals).tolist()
    return plain


def _joined(columns: list[NDArray[Any]]) -> NDArray[Any]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _names(class_id: list[int], names: Sequence[str]) -> list[str]:
    known = len(names)
    return [names[c] if 0 <= c < known else str(c) for c in class_id]
