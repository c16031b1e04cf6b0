#!/usr/bin/env python3
"""Compare our boxes with the authors' own postprocessing, for families that Ultralytics does not export.

Builds each architecture with random weights (no download), exports it to ONNX as its authors do, runs the file through
our detector and through their postprocessing, and prints the largest differences:
TorchVision's RetinaNet and SSD, RT-DETR and D-FINE of Hugging Face, RF-DETR, classic YOLOv5 with objectness.

    pip install framewire torchvision transformers rfdetr yolov5 ultralytics scipy
    python tools/compare/compare_with_authors.py --image bus.jpg --out docs/authors.md --golden tests/golden/foreign
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.data import Frame
from engine.detection.load import load_detector
from engine.detection.model import ModelFacts
from engine.video.read_image import read_image
from tools.compare.compare_with_exporter import (
    boxed,
    compare,
    noisy,
    report,
    their_input,
    threshold_between,
)
from tools.compare.exporter_reference import Reference

IMAGENET = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass
class Case:
    """One architecture.

    Attributes:
        model: ready for export.
        pixels: (1, 3, size, size) float32, prepared as by the authors.
        names: of the outputs.
        rows: maps the outputs to (N, 4) xyxy boxes in pixels of the image, (N,) scores and (N,) labels, all above a
            threshold.
        options: arguments of `load_detector`.
        offset: the authors' label of the first class.
    """

    model: torch.nn.Module
    pixels: torch.Tensor
    names: list[str]
    rows: Callable[[list[torch.Tensor], float], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    options: dict[str, Any] = field(default_factory=dict)
    offset: int = 0


def stretched(image: np.ndarray, size: int) -> torch.Tensor:
    """Return (1, 3, size, size) float32 RGB 0..1 of an (H, W, 3) uint8 BGR image, without padding."""
    return torch.from_numpy(their_input(image, size, True))


def scaled_up(model: torch.nn.Module, outputs: int, scale: float) -> None:
    """Widen the scores of the last layers: their initialisation near zero would leave only ties."""
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and module.weight.shape[0] == outputs:
            torch.nn.init.normal_(module.weight, 0, scale / module.weight[0].numel() ** 0.5)


def settled(model: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Set the statistics of all normalisations to those of the input, so that signals neither fade nor explode.

    Args:
        model: changed in place.
        pixels: (1, 3, size, size) float32.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        model(torch.cat((pixels, pixels.flip(3))))  # two, because one value has no spread
    model.eval()


def torchvision_case(name: str, image: np.ndarray, size: int) -> Case:
    """Return a detector of TorchVision, whose graph ends in boxes; its own forward is the reference.

    Args:
        name: of the function in `torchvision.models.detection`.
        image: (H, W, 3) uint8 BGR.
        size: rows and columns of the input.
    """
    import torchvision

    build = getattr(torchvision.models.detection, name)
    sides = {} if name.startswith("ssd") else {"min_size": size, "max_size": size}
    model = build(weights=None, weights_backbone=None, num_classes=91, score_thresh=0.01, **sides).eval()
    for anchors in (4, 6, 9):
        scaled_up(model.head.classification_head, 91 * anchors, 1.0 if anchors == 9 else 3.0)
    size = {"ssd300_vgg16": 300}.get(name, size)
    pixels, back = boxed(image, size)
    settled(model, pixels)
    with torch.no_grad():
        [found] = model(pixels)

    def rows(_: list[torch.Tensor], score: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        passed = (found["scores"] > score) & (found["labels"] > 0)  # RetinaNet can also report 0, the background
        return found["boxes"][passed] * torch.from_numpy(back).float(), found["scores"][passed], found["labels"][passed]

    names = [f"class {label}" for label in range(1, 91)]
    return Case(model, pixels, ["boxes", "scores", "labels"], rows, {"names": names}, offset=1)


def hugging_face_case(name: str, image: np.ndarray, size: int) -> Case:
    """Return RT-DETR or D-FINE with the postprocess of its image processor.

    Args:
        name: prefix of the classes in `transformers`.
        image: (H, W, 3) uint8 BGR.
        size: rows and columns of the input.
    """
    import transformers
    from transformers.models.rt_detr.modeling_rt_detr import RTDetrObjectDetectionOutput

    config = getattr(transformers, f"{name}Config")(num_labels=80)
    model = getattr(transformers, f"{name}ForObjectDetection")(config).eval()
    scaled_up(model, 80, 3.0)
    processor = transformers.RTDetrImageProcessor()

    class Plain(torch.nn.Module):  # type: ignore[misc]  # torch is not typed where it is not installed
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model(pixels)
            return found.logits, found.pred_boxes

    def rows(outputs: list[torch.Tensor], score: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        made = RTDetrObjectDetectionOutput(logits=outputs[0], pred_boxes=outputs[1])
        [found] = processor.post_process_object_detection(made, threshold=score, target_sizes=[image.shape[:2]])
        return found["boxes"], found["scores"], found["labels"]

    return Case(Plain(), stretched(image, size), ["logits", "pred_boxes"], rows)


def rfdetr_case(image: np.ndarray) -> Case:
    """Return RF-DETR nano at its own size with its own postprocess, for an (H, W, 3) uint8 BGR image."""
    from rfdetr import RFDETRNano
    from rfdetr.models.postprocess import PostProcess

    made = RFDETRNano(pretrain_weights=None, num_classes=90)
    model = made.model.model.eval()
    model.export()
    scaled_up(model, 91, 3.0)

    def rows(outputs: list[torch.Tensor], score: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        made = {"pred_boxes": outputs[0], "pred_logits": outputs[1]}
        [found] = PostProcess(num_select=300)(made, torch.tensor([image.shape[:2]]))
        passed = found["scores"] > score
        return found["boxes"][passed], found["scores"][passed], found["labels"][passed]

    pixels = (stretched(image, made.model.resolution) - IMAGENET[0]) / IMAGENET[1]
    names = [f"class {label}" for label in range(91)]
    return Case(model, pixels, ["dets", "labels"], rows, {"names": names})


def yolov5_case(image: np.ndarray, size: int) -> Case:
    """Return the classic YOLOv5n with its NMS and scaling.

    Args:
        image: (H, W, 3) uint8 BGR.
        size: rows and columns of the input.
    """
    import yolov5
    from yolov5.models.yolo import DetectionModel
    from yolov5.utils.general import non_max_suppression, scale_boxes

    model = DetectionModel(str(Path(yolov5.__file__).parent / "models" / "yolov5n.yaml"))
    pixels = torch.from_numpy(their_input(image, size, False))
    settled(model, pixels)
    model.model[-1].export = True
    for last in model.model[-1].m:
        torch.nn.init.normal_(last.weight, 0, 1.5 / last.in_channels**0.5)
        torch.nn.init.zeros_(last.bias)

    def rows(outputs: list[torch.Tensor], score: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        [found] = non_max_suppression(outputs[0].double(), score, 0.45)
        boxes = scale_boxes((size, size), found[:, :4].clone(), image.shape)
        return boxes, found[:, 4], found[:, 5]

    return Case(model, pixels, ["output0"], rows)


def scores_of(outputs: list[torch.Tensor], case: Case) -> np.ndarray:
    """Return (N,) float32, every score that the authors' postprocessing gives without a threshold."""
    return np.asarray(case.rows(outputs, 0.001)[1].float().numpy())


