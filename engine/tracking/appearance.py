"""Appearance vectors of objects: runs a person re-identification network (ONNX) on crops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import BackendOptions
from engine.backends.files.base import find_model
from engine.backends.select import create_backend, select_backend
from engine.errors import ModelError

Features = NDArray[np.float32]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""ImageNet's, in RGB, as torchreid trains OSNet."""


class Embedder:
    """Turns crops into unit vectors whose dot product measures their similarity. Several trackers may share one.

    Args:
        path: ONNX model, or its name in the catalogue, with one output (N or 1, D) and one input: (N or 1, 3, H, W) of
            normalised RGB, as torchreid exports OSNet (Zhou et al. 2019), or (N or 1, H, W, 3) of BGR in 0..255, as
            Intel's person-reidentification-retail models are converted.
        backend: the backend that runs it.

    Raises:
        ModelError: the file does not hold such a model.
        ConfigError: the backend is unknown, or does not run ONNX files.
    """

    def __init__(self, path: str | Path, backend: str = "onnxruntime") -> None:
        path = find_model(path)
        name, _ = select_backend(path, backend)
        self._backend = create_backend(name, path, BackendOptions(performance="latency", threads=1, depth=1))
        try:
            self._backend.open()
        except ModelError as error:
            raise ModelError(f"{path} cannot be loaded ({error}): give a re-identification model in ONNX") from error
        source, target = self._backend.inputs[0], self._backend.outputs[0]
        shape, gives = source.shape, target.shape
        self._channels_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
        rows, columns = (shape[1:3] if self._channels_last else shape[2:]) if len(shape) == 4 else (None, None)
        if rows is None or columns is None or 3 not in (shape[1], shape[3]):
            raise ModelError(f"{path} takes {source}: expected (N, 3, H, W) or (N, H, W, 3) of fixed height and width")
        if len(gives) != 2 or gives[1] is None:
            raise ModelError(f"{path} gives {target}: expected one vector of fixed length per crop")
        self.length: int = gives[1]
        self._name = source.name
        self._size_wh: tuple[int, int] = (columns, rows)
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
        if self._channels_last:
            return np.asarray(resized, np.float32)
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
