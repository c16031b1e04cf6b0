"""What in an ONNX file keeps TensorRT from running it, as its operators and shapes tell before a build."""

from __future__ import annotations

from engine.backends.files.base import ModelFile
from engine.backends.tensorrt.api import Library
from engine.backends.tensorrt.precision import QUANTISED_ALREADY, Precision

DYNAMICALLY_QUANTISED = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
COUNTING = frozenset({"NonMaxSuppression", "NonZero"})
"""Operators whose number of results depends on the numbers that they are given."""

NOT_CONVERTED = QUANTISED_ALREADY | {"If", "Loop", "Scan"}


def why_not_model(model: ModelFile, library: Library) -> str | None:
    """Return why `library` cannot run a model here, with the remedy, or None as far as can be told.

    Args:
        model: an ONNX file.
        library: TensorRT-RTX runs no such operators; TensorRT does, but outputs must have sizes that are known before.
    """
    images = model.inputs[0]
    if len(images.shape) == 4 and images.dtype != "float32":
        return (
            f"{model.path.name} takes {images.dtype} images, which the GPU does not make here: export it with FP32 "
            f"inputs, its plan computes in FP16 all the same"
        )
    quantised = sorted(DYNAMICALLY_QUANTISED & set(model.operators))
    if quantised:
        return (
            f"{model.path.name} is quantised dynamically ({', '.join(quantised)}), which TensorRT does not run: "
            f"give the FP32 model, with --precision int8 for INT8"
        )
    counting = sorted(COUNTING & set(model.operators))
    if not counting or (library == "tensorrt" and not _has_open_results(model)):
        return None
    return (
        f"{model.path.name} counts its boxes itself ({', '.join(counting)}), so that the size of its result depends on "
        f"the image: export it without NMS (nms=False), duplicates are suppressed here"
    )


def doubts(model: ModelFile, library_version: str) -> list[str]:
    """Return what is reported to give wrong boxes without an error, for models that have it; empty where nothing is.

    Sources: NVIDIA/TensorRT issues 4813 and 4646 (GridSample since 10.13.3), 4820 (YOLOv10 in FP16 on 10.13).

    Args:
        model: an ONNX file.
        library_version: as the library gives it, for example `10.13.3`.
    """
    version = tuple(int(part) for part in library_version.split(".")[:2] if part.isdigit())
    if "GridSample" in model.operators and version >= (10, 13):
        return [
            f"{model.path.name} uses GridSample, for which TensorRT {library_version} is said to return wrong boxes "
            f"(NVIDIA/TensorRT 4813, 4646): compare its boxes with --backend onnxruntime before you rely on them"
        ]
    return []


def usual_precision(model: ModelFile) -> Precision:
    """Return the precision to build a model in where none is asked for: as it is where it cannot be made FP16."""
    return "fp32" if NOT_CONVERTED & set(model.operators) else "fp16"


def _has_open_results(model: ModelFile) -> bool:
    """Return whether an output leaves open more than the batch, or that where the input fixes it."""
    has_open_batch = model.inputs[0].shape[:1] == (None,)
    return any(None in spec.shape[1:] or (spec.shape[:1] == (None,) and not has_open_batch) for spec in model.outputs)
