"""Families of models: how each is recognised, fed and decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.backends.base import ImageInput, TensorSpec
from engine.detection.heads.base import Head
from engine.detection.heads.grid import STRIDES, STRIDES_P2, STRIDES_P6, anchor_count
from engine.detection.letterbox import Anchor
from engine.errors import ConfigError

Triple = tuple[float, float, float]
Color = Literal["rgb", "bgr"]
ZERO: Triple = (0.0, 0.0, 0.0)
ONE: Triple = (1.0, 1.0, 1.0)
BYTE: Triple = (255.0, 255.0, 255.0)
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)
STRIDES_TINY = (16, 32)
MAX_QUERIES = 1000
"""More rows than this in an output are anchors, not objects."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What families are matched against.

    Attributes:
        outputs: of the model file.
        size_hw: rows and columns of the model's frame.
        metadata: parsed.
        task: `detect`, `segment`, ... or empty if the metadata does not say.
        class_count: number of known class names, None if there are none.
        takes_size: whether the model has a second input for the size (w, h) that it scales its boxes to.
    """

    outputs: tuple[TensorSpec, ...]
    size_hw: tuple[int, int]
    metadata: Mapping[str, Any]
    task: str = ""
    class_count: int | None = None
    takes_size: bool = False

    @property
    def shapes(self) -> list[tuple[int | None, ...]]:
        """Shapes of the outputs."""
        return [spec.shape for spec in self.outputs]

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [spec.name for spec in self.outputs]

    def single(self, rank: int) -> tuple[int | None, ...] | None:
        """Return the shape of the only output if it has this rank, else None."""
        shapes = self.shapes
        return shapes[0] if len(shapes) == 1 and len(shapes[0]) == rank else None

    def anchors(self, per_cell: int = 1) -> set[int]:
        """Return the anchor counts of grids with the usual strides at this size."""
        usual = (STRIDES, STRIDES_P6, STRIDES_P2, STRIDES_TINY)
        return {per_cell * anchor_count(self.size_hw, strides) for strides in usual}

    def says(self, *words: str) -> bool:
        """Return whether the metadata's head or description contains one of the words."""
        text = " ".join(str(self.metadata.get(key, "")) for key in ("head", "description")).lower()
        return any(word in text for word in words)


def is_same(*sizes: int | None) -> bool:
    """Return whether the known sizes agree."""
    return len(set(sizes) - {None}) <= 1


def never(layout: Layout) -> bool:
    """Return False: naming the family accepts no further outputs. The default of `Family.fits_named`."""
    return False


def any_classes(layout: Layout) -> int | None:
    """Return the number of known class names. The default of `Family.classes`, for outputs that do not determine it."""
    return layout.class_count


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models.

    Attributes:
        name: its name for `--head` and in reports.
        layout: a description of the outputs, for errors and `inspect`.
        fits: whether the outputs (and metadata) are of this family.
        build: returns the head.
        classes: number of classes in the outputs, None if they do not determine it.
        color: channel order that the model expects.
        mean: as `ImageInput.mean`.
        std: as `ImageInput.std`.
        anchor: how a frame is placed in the model's frame.
        iou_threshold: the NMS default of the family's own code.
        tasks: the tasks it supports; an empty string stands for metadata that do not name a task.
        fits_named: whether ambiguous outputs are accepted once this family is named.
        is_single: whether the outputs do not separate the images of a batch, so that each image needs an inference.
        coco_91: whether unnamed classes use COCO's original ids, with gaps, up to 90.
        names: class names where the file gives none.
    """

    name: str
    layout: str
    fits: Callable[[Layout], bool]
    build: Callable[[Layout], Head]
    classes: Callable[[Layout], int | None] = any_classes
    color: Color = "rgb"
    mean: Triple = ZERO
    std: Triple = BYTE
    anchor: Anchor = "center"
    iou_threshold: float = 0.7
    tasks: tuple[str, ...] = ("detect", "")
    fits_named: Callable[[Layout], bool] = never
    is_single: bool = False
    coco_91: bool = False
    names: tuple[str, ...] = ()

    def image_input(self, size_hw: tuple[int, int], layout: Literal["nchw", "nhwc"]) -> ImageInput:
        """Return the input format that this family expects. Raises `ConfigError` for an unknown colour or letterbox."""
        if self.color not in ("rgb", "bgr") or self.anchor not in ("center", "top_left", "stretch"):
            raise ConfigError(
                f'color "{self.color}", letterbox "{self.anchor}": expected rgb or bgr, and center, top_left or stretch'
            )
        return ImageInput(size_hw, self.color, self.mean, self.std, layout)
