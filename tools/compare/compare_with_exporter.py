#!/usr/bin/env python3
"""Compare our boxes, masks, keypoints and corners with the exporter's own postprocessing, family by family.

Builds each architecture from Ultralytics' own yaml files with random weights (no download), exports it to ONNX, runs
the file through our detector and through ONNX Runtime plus Ultralytics' NMS and scaling, and prints the largest
differences. `--torchvision` does the same for TorchVision's Faster R-CNN.

    pip install "framewire[export]" torchvision
    python tools/compare/compare_with_exporter.py --image bus.jpg --out docs/exporters.md --golden tests/golden/heads
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from scipy.optimize import linear_sum_assignment
from ultralytics import RTDETR, YOLO
from ultralytics.data.augment import LetterBox

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.data import Detections, Frame
from engine.detection.classify import load_classifier
from engine.detection.load import load_detector
from engine.video.read_image import read_image
from tools.compare.exporter_reference import IOU, Reference, reference, rtdetr_reference

ARCHITECTURES = (
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n",
    "yolov8n-seg", "yolo11n-seg", "yolo26n-seg", "yolov8n-pose", "yolo11n-pose", "yolo26n-pose",
    "yolov8n-obb", "yolo11n-obb", "yolo26n-obb", "rtdetr-l",
)  # fmt: skip
CLASSIFIERS = ("yolov8n-cls", "yolo11n-cls", "yolo26n-cls", "resnet50", "efficientnet_b0")


def random_model(name: str, batch: np.ndarray, seed: int = 0) -> Any:
    """Return a model with random weights that vary enough to give different scores everywhere.

    Args:
        name: of the architecture's yaml file.
        batch: (1, 3, size, size) float32 RGB 0..1, whose statistics the normalisations adopt.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    model = RTDETR(f"{name}.yaml") if name.startswith("rtdetr") else YOLO(f"{name}.yaml")
    normalisations = [module for module in model.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in normalisations:
        module.momentum = 1.0  # one pass adopts the input's statistics, so that signals neither fade nor explode
        module.train()
    with torch.no_grad():
        model.model(torch.from_numpy(batch))
    for module in model.model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == 80 and module.bias is not None:
            torch.nn.init.normal_(module.bias, -2.0, 0.3)  # moves the scores away from their initialisation near zero
            torch.nn.init.normal_(module.weight, 0, 0.5 / module.in_channels**0.5)
    model.model.eval()
    return model


def noisy(image: np.ndarray) -> np.ndarray:
    """Return an (H, W, 3) uint8 image as (375, 500, 3) uint8 with strong noise: plain areas would give equal scores."""
    small = cv2.resize(image, (500, 375)).astype(np.float32)
    loud = small + np.random.default_rng(0).normal(0, 60, small.shape)
    return np.asarray(loud.clip(0, 255), np.uint8)


def their_input(image: np.ndarray, size: int, stretch: bool) -> np.ndarray:
    """Return (1, 3, size, size) float32 RGB 0..1 of an (H, W, 3) uint8 BGR image, prepared as by Ultralytics."""
    return np.asarray(pixels_of(LetterBox((size, size), auto=False, scale_fill=stretch)(image=image)).numpy())


def boxed(image: np.ndarray, size: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return the input with the image at the top left, and the factors that scale boxes in it back.

    Args:
        image: (H, W, 3) uint8 BGR.
        size: rows and columns of the input.

    Returns:
        (1, 3, size, size) float32 RGB 0..1, and (4,) float64 factors for xyxy.
    """
    scale = size / max(image.shape[:2])
    small = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))
    canvas = np.full((size, size, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return pixels_of(canvas), np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]] * 2)


def pixels_of(image: np.ndarray) -> torch.Tensor:
    """Return (1, 3, H, W) float32 RGB 0..1 of an (H, W, 3) uint8 BGR image."""
    return torch.from_numpy(np.ascontiguousarray(image[None, ..., ::-1].transpose(0, 3, 1, 2))).float() / 255


def best_scores(output: np.ndarray, classes: int, end_to_end: bool) -> np.ndarray:
    """Return the (N,) best score of each row.

    Args:
        output: (1, N, 6 or more) if end-to-end, else (1, 4 + classes or more, N).
        classes: number of classes.
        end_to_end: whether the rows hold one score each.
    """
    return output[0, :, 4] if end_to_end else output[0, 4 : 4 + classes].max(axis=0)


def threshold_between(scores: np.ndarray, candidates: int) -> float:
    """Return a threshold that about `candidates` of the (N,) scores pass.

    It lies in the middle of a gap, so that rounding decides nothing.
    """
    ordered = np.unique(scores)[::-1][: candidates + 1].astype(np.float64)
    gaps = ordered[:-1] - ordered[1:]
    place = int(np.argmax(gaps[len(gaps) // 2 :])) + len(gaps) // 2
    return float((ordered[place] + ordered[place + 1]) / 2)


def match(ours: Detections, theirs: Reference) -> np.ndarray:
    """Return (N,) int64: for each of their N rows, our closest row of the same class, each used at most once."""
    far = np.abs(theirs.xyxy[:, None] - ours.xyxy[None]).max(axis=2) + 1000 * np.abs(
        theirs.score[:, None] - ours.score[None]
    )
    far[theirs.class_id[:, None] != ours.class_id[None]] = 1e6
    return np.asarray(linear_sum_assignment(far)[1])


def compare(ours: Detections, theirs: Reference) -> dict[str, Any]:
    """Return the largest differences."""
    row: dict[str, Any] = {"boxes": f"{len(ours)} / {len(theirs.score)}"}
    if len(ours) != len(theirs.score):
        return row
    left, right = match(ours, theirs), slice(None)
    row["classes differ"] = int((ours.class_id[left] != theirs.class_id).sum())
    row["score"] = float(np.abs(ours.score[left] - theirs.score[right]).max(initial=0))
    row["box, pixels"] = float(np.abs(ours.xyxy[left] - theirs.xyxy[right]).max(initial=0))
    for name, column in theirs.extra.items():
        if name == "mask":
            row["mask IoU"] = mask_iou(ours.extra[name][left], column[right].astype(bool))
        else:
            values = ours.extra[name][left][..., : column.shape[-1]]
            row["points, pixels"] = float(np.abs(values - column[right]).max(initial=0))
    return row


def mask_iou(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the IoU over the pixels of all masks together; both are (N, H, W) bool."""
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1))


