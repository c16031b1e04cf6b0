"""Image classification of whole frames, or of the boxes of a first detector.

Known layouts: Ultralytics `-cls` (b, classes) after the softmax, RGB 0..1; TorchVision, timm and Keras exports
(b, classes) before the softmax, with ImageNet normalisation. Frames are scaled so that the shorter side fits and cut
at the centre, as both train their models; crops of a second stage are stretched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, BackendOptions, ImageInput, device_of
from engine.backends.files.base import ModelFile, read_model_file
from engine.backends.select import create_backend, select_backend
from engine.backends.trial import try_model
from engine.detection import metadata
from engine.detection.heads.base import softmax
from engine.detection.heads.family import BYTE, IMAGENET_MEAN, IMAGENET_STD, ZERO, Color
from engine.detection.model import CLASSIFIER_SIZE, frame_size, triple
from engine.detection.words.classifier import WordsClassifier
from engine.detection.words.file import SUFFIX
from engine.errors import ConfigError, ModelError
from engine.paths import path_from_text
from engine.protocols import DetectorFacts

Image = NDArray[np.uint8]
TOP = 5


class ImageClassifier(Protocol):
    """What the second stage and the frame classifier need: `Classifier` and `WordsClassifier` have it."""

    max_batch: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""

    def describe(self) -> DetectorFacts:
        """Return the backend and its device."""

    def open(self) -> None:
        """Load the model. Raises `ModelError`; harmless when repeated."""

    def probabilities(self, images: Sequence[Image], *, crop: bool = True) -> NDArray[np.float32]:
        """Return (N, classes) probabilities of any number of BGR images; opens the model if necessary."""

    def close(self) -> None:
        """Free the model; harmless when repeated."""


@dataclass(frozen=True, slots=True)
class ClassifierFacts:
    """A classification model as its file describes it.

    Attributes:
        file: tensors, metadata, precision.
        class_names: by class id.
        image: how pixels become numbers.
        batch: images per inference, None if the model leaves it open.
        is_probability: whether the softmax is already applied to the output.
    """

    file: ModelFile
    class_names: tuple[str, ...]
    image: ImageInput
    batch: int | None
    is_probability: bool


def inspect_classifier(
    path: str | Path,
    names: Sequence[str] | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    color: Color | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ClassifierFacts:
    """Return what a classification model says about itself.

    Args:
        path: `.onnx`, OpenVINO `.xml` or folder, `.plan`.
        names: class names, instead of those in the file.
        size: rows and columns (one number for a square), for models that leave them open.
        color: `rgb` or `bgr`; None is `rgb`.
        mean: of 0..255 pixels per channel in that order, instead of the default for the kind of model.
        std: of 0..255 pixels, likewise.

    Raises:
        ModelError: the file is broken, or does not have exactly one output (b, classes).
        ConfigError: the model does not support the size, or mean or std is not three numbers.
    """
    file = read_model_file(path)
    given = {"color": color, "mean": triple(mean, "mean"), "std": triple(std, "std")}
    try:
        return _inspect(file, names, size, {key: value for key, value in given.items() if value is not None})
    except (ModelError, ConfigError) as error:
        raise type(error)(f"{file.path}: {error}") from error


def _inspect(
    file: ModelFile, names: Sequence[str] | None, size: int | tuple[int, int] | None, given_input: Mapping[str, Any]
) -> ClassifierFacts:
    values = metadata.parse_metadata(file.metadata)
    first, output = file.inputs[0], file.outputs[0]
    if len(file.inputs) != 1 or len(file.outputs) != 1 or len(output.shape) != 2 or output.shape[1] is None:
        raise ModelError(f"not a classification model: output {output}, expected one (b, classes)")
    if len(first.shape) != 4 or 3 not in (first.shape[1], first.shape[3]):
        raise ModelError(f"input {first}: expected images, (b, 3, h, w) or (b, h, w, 3)")
    channels: Literal["nchw", "nhwc"] = "nchw" if first.shape[1] == 3 else "nhwc"
    size_hw = frame_size(first, channels, size, metadata.image_size(values), CLASSIFIER_SIZE)
    given = tuple(names) if names else metadata.class_names(values)
    if given is not None and len(given) != output.shape[1]:
        raise ModelError(f"{len(given)} class names for {output.shape[1]} classes: give one name per class")
    own = metadata.text_value(values, "task") == "classify"
    mean, std = (ZERO, BYTE) if own else (IMAGENET_MEAN, IMAGENET_STD)
    image = ImageInput(size_hw, "rgb", mean, std, channels)
    return ClassifierFacts(
        file=file,
        class_names=given or tuple(f"class_{index}" for index in range(output.shape[1])),
        image=replace(image, **given_input),
        batch=first.shape[0],
        is_probability=own,
    )


def centre_crop(image: Image, size_hw: tuple[int, int]) -> Image:
    """Return the (rows, columns, 3) middle of an image whose shorter side is scaled to fit, as in training."""
    height, width = image.shape[:2]
    rows, columns = size_hw
    scale = max(rows / height, columns / width)
    size_wh = max(columns, round(width * scale)), max(rows, round(height * scale))
    area = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, size_wh, interpolation=area)
    top, left = (size_wh[1] - rows) // 2, (size_wh[0] - columns) // 2
    cropped: Image = scaled[top : top + rows, left : left + columns]
    return cropped


class Classifier:
    """Classifies images. Call it from one thread only.

    Args:
        facts: the model, from `inspect_classifier`.
        backend: runs it.
        max_batch: maximum number of images per inference, if the model leaves it open.
        try_first: loads it the same way in a separate process before it is loaded here.
    """

    def __init__(
        self, facts: ClassifierFacts, backend: Backend, max_batch: int = 1, *, try_first: BackendOptions | None = None
    ) -> None:
        self.facts = facts
        self.max_batch = facts.batch or max_batch
        self._backend = backend
        self._batch: Image | None = None
        self._try_first = try_first

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""
        return self.facts.class_names

    def describe(self) -> DetectorFacts:
        """Return the backend and its device."""
        return DetectorFacts(self._backend.name, device_of(self._backend))

    def open(self) -> None:
        """Load the model. Raises `ModelError`; harmless when repeated."""
        if self._batch is None:
            if self._try_first is not None:
                try_model(self._backend, self.facts.file.path, self._try_first)
            self._backend.open()
            self._batch = self._backend.empty((self.max_batch, *self.facts.image.size_hw, 3), np.uint8)

    def probabilities(self, images: Sequence[Image], *, crop: bool = True) -> NDArray[np.float32]:
        """Return (N, classes) probabilities of any number of images; opens the model if necessary.

        Args:
            images: (h, w, 3) uint8 BGR, of any size each.
            crop: cut whole frames at the centre; False stretches them, for boxes of a first stage.
        """
        self.open()
        parts = [
            self._infer(images[start : start + self.max_batch], crop) for start in range(0, len(images), self.max_batch)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.class_names)), np.float32)

    def _infer(self, images: Sequence[Image], crop: bool) -> NDArray[np.float32]:
        if self._batch is None:
            raise ModelError("the classifier is closed")
        rows, columns = self.facts.image.size_hw
        for row, image in zip(self._batch, images, strict=False):
            row[:] = centre_crop(image, (rows, columns)) if crop else cv2.resize(image, (columns, rows))
        batch = self._batch if self.facts.batch is not None else self._batch[: len(images)]
        pending = self._backend.submit({self._backend.inputs[0].name: batch})
        try:
            output: NDArray[Any] = pending.result()[0][: len(images)].astype(np.float32)
        finally:
            pending.release()
        return output if self.facts.is_probability else probabilities_of(output)

    def top(self, image: Image, count: int = TOP) -> list[tuple[str, float]]:
        """Return the likeliest classes of a whole frame, (H, W, 3) uint8 BGR, best first, with their probabilities."""
        [row] = self.probabilities([image])
        best = np.argsort(-row, kind="stable")[:count]
        return [(self.class_names[index], float(row[index])) for index in best]

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self._batch = None
        self._backend.close()

    def __enter__(self) -> Classifier:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def probabilities_of(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (N, classes) probabilities of logits; rows that are already probabilities are unchanged."""
    sums = logits.sum(axis=1)
    if logits.min(initial=0) >= 0 and np.allclose(sums, 1, atol=1e-3):
        return logits
    return softmax(logits)


