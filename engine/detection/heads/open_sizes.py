"""Fills in the sizes that an Ultralytics export leaves open, from its metadata.

`export(dynamic=True, simplify=False)` writes outputs without any sizes, even for the rows of the box head. The rows
follow from the metadata: the task, the names and whether the model selects its boxes itself; see
`ultralytics/engine/exporter.py`.
"""

from __future__ import annotations

from dataclasses import replace

from engine.detection.heads.family import Layout
from engine.detection.heads.tasks import MASK_COEFFICIENTS, keypoint_values


def fill_in(layout: Layout) -> Layout:
    """Return the layout with the sizes that follow from its metadata; unchanged if they are not open or do not follow.

    Raises:
        ModelError: hostile values in the metadata.
    """
    told = layout.metadata
    is_open = bool(layout.outputs) and len(layout.shapes[0]) == 3 and layout.shapes[0][1:] == (None, None)
    if not is_open or told.get("author") != "Ultralytics" or layout.class_count is None:
        return layout
    first = layout.outputs[0]
    sizes: tuple[int | None, ...]
    if _is_finished(layout):
        sizes = None, 6 + _rest(layout)
    elif layout.says("rtdetr"):
        return layout  # the exporter's version decides whether it selects boxes
    else:
        sizes = 4 + layout.class_count + _rest(layout), None
    return replace(layout, outputs=(replace(first, shape=(first.shape[0], *sizes)), *layout.outputs[1:]))


def _rest(layout: Layout) -> int:
    """Return how many of an object's numbers are neither box nor class scores."""
    if layout.task == "pose":
        return keypoint_values(layout)
    return {"segment": MASK_COEFFICIENTS, "obb": 1}.get(layout.task, 0)


def _is_finished(layout: Layout) -> bool:
    """Whether the model selects its boxes itself: v10, 26, or any with `nms=True`."""
    options = layout.metadata.get("args")
    has_nms = isinstance(options, dict) and options.get("nms") is True
    return has_nms or layout.metadata.get("end2end") is True