def check(
    name: str, folder: Path, image: np.ndarray, size: int, candidates: int, golden: Path | None, **export: Any
) -> dict[str, Any]:
    """Return the differences of one architecture, as a row of the table.

    Args:
        name: of the architecture.
        folder: where to export it to.
        image: (H, W, 3) uint8 BGR.
        size: rows and columns of the input.
        candidates: rows above the threshold, about.
        golden: folder for golden tensors; None: write none.
        export: further arguments of Ultralytics' `export`.
    """
    stretch = name.startswith("rtdetr")
    model = random_model(name, their_input(image, size, stretch))
    path = Path(model.export(format="onnx", imgsz=size, verbose=False, **export))
    path = path.rename(folder / f"{name}{'-nmsfree' if export else ''}.onnx")
    session = onnxruntime.InferenceSession(str(path))
    outputs = session.run(None, {session.get_inputs()[0].name: their_input(image, size, stretch)})
    end_to_end = outputs[0].shape[2] < 100
    scored = outputs[0].shape[2] == 6 or not stretch
    scores = best_scores(outputs[0], len(model.names), end_to_end) if scored else outputs[0][0, :, 4:].max(axis=1)
    score = threshold_between(scores, candidates)
    theirs = rtdetr_reference(outputs[0], image, score) if stretch else reference(outputs, model, image, size, score)
    with load_detector(path, backend="onnxruntime", score_threshold=score, iou_threshold=IOU) as detector:
        [ours] = detector.detect([Frame(image, "image", 0, 0, 0)])
        family = detector.facts.family.name
    if golden is not None:
        save_golden(golden / f"{path.stem}.npz", outputs, theirs, score, size, image.shape, detector.facts)
    shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
    return {"model": path.stem, "output": shapes, "head": family, "threshold": score, **compare(ours, theirs)}


def save_golden(
    path: Path, outputs: list[np.ndarray], theirs: Reference, score: float, size: int, shape: Any, facts: Any
) -> None:
    """Write the output rows that matter and the exporter's result for them; the other rows are dropped to save space.

    Masks are left out, because their prototypes alone are larger than everything else.

    Args:
        path: the `.npz`.
        outputs: of the model; the first is (1, 4 + classes + rest, anchors) or (1, rows, 6 + rest) float32.
        theirs: the exporter's result.
        score: the threshold.
        size: rows and columns of the input.
        shape: of the image, (H, W, 3).
        facts: of the exported model.
    """
    raw = outputs[0][0]
    classes = len(facts.class_names)
    end_to_end = raw.shape[1] < 100
    if end_to_end:
        rows = np.arange(len(raw))
        kept = raw
    else:
        rows = np.argsort(-raw[4 : 4 + classes].max(axis=0))[: 2 * len(theirs.score) + 50]
        kept = raw[:, rows]
    extra: dict[str, Any] = {f"extra_{name}": column for name, column in theirs.extra.items() if name != "mask"}
    np.savez_compressed(
        path,
        kept=kept.astype(np.float32), rows=rows.astype(np.int32), shape=np.array(raw.shape), score_threshold=score,
        size=size, image_hw=np.array(shape[:2]), classes=classes, family=facts.family.name,
        xyxy=theirs.xyxy.astype(np.float32), score=theirs.score, class_id=theirs.class_id.astype(np.int32), **extra,
    )  # fmt: skip