def load_image_classifier(path: str | Path, **options: Any) -> ImageClassifier:
    """Return a classifier for a model file or folder, or for an `.npz` of SIFT words.

    Args:
        path: as for `load_classifier`, or an `.npz`.
        options: arguments of `load_classifier`; SIFT words take none, and ignore the backend.

    Raises:
        ModelError: the file is broken, or not a classification model.
        ConfigError: an option that cannot work.
    """
    if Path(path).suffix.lower() != SUFFIX:
        return load_classifier(path, **options)
    refused = [key for key in ("names", "size", "color", "mean", "std", "precision") if options.get(key) is not None]
    if refused:
        raise ConfigError(f"{path}: a bag of SIFT words has no {refused[0]} to set: leave it out")
    return WordsClassifier(path_from_text(str(path)))


def load_classifier(
    path: str | Path,
    *,
    backend: str = "auto",
    names: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    color: Color | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    max_batch: int = 8,
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    try_first: bool = False,
) -> Classifier:
    """Return a classifier for a model file or folder; its `open` loads the model.

    Args:
        path: `.onnx`, OpenVINO `.xml` or folder, `.plan`.
        backend: `auto` or a name.
        names: class names, instead of those in the file.
        size: rows and columns, for models that leave them open.
        color: `rgb` or `bgr`; None is `rgb`.
        mean: of 0..255 pixels per channel; None is 0 for Ultralytics' models, ImageNet's for others.
        std: of 0..255 pixels per channel; None is 255 for Ultralytics' models, ImageNet's for others.
        max_batch: maximum number of images per inference, if the model leaves it open.
        precision: arithmetic of the backend (`f32`, `bf16`, ...); None is its default.
        threads: maximum number of CPU threads.
        cache_dir: folder for compiled models; None: the user's cache folder, or the model's folder for TensorRT.
        try_first: load the file in a separate process first, as `load_detector` does.

    Raises:
        ModelError: the file is broken, or not a classification model.
        ConfigError: an argument that cannot work.
    """
    found = inspect_classifier(path, names, size=size, color=color, mean=mean, std=std)
    chosen, _ = select_backend(found.file.path, backend)
    options = BackendOptions(
        image=found.image,
        performance="latency",
        max_batch=found.batch or max_batch,
        precision=precision,
        threads=threads,
        cache_dir=Path(cache_dir) if cache_dir else None,
    )
    backend_of_file = create_backend(chosen, found.file.path, options)
    return Classifier(found, backend_of_file, max_batch, try_first=options if try_first else None)
