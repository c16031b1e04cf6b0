"""Converts rows and packets for other tools: `supervision` detections, and a PNG for notebooks. Imports both lazily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from engine.optional import require

MAX_SHOWN_SIDE = 960


class _Nothing(Mapping[str, Any]):
    """An immutable empty mapping that remains the same object after pickling and copying."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the default; this is called for every packet without analysers, and raising `KeyError` is slow."""
        return default

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING = _Nothing()


def to_supervision(rows: Any, **columns: Any) -> Any:
    """Return a copy of `Detections` or `Tracks` as `supervision.Detections`, with `class_name` if known.

    Args:
        rows: an object with `xyxy`, `score`, `class_id` and `class_names`.
        columns: further arguments, such as `tracker_id`.
    """
    class_id, names = rows.class_id.astype(int), rows.class_names
    known = range(len(names))
    named = {"class_name": np.array([names[i] if i in known else str(i) for i in class_id.tolist()], str)}
    return require("supervision").Detections(
        xyxy=rows.xyxy.copy(), confidence=rows.score.copy(), class_id=class_id, data=named if names else {}, **columns
    )


def columns_from_supervision(detections: Any) -> tuple[Any, Any, Any]:
    """Return boxes, scores and classes of a `supervision.Detections`; missing scores are 1, missing classes 0."""
    count = len(detections.xyxy)
    score = np.ones(count, np.float32) if detections.confidence is None else detections.confidence
    class_id = np.zeros(count, np.int32) if detections.class_id is None else detections.class_id
    return detections.xyxy, score, class_id


def png_of(packet: Any) -> bytes:
    """Return the frame of a packet with its tracks drawn, as a PNG of at most `MAX_SHOWN_SIDE` pixels per side."""
    cv2 = require("cv2")
    image = require("engine.imaging.overlay").Overlay(trace=False).draw(packet)
    scale = min(1.0, MAX_SHOWN_SIDE / max(image.shape[:2]))
    if scale < 1.0:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".png", image)[1])
