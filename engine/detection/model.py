"""What is known about a detection model before it is loaded: size, classes, head, input format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.backends.base import ImageInput, TensorSpec
from engine.backends.files.base import ModelFile, read_model_file
from engine.detection import metadata
from engine.detection.coco import COCO_80_FROM_91, COCO_NAMES
from engine.detection.heads.base import Head
from engine.detection.heads.families import choose_family
from engine.detection.heads.family import Color, Family, Layout
from engine.detection.heads.open_sizes import fill_in
from engine.detection.heads.tflite import standard_family, standard_layout
from engine.detection.letterbox import Anchor
from engine.errors import ConfigError, ModelError

DEFAULT_SIZE = 640
DEFAULT_SCORE = 0.25
CLASSIFIER_SIZE = 224
CLASSIFY_TASKS = ("classify", "classification")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A detection model as its file describes it.

    Attributes:
        file: tensors, metadata, precision of the weights, size.
        metadata: the metadata with texts turned into values.
        task: `detect`, `segment`, ...
        family: the kind of head, with the input that it expects.
        layout: what the head is built from.
        class_names: by class id.
        size_hw: rows and columns of the model's frame.
        stride: the largest, None if unknown.
        batch: images per inference, None if the model leaves it open and its outputs keep the images separate.
        image: how pixels become numbers.
        class_map: class id by the number that the model outputs, -1 for none; None if they are the same.
    """

    file: ModelFile
    metadata: Mapping[str, Any]
    task: str
    family: Family
    layout: Layout
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]
    stride: int | None
    batch: int | None
    image: ImageInput
    class_map: tuple[int, ...] | None = None

    @property
    def path(self) -> Path:
        """The file that a backend loads."""
        return self.file.path

    def head(self) -> Head:
        """Return a decoder of the model's outputs."""
        return self.family.build(self.layout)

    @property
    def usual_score(self) -> float:
        """The score threshold that the file recommends (`score_threshold` in its metadata), else 0.25."""
        value = self.metadata.get("score_threshold")
        return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else DEFAULT_SCORE

    @property
    def name(self) -> str:
        """Name of the model: the folder's for an exported folder, else the file's."""
        parent = self.path.parent.name
        return parent if parent.endswith("_openvino_model") else self.path.name


def inspect_model(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    head: str | None = None,
    color: Color | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    letterbox: Anchor | None = None,
) -> ModelFacts:
    """Return what a model file or folder says about itself, without loading or running anything from it.

    Args:
        path: `.onnx`, OpenVINO `.xml` or folder, `.tflite`, `.plan`, `.engine`.
        size: rows and columns (one number for a square), for models that leave them open.
        names: class names, instead of those in the file.
        head: name of the family, instead of the one found by metadata and shape.
        color: `rgb` or `bgr`, instead of the family's channel order.
        mean: of 0..255 pixels per channel in that order, instead of the family's.
        std: of 0..255 pixels, likewise.
        letterbox: `center`, `top_left` or `stretch`, instead of the family's way to place a frame.

    Raises:
        ModelError: the file is missing or broken, or the model is not a detector of a known kind.
        ConfigError: the model does not support the size.
    """
    file = read_model_file(path)
    try:
        given = {"color": color, "mean": triple(mean, "mean"), "std": triple(std, "std"), "anchor": letterbox}
        return _facts(file, size, names, head, {key: value for key, value in given.items() if value is not None})
    except (ModelError, ConfigError) as error:
        raise type(error)(f"{file.path}: {error}") from error


def image_size(file: ModelFile, size: int | tuple[int, int] | None = None) -> tuple[int, int]:
    """Return rows and columns of the images that a model takes, even if its head is unknown.

    Args:
        file: from `read_model_file`.
        size: rows and columns (one number for a square), for models that leave them open.

    Raises:
        ModelError: it does not take images.
        ConfigError: the model does not support the size.
    """
    values = metadata.parse_metadata(file.metadata)
    default = CLASSIFIER_SIZE if _is_classifier(file, metadata.text_value(values, "task")) else DEFAULT_SIZE
    try:
        channels = _channel_layout(file.inputs[0])
        return frame_size(file.inputs[0], channels, size, metadata.image_size(values), default)
    except (ModelError, ConfigError) as error:
        raise type(error)(f"{file.path}: {error}") from error