def torchvision_row(folder: Path, image: np.ndarray, candidates: int) -> dict[str, Any]:
    """Return the differences for TorchVision's Faster R-CNN with random weights, whose graph ends in boxes.

    Args:
        folder: where to export it to.
        image: (H, W, 3) uint8 BGR.
        candidates: boxes above the threshold, about.
    """
    import torchvision

    torch.manual_seed(0)
    size = 320
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=91, box_score_thresh=0.0, min_size=size, max_size=size
    ).eval()
    tensor, back = boxed(image, size)
    path = folder / "fasterrcnn_resnet50_fpn.onnx"
    names = ["boxes", "labels", "scores"]
    torch.onnx.export(
        model, (tensor,), str(path), input_names=["images"], output_names=names, dynamo=False, opset_version=17
    )
    with torch.no_grad():
        [found] = model(tensor)
    score = threshold_between(found["scores"].numpy(), candidates)
    passed = found["scores"] > score
    xyxy = (found["boxes"][passed].numpy() * back).clip(0, [image.shape[1], image.shape[0]] * 2)
    labels = found["labels"][passed].numpy()
    classes = [f"class {label}" for label in range(1, 91)]
    with load_detector(path, backend="onnxruntime", score_threshold=score, names=classes) as detector:
        [ours] = detector.detect([Frame(image, "image", 0, 0, 0)])
    theirs = Reference(xyxy, found["scores"][passed].numpy(), labels - 1, {})
    figures = compare(ours, theirs)
    return {"model": path.stem, "output": ", ".join(names), "head": "torchvision", "threshold": score, **figures}


def export_yolo(name: str, pixels: torch.Tensor, path: Path) -> np.ndarray:
    """Write a classifier of Ultralytics with random weights, and return its (classes,) probabilities for an image.

    Args:
        name: of the architecture.
        pixels: the image, (1, 3, size, size) float32 RGB 0..1.
        path: the ONNX file.
    """
    model = random_model(name, pixels.numpy())
    Path(model.export(format="onnx", imgsz=pixels.shape[-1], verbose=False)).rename(path)
    with torch.no_grad():
        output = model.model(pixels)
    return np.asarray((output[0] if isinstance(output, (tuple, list)) else output)[0].numpy())


def classifier_row(name: str, folder: Path, image: np.ndarray) -> dict[str, Any]:
    """Return the difference in probability of a classifier on an (H, W, 3) uint8 BGR image, stretched: no crop."""
    size = 224
    square = cv2.resize(image, (size, size))
    pixels = pixels_of(square)
    path = folder / f"{name}.onnx"
    theirs = (export_yolo if name.startswith("yolo") else export_torchvision)(name, pixels, path)
    with load_classifier(path, backend="onnxruntime") as classifier:
        [ours] = classifier.probabilities([square])
    same = np.argsort(-ours)[:5].tolist() == np.argsort(-theirs)[:5].tolist()
    return {
        "model": name,
        "output": f"(1, {len(ours)})",
        "head": "classify",
        "boxes": f"top 5 {'same' if same else 'differ'}",
        "score": float(np.abs(ours - theirs).max()),
    }


def export_torchvision(name: str, pixels: torch.Tensor, path: Path) -> np.ndarray:
    """Export a TorchVision classifier with random weights and return its (classes,) probabilities for an image.

    Args:
        name: of the function in `torchvision.models`.
        pixels: the image, (1, 3, size, size) float32 RGB 0..1.
        path: the ONNX file.
    """
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tensor = (pixels - mean[:, None, None]) / std[:, None, None]
    torch.onnx.export(model, (tensor,), str(path), input_names=["images"], dynamo=False, opset_version=17)
    with torch.no_grad():
        return np.asarray(model(tensor).softmax(dim=1)[0].numpy())


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [row.get(key, "") for key in columns]
        lines.append("| " + " | ".join(map(_text, cells)) + " |")
    return "\n".join(lines)


def _text(cell: object) -> str:
    """Return a cell of the table; small numbers with two digits."""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.2g}" if cell < 0.9 else f"{cell:.5g}"


def report(rows: list[dict[str, Any]], out: Path | None) -> None:
    """Print the table, and write it to a file if there is one."""
    text = table(rows)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def _rows(arguments: argparse.Namespace, image: np.ndarray, folder: Path) -> Iterator[dict[str, Any]]:
    """Compare the chosen architectures, each in all its exports."""
    for name in arguments.names:
        exports: list[dict[str, Any]] = [{}]
        if name.startswith(("yolov10", "yolo26")):
            exports.append({"nms": False})  # the NMS-free branch
        for export in exports:
            yield check(name, folder, image, arguments.size, arguments.candidates, arguments.golden, **export)
    if arguments.torchvision:
        yield from (classifier_row(name, folder, image) for name in CLASSIFIERS)
        yield torchvision_row(folder, image, arguments.candidates)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, type=Path)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    parser.add_argument("--golden", type=Path, help="folder for small golden tensors")
    parser.add_argument("--candidates", type=int, default=400, help="rows above the threshold")
    parser.add_argument("--torchvision", action="store_true")
    parser.add_argument("names", nargs="*", default=ARCHITECTURES)
    return parser.parse_args()


def main() -> None:
    """Parse the arguments and compare."""
    arguments = _options()
    image = noisy(read_image(arguments.image))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in _rows(arguments, image, Path(folder)):
            print(row, flush=True)
            rows.append(row)
    report(rows, arguments.out)


if __name__ == "__main__":
    main()