def check(name: str, case: Case, image: np.ndarray, folder: Path, golden: Path | None, kept: int) -> dict[str, Any]:
    """Return the differences of one architecture, as a row of the table.

    Args:
        name: of the architecture.
        case: the architecture.
        image: (H, W, 3) uint8 BGR.
        folder: where to export it to.
        golden: folder for golden tensors; None: write none.
        kept: objects above the threshold, about.
    """
    path = folder / f"{name}.onnx"
    outputs = _exported(case, path)
    tensors = [torch.from_numpy(output) for output in outputs]
    score = threshold_between(scores_of(tensors, case), kept)
    boxes, scores, labels = case.rows(tensors, score)
    xyxy = boxes.float().numpy().clip(0, [image.shape[1], image.shape[0]] * 2)
    theirs = Reference(xyxy, scores.float().numpy(), labels.numpy().astype(int) - case.offset, {})
    with load_detector(path, backend="onnxruntime", score_threshold=score, **case.options) as detector:
        [ours] = detector.detect([Frame(image, "image", 0, 0, 0)])
        facts = detector.facts
    if golden is not None:
        arrays: dict[str, Any] = {f"output_{n}": output for n, output in enumerate(worth_keeping(outputs, score))}
        arrays |= {"image_hw": np.array(image.shape[:2]), "score_threshold": score}
        _save_golden(golden / f"{name}.npz", case, facts, theirs, arrays)
    shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
    return {"model": name, "output": shapes, "head": facts.family.name, "threshold": score, **compare(ours, theirs)}


