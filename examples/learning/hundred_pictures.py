"""Classify with 100 images per class: scikit-learn's digits here; the same commands work for a folder of birds.

    python examples/learning/hundred_pictures.py

For birds, fill `birds/robin`, `birds/sparrow`, … with 100 images each. They vary more than digits, so learn on the
features of a pretrained network:
    framewire classify train birds --with features --base efficientnet-lite0 --out birds.onnx
    framewire eval classify --model birds.onnx --images birds_of_another_day --report birds.html
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

PER_CLASS, TEST = 100, 30
digits = load_digits()
for number in range(10):
    for count, row in enumerate(np.flatnonzero(digits.target == number)[: PER_CLASS + TEST]):
        folder = Path("digits") / ("train" if count < PER_CLASS else "test") / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{row}.png"), (digits.images[row] / 16 * 255).round().astype(np.uint8))

framewire = [sys.executable, "-m", "pipelines"]
train = ["classify", "train", "digits", "--with", "hog-svm", "--out", "digits.onnx"]
subprocess.run([*framewire, *train], check=True)
test = ["eval", "classify", "--model", "digits.onnx", "--images", "digits", "--report", "digits.html"]
subprocess.run([*framewire, *test], check=True)
