"""Find scratched parts: blobs locate the parts, and a classifier trained on drawn ones recognises scratches.

    python examples/learning/part_defects.py [--parts 60]

With your own images of parts on a plain background, fill `parts/good` and `parts/scratched` with crops and train with
`framewire classify train parts --with hog-svm`. Where parts touch, train a detector instead: `framewire train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from engine import Detections, Frame
from engine.detection.classify import load_classifier
from engine.detection.second_stage import SecondStage
from pipelines.learning.classic.train import ClassicOptions, train_classic

NAMES = ("good", "scratched")
SIDE = 64


def part(rng: np.random.Generator, kind: int) -> np.ndarray:
    """Draw a metal disc with a hole on a dark belt; kind 1 has a bright scratch."""
    image = np.full((SIDE, SIDE, 3), 20, np.uint8)
    centre, radius = tuple(map(int, rng.integers(30, 35, 2))), int(rng.integers(22, 27))
    cv2.circle(image, centre, radius, (int(rng.integers(110, 150)),) * 3, -1, cv2.LINE_AA)
    cv2.circle(image, centre, 6, (60, 60, 60), -1, cv2.LINE_AA)
    if kind:
        angle, length = rng.uniform(0, np.pi), int(rng.integers(9, 14))
        along = np.array([np.cos(angle), np.sin(angle)]) * length
        start, end = ((np.array(centre) + [0, 13] + sign * along / 2).astype(int).tolist() for sign in (-1, 1))
        cv2.line(image, start, end, (235, 235, 235), 2, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def blobs(image: np.ndarray) -> Detections:
    """Segment the parts: connected regions brighter than the belt."""
    mask = cv2.threshold(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 0, 255, cv2.THRESH_OTSU)[1]
    stats = cv2.connectedComponentsWithStats(mask)[2][1:]
    x, y, w, h, _ = stats[stats[:, cv2.CC_STAT_AREA] > 400].T
    return Detections(np.stack((x, y, x + w, y + h), 1), np.ones(len(x)), np.zeros(len(x), int))


options = argparse.ArgumentParser()
options.add_argument("--parts", type=int, default=60, help="to learn from, per class")
count, rng = options.parse_args().parts, np.random.default_rng(0)
for kind, name in enumerate(NAMES):
    (Path("parts") / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = part(rng, kind)
        x1, y1, x2, y2 = blobs(image).xyxy[0].astype(int)  # crops as the engine will cut them
        cv2.imwrite(f"parts/{name}/{number:03d}.png", image[y1:y2, x1:x2])
result = train_classic(Path("parts"), Path("parts.onnx"), ClassicOptions("hog-svm", size=48))
print(f"on held-out crops: {result.accuracy:.3f}")

kinds = rng.integers(0, 2, (3, 6))
belt = np.concatenate([np.concatenate([part(rng, kind) for kind in row], axis=1) for row in kinds])
stage, right = SecondStage(load_classifier("parts.onnx"), top=1), 0
found = stage.classify(Frame(belt), blobs(belt))
for (x1, y1, x2, y2), [[class_id, _]] in zip(found.xyxy.astype(int).tolist(), found.extra["classes"], strict=True):
    right += int(class_id) == kinds[(y1 + y2) // 2 // SIDE, (x1 + x2) // 2 // SIDE]
    cv2.rectangle(belt, (x1, y1), (x2, y2), ((0, 200, 0), (0, 0, 255))[int(class_id)], 2)
stage.close()
cv2.imwrite("belt.png", belt)
print(f"parts on the belt: {len(found)} of {kinds.size} found, {right} judged right; see belt.png")