def _exported(case: Case, path: Path) -> list[np.ndarray]:
    """Write the ONNX file of a case, and return its outputs."""
    case.model.requires_grad_(False)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": case.names}
    torch.onnx.export(case.model, (case.pixels,), str(path), **names, dynamo=False, opset_version=17)
    return list(onnxruntime.InferenceSession(str(path)).run(None, {"images": case.pixels.numpy()}))


def _save_golden(path: Path, case: Case, facts: ModelFacts, theirs: Reference, arrays: dict[str, Any]) -> None:
    model: dict[str, Any] = {
        "family": facts.family.name,
        "size_hw": np.array(facts.size_hw),
        "classes": len(facts.class_names),
    }
    boxes: dict[str, Any] = {"xyxy": theirs.xyxy, "score": theirs.score, "class_id": theirs.class_id.astype(np.int32)}
    np.savez_compressed(path, names=np.array(case.names), **model, **boxes, **arrays)


def worth_keeping(outputs: list[np.ndarray], score: float) -> list[np.ndarray]:
    """Return the outputs with the numbers that cannot pass the threshold removed, which compresses well.

    Args:
        outputs: (1, rows, 5 + classes) of YOLOv5; or (1, queries, classes) logits and (1, queries, 4) boxes in any
            order; others are returned unchanged.
        score: the threshold, 0 to 1.
    """
    if len(outputs) == 1:
        [rows] = outputs
        scores = rows[..., 4:5] * rows[..., 5:]
        best = scores.max(axis=2, keepdims=True)
        kept = np.concatenate((rows[..., :5], np.where(scores == best, rows[..., 5:], 0)), axis=2)
        return [np.where(best > score, kept, 0)]
    if len(outputs) == 2:
        least = np.log(score / (1 - score))
        return [output if output.shape[2] == 4 else np.where(output > least, output, -50) for output in outputs]
    return outputs


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, type=Path)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    parser.add_argument("--golden", type=Path, help="folder for small golden tensors")
    parser.add_argument("--kept", type=int, default=100, help="objects above the threshold")
    parser.add_argument("names", nargs="*")
    return parser.parse_args()


def _cases(image: np.ndarray, size: int) -> dict[str, Callable[[], Case]]:
    """Return what builds each architecture, by name."""
    return {
        "yolov5n-classic": lambda: yolov5_case(image, size),
        "retinanet_resnet50_fpn": lambda: torchvision_case("retinanet_resnet50_fpn", image, size),
        "ssd300_vgg16": lambda: torchvision_case("ssd300_vgg16", image, size),
        "ssdlite320_mobilenet_v3_large": lambda: torchvision_case("ssdlite320_mobilenet_v3_large", image, 320),
        "rtdetr-huggingface": lambda: hugging_face_case("RTDetr", image, size),
        "dfine-huggingface": lambda: hugging_face_case("DFine", image, size),
        "rfdetr-nano": lambda: rfdetr_case(image),
    }


def main() -> None:
    """Parse the arguments and compare."""
    arguments = _options()
    image = noisy(read_image(arguments.image))
    cases = _cases(image, arguments.size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or cases:
            torch.manual_seed(0)
            rows.append(check(name, cases[name](), image, Path(folder), arguments.golden, arguments.kept))
            print(rows[-1], flush=True)
    report(rows, arguments.out)


if __name__ == "__main__":
    main()