def _facts(
    file: ModelFile,
    size: int | tuple[int, int] | None,
    names: Sequence[str] | None,
    head: str | None,
    given_input: Mapping[str, Any],
) -> ModelFacts:
    values = metadata.parse_metadata(file.metadata)
    task = metadata.text_value(values, "task")
    _refuse_classifier(file, task)
    _check_inputs(file.inputs)
    channels = _channel_layout(file.inputs[0])
    size_hw = frame_size(file.inputs[0], channels, size, metadata.image_size(values))
    given = tuple(names) if names else metadata.class_names(values)
    count = len(given) if given else None
    as_in_file = Layout(file.outputs, size_hw, values, task, count, takes_size=len(file.inputs) > 1)
    layout = standard_layout(as_in_file) if file.format == "tflite" else fill_in(as_in_file)
    family = replace(choose_family(layout, head), **given_input)
    if file.format == "tflite":
        family = standard_family(family, as_in_file)
    return ModelFacts(
        file=file,
        metadata=values,
        task=task or "detect",
        family=family,
        layout=layout,
        class_names=_names(given, family, layout),
        class_map=class_map(family, layout),
        size_hw=size_hw,
        stride=metadata.stride(values),
        batch=1 if family.is_single else file.inputs[0].shape[0],
        image=family.image_input(size_hw, channels),
    )


def triple(values: Sequence[float] | None, name: str) -> tuple[float, float, float] | None:
    """Return three numbers, one per channel, or None if none are given. Raises `ConfigError`."""
    if values is None:
        return None
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise ConfigError(f"{name} is {list(values)}: expected three numbers, one per channel")
    return float(values[0]), float(values[1]), float(values[2])


def _is_classifier(file: ModelFile, task: str) -> bool:
    shapes = [spec.shape for spec in file.outputs]
    return task in CLASSIFY_TASKS or (len(shapes) == 1 and len(shapes[0]) == 2 and not task)


def _refuse_classifier(file: ModelFile, task: str) -> None:
    if _is_classifier(file, task):
        found = f'task "{task}"' if task else "no boxes"
        raise ModelError(
            f"a classification model ({found}, output {file.outputs[0]}) cannot detect objects: give a detection model"
        )


def _check_inputs(inputs: Sequence[TensorSpec]) -> None:
    """Raise unless all inputs after the first are sizes (b, 2), the only kind whose values can be inferred."""
    for spec in inputs[1:]:
        if len(spec.shape) != 2 or spec.shape[1] not in (2, None):
            raise ModelError(f"input {spec} besides the images: only a size (b, 2) can be fed")


def _channel_layout(first: TensorSpec) -> Literal["nchw", "nhwc"]:
    if len(first.shape) != 4:
        raise ModelError(f"input {first}: expected images, (b, 3, h, w) or (b, h, w, 3)")
    if first.shape[1] == 3 or (first.shape[1] is None and first.shape[3] != 3):
        return "nchw"
    if first.shape[3] == 3:
        return "nhwc"
    raise ModelError(f"input {first}: expected three channels, (b, 3, h, w) or (b, h, w, 3)")


def frame_size(
    first: TensorSpec,
    channels: str,
    wanted: int | tuple[int, int] | None,
    exported: tuple[int, int] | None,
    default: int = DEFAULT_SIZE,
) -> tuple[int, int]:
    """Return rows and columns: the model's own, else the requested, else the exported, else the default.

    Raises:
        ConfigError: the model does not support the requested size.
        ModelError: the size is not a valid frame size.
    """
    rows, columns = first.shape[2:4] if channels == "nchw" else first.shape[1:3]
    asked = (wanted, wanted) if isinstance(wanted, int) else wanted
    fallback = asked or exported or (default, default)
    size_hw = rows or fallback[0], columns or fallback[1]
    if asked and asked != size_hw:
        raise ConfigError(f"size {asked[0]} x {asked[1]}: the model was exported for {size_hw[0]} x {size_hw[1]} only")
    if not all(1 <= side <= 16384 for side in size_hw):
        raise ModelError(f"image size {size_hw}: expected sides between 1 and 16384")
    return size_hw


def _names(given: tuple[str, ...] | None, family: Family, layout: Layout) -> tuple[str, ...]:
    """Return one name per class."""
    count = family.classes(layout)
    if given is not None:
        if count is not None and len(given) != count:
            raise ModelError(f"{len(given)} class names for {count} classes: give one name per class")
        return given
    if family.names:
        return family.names
    if count is None or count == len(COCO_NAMES) or class_map(family, layout) is not None:
        return COCO_NAMES
    if not 1 <= count <= metadata.MAX_CLASSES:
        raise ModelError(f"{count} classes by the output shape: expected 1 to {metadata.MAX_CLASSES}")
    return tuple(f"class_{index}" for index in range(count))


def class_map(family: Family, layout: Layout) -> tuple[int, ...] | None:
    """Return the class id by the model's own number; an unnamed model is assumed to use COCO's numbering."""
    if not family.coco_91 or layout.class_count is not None:
        return None
    return COCO_80_FROM_91 if family.classes(layout) in (None, 91) else None
