"""Rectangular input: the part of the model's frame that images of one aspect ratio fill, without grey border.

On a CPU the cost of an inference is proportional to its area, and 44 % of 640 x 640 is border for a 16:9 image. The
scale is that of the whole frame, so objects are as large as in the square.
"""

from __future__ import annotations

from dataclasses import replace

from engine.backends.resize import FixedSizeError, SizeChange
from engine.detection.letterbox import fit
from engine.detection.model import ModelFacts

USUAL_ASPECT = (1920, 1080)
"""For cameras whose size is not known yet."""
CONVOLUTIONAL = (
    "yolo", "end_to_end", "yolo_segment", "yolo_pose", "yolo_obb", "yolov5", "yolox", "yolox_decoded", "nanodet",
    "darknet_yolov3", "yunet", "centerface",
)  # fmt: skip
"""Families whose outputs are grids of cells over the image, or chosen among them, in pixels."""
DEFAULT_STRIDE = 32


def rectangle(source_wh: tuple[int, int], facts: ModelFacts) -> tuple[int, int]:
    """Return rows and columns of the smallest frame in multiples of the stride that holds images of a size.

    Args:
        source_wh: of the images.
        facts: the model at the size that it was exported for.
    """
    rows, columns = facts.size_hw
    width, height = fit(source_wh, (columns, rows), facts.family.anchor).inner_wh
    step = largest_stride(facts)
    return min(rows, -(-height // step) * step), min(columns, -(-width // step) * step)


def largest_stride(facts: ModelFacts) -> int:
    """Return the number that the sides of the model's frame must be multiples of."""
    return max(facts.stride or DEFAULT_STRIDE, DEFAULT_STRIDE)


def why_not_rectangular(facts: ModelFacts) -> str | None:
    """Return why this kind of model must keep its own size; None if that depends on its graph."""
    if facts.family.anchor == "stretch":
        return "frames are stretched into it: there is no border to leave out"
    if facts.family.name not in CONVOLUTIONAL:
        return f"the outputs of {facts.family.name} are not grids of cells"
    if facts.file.format not in ("onnx", "openvino"):
        return f"a {facts.file.format} file is built for one size"
    return None


def is_size_open(facts: ModelFacts) -> bool:
    """Return whether rows and columns are dynamic in the file."""
    sizes = facts.file.inputs[0].shape
    return None in (sizes[2:4] if facts.image.layout == "nchw" else sizes[1:3])


def at_size(facts: ModelFacts, size_hw: tuple[int, int]) -> ModelFacts:
    """Return the facts of the model with its graph changed to another frame size.

    Args:
        facts: the model at the size that it was exported for.
        size_hw: rows and columns, multiples of its stride and no larger than its own.

    Raises:
        FixedSizeError: this kind of model cannot change its size.
    """
    if size_hw == facts.size_hw:
        return facts
    if (reason := why_not_rectangular(facts)) is not None:
        raise FixedSizeError(f"{facts.path}: {reason}")
    change = SizeChange(facts.size_hw, size_hw)
    outputs = change.of_outputs(facts.layout.outputs)
    return replace(
        facts,
        layout=replace(facts.layout, size_hw=size_hw, outputs=outputs),
        size_hw=size_hw,
        image=replace(facts.image, size_hw=size_hw),
    )
