"""YOLOX (Ge et al. 2021) with LibreYOLO's layers and loss (MIT), trained further from the public ONNX file.

It takes BGR from 0 to 255, placed top left on grey, and its output matches the engine's head `yolox`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.detection.heads.grid import STRIDES, grid
from engine.errors import ModelError
from engine.optional import require
from pipelines.learning.train.options import TrainOptions
from pipelines.learning.train.restore import Restored, export, restore
from pipelines.learning.train.vision_ops import torchvision
from pipelines.learning.train.weights import fill, fill_from, load_state, own_rows

SIZES: Mapping[str, str] = {"yolox-nano": "n", "yolox-tiny": "t", "yolox-s": "s"}
"""LibreYOLO's name of each size."""
SIDE = 416
BASE_CLASSES = 80
PIXELS = 255.0
PRIOR = 0.01
NMS_IOU = 0.45
MOST = 100
NEAR = 3


class Yolox:
    """One of the sizes in `SIZES`; images are given as RGB from 0 to 1."""

    anchor = "top_left"
    outputs = ("output",)

    def __init__(self, torch: Any, options: TrainOptions, class_names: Sequence[str]) -> None:
        self._vision = torchvision(torch)
        self._nn = require("libreyolo.models.yolox.nn", extra="train")
        self._torch, self._options, self._name = torch, options, SIZES[options.arch]
        self.size = options.size or SIDE
        self.model = self._make(len(class_names))
        self.freezes_norms = options.base is not None

    def _make(self, classes: int) -> Any:
        model = self._nn.LibreYOLOXModel(self._name, nb_classes=classes)
        model.init_weights(PRIOR)
        return model

    def load_base(self, path: Path, probe: Sequence[tuple[Any, Any]]) -> str:
        """Start from a public ONNX file or a checkpoint; rows of new classes come from the base's nearest ones.

        Raises:
            ModelError: the file is not one of this architecture.
        """
        if path.suffix.lower() == ".onnx":
            base = self._make(BASE_CLASSES)
            restore(self._torch, base, Restored(self._flat, self._away, self.outputs, PIXELS), path, SIDE)
        else:
            state = load_state(self._torch, path)
            rows = next((value.shape[0] for key, value in state.items() if "cls_preds.0.bias" in key), 0)
            if not rows:
                raise ModelError(f"{path}: not a checkpoint of YOLOX: it has no head.cls_preds")
            base = self._make(rows)
            fill(self._torch, base, state, path)
        rows = self._nearest(base, probe)
        fill_from(self.model, base, lambda key: "cls_preds" in key, rows)
        return f"rows of classes {rows} of the base"

    def _flat(self, model: Any) -> Any:
        """Return the model as a module of one output (b, cells, 5 + classes), as the public files have it."""
        torch = self._torch

        class Flat(torch.nn.Module):  # type: ignore[misc,name-defined]
            """The three grids in one."""

            def __init__(self, inner: Any) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, images: Any) -> Any:
                """Return offsets, logarithms of sizes, objectness and class scores."""
                return torch.cat([grid_of.flatten(2) for grid_of in self.inner(images)], dim=2).permute(0, 2, 1)

        return Flat(model)

    def _away(self, base: Any, image: Any, outputs: Sequence[Any]) -> float:
        """Return the largest difference between the outputs of a base and those of its file."""
        with self._torch.no_grad():
            ours = self._flat(base)(self._torch.from_numpy(image)).numpy()
        return float(np.abs(ours - outputs[0]).max()) if ours.shape == outputs[0].shape else float("inf")

    def _nearest(self, base: Any, probe: Sequence[tuple[Any, Any]]) -> list[int]:
        torch = self._torch
        base.eval()
        total = torch.zeros(self.model.nb_classes, base.nb_classes)
        with torch.no_grad():
            for image, boxes in probe:
                [(found, scores)] = self._decoded(base, image[None])
                near = torch.cdist(boxes[:, 1:], found, p=1).topk(NEAR, largest=False).indices
                for row, places in zip(boxes[:, 0].long().tolist(), near, strict=True):
                    total[row] += scores[places].max(dim=0).values
        return own_rows(total)

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the parameters with their learning rates."""
        named = list(self.model.named_parameters())
        if self._options.freeze == "backbone":
            named = [(name, value) for name, value in named if not name.startswith("backbone.backbone")]
        fresh = [value for name, value in named if "cls_preds" in name]
        rest = [value for name, value in named if "cls_preds" not in name]
        return [{"params": fresh, "lr": lr * 7}, {"params": rest, "lr": lr}]

    def loss(self, images: Any, boxes: Sequence[Any]) -> Any:
        """Return the loss of (b, 3, s, s) images with rows of class, cx, cy, w, h."""
        rows = self._torch.zeros(len(boxes), max(1, *(len(one) for one in boxes)), 5)
        for place, one in zip(rows, boxes, strict=True):
            place[: len(one), 0] = one[:, 0]
            place[: len(one), 1:] = one[:, 1:] * self.size
        return self.model(self._pixels(images), rows)["total_loss"]

    def _pixels(self, images: Any) -> Any:
        return images.flip(1) * PIXELS

    def _decoded(self, model: Any, images: Any) -> list[tuple[Any, Any]]:
        """Return, for each image, centres and sizes of all cells as fractions, and their scores by class."""
        torch = self._torch
        cells, strides = (torch.from_numpy(array) for array in grid((self.size, self.size), STRIDES))
        output = self._flat(model)(self._pixels(images))
        centre = (output[..., :2] + cells) * strides / self.size
        size = output[..., 2:4].exp() * strides / self.size
        scores = output[..., 5:] * output[..., 4:5]
        return list(zip(torch.cat((centre, size), dim=2), scores, strict=True))

    def find(self, images: Any) -> list[tuple[Any, Any, Any]]:
        """Return boxes (N, 4) as fractions, scores and classes of each image; the model is in eval mode."""
        return [self._kept(boxes, scores) for boxes, scores in self._decoded(self.model, images)]

    def _kept(self, boxes: Any, scores: Any) -> tuple[Any, Any, Any]:
        score, class_id = scores.max(dim=1)
        score, best = score.topk(min(10 * MOST, len(score)))
        class_id, centre, half = class_id[best], boxes[best, :2], boxes[best, 2:] / 2
        corners = self._torch.cat((centre - half, centre + half), dim=1)
        apart = corners + class_id[:, None] * 10  # boxes of different classes never overlap
        kept = self._vision.ops.nms(apart, score, NMS_IOU)[:MOST]
        return corners[kept], score[kept], class_id[kept]

    def export(self, path: Path) -> None:
        """Write the ONNX file."""
        export(self._torch, self._flat(copy.deepcopy(self.model)).eval(), path, self.size, self.outputs)
