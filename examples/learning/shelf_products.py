"""Count the products on a shelf: find each package, identify it by its print, and compare with the plan of the shelf.

    python examples/learning/shelf_products.py [--pictures 30]

With your own shelf, fill one folder of images per product and train with
`framewire classify train products --with sift-words`; a detector trained on packages replaces the gaps used here.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from engine import Detections, Frame
from engine.detection.classify import load_image_classifier
from engine.detection.second_stage import SecondStage
from pipelines.learning.classic.train import ClassicOptions, train_classic

PRODUCTS = ("cereal", "coffee", "noodles", "tea")
SIDE = 96


def package(rng: np.random.Generator, kind: int) -> np.ndarray:
    """Draw a package: each product has its own print, each package its own light and position."""
    fixed, image = np.random.default_rng(100 + kind), np.full((SIDE, SIDE, 3), 200, np.uint8)
    for _ in range(22):
        at, colour = tuple(map(int, fixed.integers(8, SIDE - 8, 2))), tuple(map(int, fixed.integers(0, 160, 3)))
        size = int(fixed.integers(3, 9))
        if fixed.random() < 0.5:
            cv2.circle(image, at, size, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, at, (at[0] + 2 * size, at[1] + size), colour, -1)
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), float(rng.uniform(-8, 8)), float(rng.uniform(0.9, 1.05)))
    image = cv2.warpAffine(image, turn, (SIDE, SIDE), borderValue=(200, 200, 200))
    return np.clip(image * rng.uniform(0.7, 1.15) + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


options = argparse.ArgumentParser()
options.add_argument("--pictures", type=int, default=30, help="to learn from, per product")
count, rng = options.parse_args().pictures, np.random.default_rng(0)
for kind, name in enumerate(PRODUCTS):
    (Path("products") / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(f"products/{name}/{number:03d}.png", package(rng, kind))
result = train_classic(Path("products"), Path("products.npz"), ClassicOptions("sift-words", words=48))
print(f"on held-out images: {result.accuracy:.3f}")

plan = rng.integers(0, len(PRODUCTS), (3, 8))
shelf = np.full((3 * (SIDE + 20), 8 * (SIDE + 12), 3), 35, np.uint8)
for (row, column), kind in np.ndenumerate(plan):
    y, x = row * (SIDE + 20) + 10, column * (SIDE + 12) + 6
    shelf[y : y + SIDE, x : x + SIDE] = package(rng, int(kind))
mask = cv2.morphologyEx(cv2.inRange(shelf, (45, 45, 45), (255, 255, 255)), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
stats = cv2.connectedComponentsWithStats(mask)[2][1:]
x, y, w, h, _ = stats[stats[:, cv2.CC_STAT_AREA] > SIDE * SIDE / 2].T
packages = Detections(np.stack((x, y, x + w, y + h), axis=1), np.ones(len(x)), np.zeros(len(x), int))
stage = SecondStage(load_image_classifier("products.npz"), top=1)
found = stage.classify(Frame(shelf), packages).extra["classes"][:, 0, 0].astype(int)
counted = Counter(PRODUCTS[kind] for kind in found)
for kind, name in enumerate(PRODUCTS):
    print(f"{name}: {counted[name]} on the shelf, {int((plan == kind).sum())} planned")
cv2.imwrite("shelf.png", shelf)
