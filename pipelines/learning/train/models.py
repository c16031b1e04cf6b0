"""The trainable models: LibreYOLO's DEIMv2 and YOLOX, torchvision's Faster R-CNN and ResNet-50, a small CNN.

Each has the same five functions. Only the child imports this module.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.optional import require
from pipelines.learning.train.options import TrainOptions
from pipelines.learning.train.restore import Restored, export, restore
from pipelines.learning.train.vision_ops import torchvision
from pipelines.learning.train.weights import fill, fill_from, load_state, own_rows
from pipelines.learning.train.yolox import SIZES as YOLOX
from pipelines.learning.train.yolox import Yolox

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Deimv2:
    """DEIMv2 (Huang et al. 2025) with HGNetv2 backbones, from LibreYOLO (MIT); images are RGB from 0 to 1."""

    anchor = "stretch"
    outputs = ("logits", "pred_boxes")

    def __init__(self, torch: Any, options: TrainOptions, class_names: Sequence[str]) -> None:
        torchvision(torch)
        with contextlib.redirect_stdout(io.StringIO()):  # the models of LibreYOLO print a banner
            self._nn = require("libreyolo.models.deimv2.nn", extra="train")
        self._torch, self._options = torch, options
        self._name = options.arch.removeprefix("deimv2-")
        own = self._nn.SIZE_CONFIGS[self._name]
        self.size = options.size or own["input_size"]
        sized = copy.deepcopy(own)
        sized["decoder"]["eval_spatial_size"] = [self.size, self.size]
        self._nn.SIZE_CONFIGS["framewire"] = sized
        self.model = self._make("framewire", len(class_names))
        self.freezes_norms = options.base is not None
        self._loss = self._criterion(len(class_names))

    def _make(self, name: str, classes: int) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return self._nn.LibreDEIMv2Model(name, nb_classes=classes)

    def _criterion(self, classes: int) -> Any:
        loss = require("libreyolo.models.deimv2.loss", extra="train").DEIMv2Criterion
        matcher = require("libreyolo.models.deimv2.matcher", extra="train").HungarianMatcher
        costs = {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}
        weights = {"loss_mal": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
        return loss(
            matcher=matcher(weight_dict=costs, alpha=0.25, gamma=2.0),
            weight_dict=weights,
            losses=["mal", "boxes"],
            alpha=0.75,
            gamma=1.5,
            num_classes=classes,
            reg_max=32,
            use_uni_set=False,
        )

    def load_base(self, path: Path, probe: Sequence[tuple[Any, Any]]) -> str:
        """Start from a public ONNX file or a checkpoint; rows of new classes come from the base's nearest ones."""
        if path.suffix.lower() != ".onnx":
            state = load_state(self._torch, path)
            rows = next((value.shape[0] for key, value in state.items() if "dec_score_head.0.bias" in key), 0)
            base = self._make(self._name, rows)
            fill(self._torch, base, state, path)
        else:
            base, size = self._make(self._name, 80), self._nn.SIZE_CONFIGS[self._name]["input_size"]
            restore(self._torch, base, Restored(self._nn.DEIMv2ExportWrapper, self._away, self.outputs), path, size)
        rows = self._nearest(base, probe, self.model.decoder.num_classes)
        fill_from(self.model, base, lambda key: "score_head" in key, rows)
        return f"rows of classes {rows} of the base"

    def _away(self, base: Any, image: Any, outputs: Sequence[Any]) -> float:
        """Return the largest difference between the best 20 scores of a base and those of its file."""
        scores = next(array for array in outputs if array.dtype == np.float32 and array.shape[-1] != 4)
        with self._torch.no_grad():
            logits = base(self._torch.from_numpy(image))["pred_logits"][0]
        ours = np.sort(logits.sigmoid().flatten().numpy())[::-1][:20]
        theirs = np.sort(np.asarray(scores, np.float32).flatten())[::-1]
        if theirs.max() > 1 or theirs.min() < 0:
            theirs = (1 / (1 + np.exp(-theirs))).astype(np.float32)
        return float(np.abs(ours - theirs[:20]).max())

    def _nearest(self, base: Any, probe: Sequence[tuple[Any, Any]], classes: int) -> list[int]:
        """Return, for each class, the base's class that scores best at its objects' positions; each is used once."""
        torch = self._torch
        base.eval()
        size = self._nn.SIZE_CONFIGS[self._name]["input_size"]
        total = torch.zeros(classes, base.decoder.num_classes)
        with torch.no_grad():
            for image, boxes in probe:
                scaled = torch.nn.functional.interpolate(image[None], (size, size), mode="bilinear")
                found = base(scaled)
                near = torch.cdist(boxes[:, 1:], found["pred_boxes"][0], p=1).topk(3, largest=False).indices
                for row, places in zip(boxes[:, 0].long().tolist(), near, strict=True):
                    total[row] += found["pred_logits"][0][places].sigmoid().max(dim=0).values
        return own_rows(total)

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the parameters with their learning rates."""
        named = [(name, value) for name, value in self.model.named_parameters() if value.requires_grad]
        if self._options.freeze == "backbone":
            named = [(name, value) for name, value in named if not name.startswith("backbone")]
        is_new = [("score_head" in name or "class_embed" in name) for name, _ in named]
        fresh = [value for (_, value), new in zip(named, is_new, strict=True) if new]
        rest = [value for (_, value), new in zip(named, is_new, strict=True) if not new]
        return [{"params": fresh, "lr": lr * 7}, {"params": rest, "lr": lr}]

    def loss(self, images: Any, boxes: Sequence[Any]) -> Any:
        """Return the loss of (b, 3, s, s) images with rows of class, cx, cy, w, h."""
        self._loss.train()
        targets = [{"labels": one[:, 0].long(), "boxes": one[:, 1:]} for one in boxes]
        parts = self._loss(self.model(images, targets=targets), targets, epoch=0)
        return sum(value for value in parts.values() if self._torch.is_tensor(value))

    def find(self, images: Any) -> list[tuple[Any, Any, Any]]:
        """Return boxes (N, 4) as fractions, scores and classes of each image; the model is in eval mode."""
        found = self.model(images)
        results = []
        for logits, boxes in zip(found["pred_logits"], found["pred_boxes"], strict=True):
            score, place = logits.sigmoid().flatten().topk(min(100, logits.numel()))
            box = boxes[place // logits.shape[1]]
            results.append((self._corners(box), score, place % logits.shape[1]))
        return results

    def _corners(self, boxes: Any) -> Any:
        return self._torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)

    def export(self, path: Path) -> None:
        """Write the ONNX file."""
        wrapped = self._nn.DEIMv2ExportWrapper(copy.deepcopy(self.model)).eval()
        export(self._torch, wrapped, path, self.size, self.outputs)


class FasterRcnn:
    """Faster R-CNN with ResNet-50 and a feature pyramid (Ren et al. 2015), from torchvision (BSD)."""

    anchor = "top_left"
    outputs = ("boxes", "labels", "scores")

    def __init__(self, torch: Any, options: TrainOptions, class_names: Sequence[str]) -> None:
        vision = torchvision(torch)
        self._torch, self._options = torch, options
        self.size = options.size or 320
        detection = vision.models.detection
        self.model = detection.fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=len(class_names) + 1,
            min_size=self.size,
            max_size=self.size,
            trainable_backbone_layers=5,
        )
        self.freezes_norms = options.base is not None

    def load_base(self, path: Path, probe: Sequence[tuple[Any, Any]]) -> str:
        """Start from a torchvision checkpoint, of the whole model or its ResNet-50. Raises `ModelError`."""
        if path.suffix.lower() == ".onnx":
            raise ModelError(
                f"{path}: Faster R-CNN starts from torchvision's checkpoint (.pth): ONNX cannot be trained"
            )
        state = load_state(self._torch, path)
        if "layer4.2.conv3.weight" in state:
            state = {f"backbone.body.{key}": value for key, value in state.items()}
            return f"{fill(self._torch, self.model.backbone, _under('backbone.', state), path)} values of the backbone"
        return f"{fill(self._torch, self.model, state, path)} values"

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the parameters with their learning rates."""
        named = self.model.named_parameters()
        kept = [v for k, v in named if self._options.freeze != "backbone" or not k.startswith("backbone.body")]
        return [{"params": [value for value in kept if value.requires_grad], "lr": lr}]

    def loss(self, images: Any, boxes: Sequence[Any]) -> Any:
        """Return the loss of (b, 3, s, s) images with rows of class, cx, cy, w, h."""
        targets = [
            {"boxes": _corners_of(self._torch, one[:, 1:]) * self.size, "labels": one[:, 0].long() + 1} for one in boxes
        ]
        return sum(self.model(list(images), targets).values())

    def find(self, images: Any) -> list[tuple[Any, Any, Any]]:
        """Return boxes (N, 4) as fractions, scores and classes of each image; the model is in eval mode."""
        return [(one["boxes"] / self.size, one["scores"], one["labels"] - 1) for one in self.model(list(images))]

    def export(self, path: Path) -> None:
        """Write the ONNX file."""
        export(self._torch, copy.deepcopy(self.model).eval(), path, self.size, self.outputs)


