"""Appearance vectors of objects: runs a person re-identification network (ONNX) on crops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import BackendOptions
from engine.backends.select import create_backend, select_backend
from engine.errors import ModelError

Features = NDArray[np.float32]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""ImageNet's, in RGB, as torchreid trains OSNet."""


class Embedder:
    """Turns crops into unit vectors whose dot product measures their similarity. Several trackers may share one.

    Args:
        path: ONNX model with one input (N or 1, 3, H, W) of normalised RGB and one output (N or 1, D), such as OSNet
            (Zhou et al. 2019) as torchreid exports it.
        backend: the backend that runs it.

    Raises:
        ModelError: the file does not hold such a model.
        ConfigError: the backend is unknown, or does not run ONNX files.
    """

    def __init__(self, path: str | Path, backend: str = "onnxruntime") -> None:
        name, _ = select_backend(Path(path), backend)
        self._backend = create_backend(name, Path(path), BackendOptions(performance="latency", threads=1, depth=1))
        try:
            self._backend.open()
        except ModelError as error:
            raise ModelError(f"{path} cannot be loaded ({error}): give a re-identification model in ONNX") from error
        source, target = self._backend.inputs[0], self._backend.outputs[0]
        shape, gives = source.shape, target.shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] is None or shape[3] is None:
            raise ModelError(f"{path} takes {source}: expected (N, 3, H, W) of fixed height and width")
        if len(gives) != 2 or gives[1] is None:
            raise ModelError(f"{path} gives {target}: expected one vector of fixed length per crop")
        self.length: int = gives[1]
        self._name = source.name
        self._size_wh: tuple[int, int] = (shape[3], shape[2])
        self._batches = shape[0] is None

    def embed(self, image: NDArray[np.uint8], xyxy: NDArray[np.float64]) -> Features:
        """Return (N, length) unit vectors of the parts of `image` (H, W, 3, BGR) inside (N, 4) boxes.

        A box outside the image gets a vector of zeros, which is similar to nothing.
        """
        height, width = image.shape[:2]
        boxes = np.clip(np.round(xyxy), 0, (width, height, width, height)).astype(int)
        inside = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        features = np.zeros((len(boxes), self.length), np.float32)
        if len(inside):
            crops = np.stack([self._crop(image, box) for box in boxes[inside].tolist()])
            raw = self._run(crops)
            features[inside] = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
        return features

    def _crop(self, image: NDArray[np.uint8], box: list[int]) -> NDArray[np.float32]:
        left, top, right, bottom = box
        resized = cv2.resize(image[top:bottom, left:right], self._size_wh, interpolation=cv2.INTER_LINEAR)
        normalised = (resized[:, :, ::-1].astype(np.float32) - _MEAN) / _STD
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

    def _run(self, crops: NDArray[np.float32]) -> Features:
        parts = [crops] if self._batches else np.split(crops, len(crops))
        return np.concatenate([self._vectors(part) for part in parts])

    def _vectors(self, crops: NDArray[np.float32]) -> Features:
        pending = self._backend.submit({self._name: crops})
        try:
            return np.array(pending.result()[0], np.float32)  # a copy: the array belongs to the backend
        finally:
            pending.release()
