"""Random changes to training images and their boxes, by torchvision.transforms.v2, and mosaics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.detection.letterbox import PAD_VALUE, Anchor, fit
from engine.optional import require
from pipelines.learning.train.options import Augment
from pipelines.learning.train.vision_ops import torchvision
from pipelines.scoring.pictures import read_picture

MIN_SIDE = 2.0
Sample = tuple[Any, Any]
"""An image (3, s, s) float from 0 to 1 in RGB, and rows of class, cx, cy, w, h as fractions."""


def read_square(path: str | Path, size: int, anchor: Anchor = "stretch") -> tuple[Any, tuple[float, float]]:
    """Return an image as (3, size, size) uint8 RGB, and the shares of width and height that it fills.

    Args:
        path: of the image.
        size: rows and columns.
        anchor: `stretch`, or `top_left` on grey, as the engine will feed the model.

    Raises:
        ConfigError: the image cannot be read.
    """
    image = read_picture(Path(path))
    width, height = fit((image.shape[1], image.shape[0]), (size, size), anchor).inner_wh
    square = np.full((size, size, 3), PAD_VALUE, np.uint8)
    square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square[..., ::-1].transpose(2, 0, 1)), (width / size, height / size)


class Samples:
    """Images with boxes, changed at random each time they are read.

    Args:
        torch: the module.
        entries: of a listing.
        size: rows and columns.
        augment: the changes; None: none.
        rng: numpy's random generator.
        anchor: how an image is made square: `stretch` or `top_left`.
    """

    def __init__(
        self,
        torch: Any,
        entries: Sequence[dict[str, Any]],
        size: int,
        augment: Augment | None,
        rng: Any,
        anchor: Anchor = "stretch",
    ) -> None:
        self._torch, self._size, self._augment, self._rng = torch, size, augment, rng
        self._images, self._boxes = [], []
        for entry in entries:
            square, (width, height) = read_square(entry["image"], size, anchor)
            rows = torch.tensor(entry["boxes"], dtype=torch.float32).reshape(-1, 5)
            self._images.append(torch.from_numpy(square))
            self._boxes.append(rows * torch.tensor([1, width, height, width, height]))
        self._change = None if augment is None else _transforms(torch, augment, size)

    def __len__(self) -> int:
        return len(self._images)

    def plain(self, row: int) -> Sample:
        """Return an image unchanged."""
        return self._images[row].float() / 255, self._boxes[row]

    def __getitem__(self, row: int) -> Sample:
        """Return an image, changed."""
        if self._augment is None or self._change is None:
            return self.plain(row)
        image, boxes = self._images[row], self._pixels(self._boxes[row])
        if self._rng.random() < self._augment.mosaic:
            image, boxes = self._mosaic(row)
        image, boxes = self._change(image, boxes)
        return image.float() / 255, self._shares(boxes)

    def _pixels(self, boxes: Any) -> Any:
        """Return rows of class and corners in pixels."""
        centre, half = boxes[:, 1:3] * self._size, boxes[:, 3:] * self._size / 2
        return self._torch.cat((boxes[:, :1], centre - half, centre + half), dim=1)

    def _shares(self, boxes: Any) -> Any:
        corners = boxes[:, 1:] / self._size
        size = corners[:, 2:] - corners[:, :2]
        return self._torch.cat((boxes[:, :1], corners[:, :2] + size / 2, size), dim=1)

    def _mosaic(self, row: int) -> Sample:
        """Return four images in one, each at half its size."""
        half = self._size // 2
        canvas, parts = self._torch.zeros_like(self._images[row]), []
        rows = [row, *self._rng.integers(0, len(self), 3).tolist()]
        for place, index in enumerate(rows):
            x, y = (place % 2) * half, (place // 2) * half
            canvas[:, y : y + half, x : x + half] = self._images[index][:, ::2, ::2][:, :half, :half]
            boxes = self._pixels(self._boxes[index])
            boxes[:, 1:] = boxes[:, 1:] / 2 + self._torch.tensor([x, y, x, y])
            parts.append(boxes)
        return canvas, self._torch.cat(parts)


def _transforms(torch: Any, augment: Augment, size: int) -> Callable[[Any, Any], Sample]:
    """Return a function of a uint8 image and rows of class and corners."""
    torchvision(torch)
    v2 = require("torchvision.transforms.v2", extra="train")
    boxes_of = require("torchvision.tv_tensors", extra="train").BoundingBoxes
    steps = []
    if augment.crop:
        steps.append(v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5), v2.Resize((size, size))], augment.crop))
    if augment.scale != (1.0, 1.0) or augment.translate:
        shift = (augment.translate, augment.translate) if augment.translate else None
        steps.append(v2.RandomAffine(0, translate=shift, scale=augment.scale, fill=PAD_VALUE))
    if augment.distort:
        steps.append(v2.RandomApply([v2.ElasticTransform(alpha=20.0, sigma=5.0)], augment.distort))
    if augment.colour:
        amount = augment.colour
        steps.append(v2.ColorJitter(amount, amount, amount, amount / 10))
    steps.append(v2.RandomHorizontalFlip(augment.flip))
    chain = v2.Compose([*steps, v2.ClampBoundingBoxes()])

    def change(image: Any, rows: Any) -> Sample:
        boxes = boxes_of(rows[:, 1:].clone(), format="XYXY", canvas_size=(size, size))
        image, boxes = chain(image, boxes)
        before = (rows[:, 3:] - rows[:, 1:3]).prod(dim=1).clamp(min=1e-6)
        sides = boxes[:, 2:] - boxes[:, :2]
        kept = (sides >= MIN_SIDE).all(dim=1) & (sides.prod(dim=1) > 0.1 * before * augment.scale[0] ** 2)
        return image, torch.cat((rows[kept, :1], boxes[kept].as_subclass(torch.Tensor)), dim=1)

    return change
