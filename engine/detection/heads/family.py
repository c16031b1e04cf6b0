"""What a family of models is: how it is recognised, fed and decoded."""

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
    """What the families are matched against.

    Attributes:
        outputs: of the model file.
        size_hw: rows and columns of the model's frame.
        metadata: parsed.
        task: `detect`, `segment`, ... or empty where the metadata does not say.
        class_count: number of class names that are known, None where there are none.
        takes_size: whether the model has a second input, of the size (w, h) that it scales its boxes to.
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
        """Return the shape of the only output, where it has this rank."""
        shapes = self.shapes
        return shapes[0] if len(shapes) == 1 and len(shapes[0]) == rank else None

    def anchors(self, per_cell: int = 1) -> set[int]:
        """Return the numbers of anchors that grids of the usual strides have at this size."""
        usual = (STRIDES, STRIDES_P6, STRIDES_P2, STRIDES_TINY)
        return {per_cell * anchor_count(self.size_hw, strides) for strides in usual}

    def says(self, *words: str) -> bool:
        """Return whether the metadata's head or description has one of the words."""
        text = " ".join(str(self.metadata.get(key, "")) for key in ("head", "description")).lower()
        return any(word in text for word in words)


def is_same(*sizes: int | None) -> bool:
    """Return whether sizes agree, as far as they are known."""
    return len(set(sizes) - {None}) <= 1


def never(layout: Layout) -> bool:
    """Return that naming a family opens it to no further outputs."""
    return False


def any_classes(layout: Layout) -> int | None:
    """Return that the outputs do not tell the number of classes."""
    return layout.class_count


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model.

    Attributes:
        name: as `--head` and reports say it.
        layout: the outputs in words, for errors and `inspect`.
        fits: whether outputs (and metadata) are of this kind.
        build: makes the head.
        classes: number of classes in the outputs, None where they do not tell.
        color: channel order that the model wants.
        mean: as `ImageInput.mean`.
        std: as `ImageInput.std`.
        anchor: how a frame lands in the model's frame.
        iou_threshold: the NMS default of the family's own code.
        tasks: which tasks it does; the empty one stands for metadata that do not say.
        fits_named: whether outputs that could be of several kinds are of this one, once its name is given.
        is_single: whether the outputs tell no image of a batch from another, so that each needs an inference.
        coco_91: class numbers of unnamed models count as in COCO's own files, with gaps, up to 90.
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

    def image_input(self, size_hw: tuple[int, int], layout: Literal["nchw", "nhwc"]) -> ImageInput:
        """Return how this family wants its pixels."""
        if self.color not in ("rgb", "bgr") or self.anchor not in ("center", "top_left", "stretch"):
            raise ConfigError(
                f'color "{self.color}", letterbox "{self.anchor}": expected rgb or bgr, and center, top_left or stretch'
            )
        return ImageInput(size_hw, self.color, self.mean, self.std, layout)
