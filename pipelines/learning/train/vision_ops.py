"""Supports torchvision with a torch that cannot load its compiled operators, such as a CUDA build next to a CPU one.

Registries only serve torchvision for CUDA, and installing it with `pip install --no-deps torchvision` next to a small
CPU build of torch is common. Its models need two compiled operators, which are implemented here in torch: slower, but
exact.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from engine.errors import MissingDependencyError
from engine.optional import install, require

NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
ROI_ALIGN = (
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)
UNUSED = (
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qroi_align(Tensor a) -> Tensor",
    "_roi_align_backward(Tensor a) -> Tensor",
    "ps_roi_align(Tensor a) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor a) -> Tensor",
    "roi_pool(Tensor a) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor a) -> Tensor",
    "ps_roi_pool(Tensor a) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor a) -> Tensor",
    "deform_conv2d(Tensor a) -> Tensor",
    "_deform_conv2d_backward(Tensor a) -> Tensor",
)
_libraries: list[Any] = []


def torchvision(torch: Any) -> Any:
    """Return torchvision, with operators in torch if the compiled ones cannot be loaded.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(f"torchvision is not installed: {install('train')}")
    if not _libraries and not _has_compiled(torch, Path(spec.origin).parent / "_C.so"):
        _define(torch)
        for module in ("torchvision.extension", "torchvision.ops.roi_align"):
            require(module, extra="train")._has_ops = _has_ops
    return require("torchvision", extra="train")


def _has_compiled(torch: Any, path: Path) -> bool:
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError):
        return False
    return True


def _has_ops() -> bool:
    return True


def _define(torch: Any) -> None:
    library = torch.library.Library("torchvision", "DEF")
    for schema in (NMS, ROI_ALIGN, *UNUSED):
        library.define(schema)
    library.impl("nms", lambda boxes, scores, iou: _nms(torch, boxes, scores, iou), "CPU")
    library.impl("roi_align", lambda *args: _roi_align(torch, *args), "CompositeImplicitAutograd")
    _libraries.append(library)


def _nms(torch: Any, boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Return the rows that stay, best first."""
    order = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[order, :2], boxes[best, :2])
        high = torch.minimum(boxes[order, 2:], boxes[best, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        order = order[common / (area[order] + area[best] - common) <= iou_threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


def _roi_align(
    torch: Any, features: Any, rois: Any, scale: float, rows: int, columns: int, ratio: int, aligned: bool
) -> Any:
    """Return (N, C, rows, columns): each region's cells, the mean of 2 x 2 bilinear samples each."""
    samples = ratio if ratio > 0 else 2
    shift = 0.5 if aligned else 0.0
    box = rois[:, 1:] * scale - shift
    size = box[:, 2:] - box[:, :2] if aligned else (box[:, 2:] - box[:, :2]).clamp(min=1)
    height, width = features.shape[2:]
    across = (torch.arange(columns * samples) + 0.5) / (columns * samples)
    down = (torch.arange(rows * samples) + 0.5) / (rows * samples)
    x = (box[:, :1] + size[:, :1] * across).clamp(0, width - 1) * 2 / max(width - 1, 1) - 1
    y = (box[:, 1:2] + size[:, 1:] * down).clamp(0, height - 1) * 2 / max(height - 1, 1) - 1
    count = len(rois)
    grid = torch.stack((x[:, None, :].expand(count, len(down), -1), y[:, :, None].expand(count, -1, len(across))), 3)
    parts = features[rois[:, 0].long()]
    sampled = torch.nn.functional.grid_sample(parts, grid, align_corners=True)
    return torch.nn.functional.avg_pool2d(sampled, samples)
