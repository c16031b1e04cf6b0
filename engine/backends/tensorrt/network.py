"""Why TensorRT cannot run an ONNX file, judged by its operators and shapes before a build."""

from __future__ import annotations

from engine.backends.files.base import ModelFile
from engine.backends.tensorrt.api import NAMES, Library
from engine.backends.tensorrt.precision import QUANTISED_ALREADY, Precision

DYNAMICALLY_QUANTISED = frozenset({"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
COUNTING = frozenset({"NonMaxSuppression", "NonZero"})
"""Operators whose number of results depends on their input values."""

ATTENTION = frozenset({"MatMul", "Softmax"})
NOT_CONVERTED = QUANTISED_ALREADY | {"If", "Loop", "Scan"}


def why_not_model(model: ModelFile, library: Library) -> str | None:
    """Return why `library` cannot run a model here, with the remedy, or None if nothing is known against it.

    Args:
        model: an ONNX file.
        library: TensorRT-RTX lacks operators with data-dependent results; TensorRT needs output sizes in advance.
    """
    images = model.inputs[0]
    if len(images.shape) == 4 and images.dtype != "float32":
        return (
            f"{model.path.name} takes {images.dtype} images, which our GPU kernels do not write: export it with FP32 "
            f"inputs; its plan still computes in FP16"
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


def doubts(
    model: ModelFile, library: Library, version: str, *, precision: Precision = "fp16", is_dynamic: bool = False
) -> list[str]:
    """Return warnings about models for which wrong boxes without an error are reported.

    Args:
        model: an ONNX file.
        library: that builds it.
        version: of the library, as it reports it, for example `10.13.3`.
        precision: to build in.
        is_dynamic: whether the plan takes several batch sizes.
    """
    is_rtx = library == "tensorrt_rtx"
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    found = []
    if "GridSample" in model.operators and (is_rtx or release >= (10, 13)):
        found.append(("uses GridSample", "since TensorRT 10.13, at some batch sizes", "4813, 4646"))
    if not is_rtx and release == (10, 3) and is_dynamic and set(model.operators) >= ATTENTION:
        found.append(("has attention layers", "from TensorRT 10.3 with several batch sizes in a plan", "4419"))
    if precision == "fp16" and (is_rtx or release >= (10, 13)) and _is_yolov10(model):
        found.append(("is a YOLOv10", "in FP16 since TensorRT 10.13", "4820"))
    return [
        f"{model.path.name} {what}, for which wrong boxes are reported {when} (NVIDIA/TensorRT {issues}), and this is "
        f"{NAMES[library]} {version}: compare its boxes with --backend onnxruntime before you rely on them"
        for what, when, issues in found
    ]


def _is_yolov10(model: ModelFile) -> bool:
    return "yolov10" in f"{model.metadata.get('description', '')} {model.path.stem}".lower()


def usual_precision(model: ModelFile) -> Precision:
    """Return the default precision to build a model in: FP16, or FP32 if it cannot be converted."""
    return "fp32" if NOT_CONVERTED & set(model.operators) else "fp16"


def _has_open_results(model: ModelFile) -> bool:
    """Return whether an output leaves open more than the batch, or the batch although the input fixes it."""
    has_open_batch = model.inputs[0].shape[:1] == (None,)
    return any(None in spec.shape[1:] or (spec.shape[:1] == (None,) and not has_open_batch) for spec in model.outputs)