def _under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _corners_of(torch: Any, boxes: Any) -> Any:
    return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)


def make_detector(torch: Any, options: TrainOptions, class_names: Sequence[str]) -> Any:
    """Return the architecture with fresh weights."""
    kind = FasterRcnn if options.arch.startswith("fasterrcnn") else Yolox if options.arch in YOLOX else Deimv2
    return kind(torch, options, class_names)


def make_classifier(torch: Any, options: TrainOptions, classes: int) -> tuple[Any, int]:
    """Return a classifier that takes RGB from 0 to 1, and the size of its input.

    Raises:
        ModelError: the base does not fit.
    """
    if options.arch == "cnn":
        return _small(torch, classes), options.size or 32
    model = torchvision(torch).models.resnet50(weights=None)
    if options.base is not None:
        path = Path(options.base)
        if path.suffix.lower() == ".onnx":
            raise ModelError(
                f"{path}: ResNet-50 starts from torchvision's checkpoint (.pth); for ONNX: --with features"
            )
        fill(torch, model, load_state(torch, path), path)
    model.fc = torch.nn.Linear(model.fc.in_features, classes)
    return torch.nn.Sequential(_Normalise(torch), model), options.size or 224


def _Normalise(torch: Any) -> Any:  # noqa: N802 - returns a module, as a class would
    layer = torch.nn.Conv2d(3, 3, 1)
    mean, spread = (np.array(values, np.float32) for values in IMAGENET)
    layer.weight.data = torch.diag(torch.from_numpy(1 / spread)).reshape(3, 3, 1, 1)
    layer.bias.data = torch.from_numpy(-mean / spread)
    return layer.requires_grad_(False)


def _small(torch: Any, classes: int) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
