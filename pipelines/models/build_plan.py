"""`framewire build`: builds a cached TensorRT plan from an ONNX model, with the accuracy gate for INT8."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.backends.files.base import ModelFile, read_model_file
from engine.backends.files.plan import PlanFile
from engine.backends.tensorrt.api import LIBRARIES, Library
from engine.backends.tensorrt.build_plan import BuildOptions, Prepare, Report, build_plan, parse_batch
from engine.backends.tensorrt.network import usual_precision
from engine.backends.tensorrt.plan_cache import cache_for
from engine.backends.tensorrt.plan_size import fixed_size
from engine.backends.tensorrt.precision import PRECISIONS
from engine.detection.input_size.shapes import at_size, largest_stride
from engine.detection.model import image_size, inspect_model
from engine.errors import ConfigError
from pipelines.models.accuracy_gate import allowed_loss, check_loss, images_id, prepare_int8


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """The arguments of `framewire build`; `BuildOptions` explains them.

    Attributes:
        model: an ONNX file.
        output: the plan file to write; None: in the cache.
        precision: `fp16`, `fp32` or `int8`; None: FP16, or unchanged if the model is already quantised.
        batch: `N`, `MIN:MAX` or `MIN:OPTIMAL:MAX`.
        size: rows and columns: for models that leave them open, or a part of the frame of one that does not.
        workspace_mib: GPU memory for building.
        dla: core of a Jetson's deep learning accelerator.
        images: folder of images for `int8`.
        max_loss: share of the boxes (with labels: of the mAP) that `int8` may lose; None: the default.
        library: `tensorrt`, `tensorrt_rtx`, or None for the installed one.
        cache_dir: folder of plans; None: next to the model, or the user's cache if that folder is not writable.
        labels: of the images, YOLO text files or COCO JSON; None: compare the boxes with FP32's.
        given: further arguments of `inspect_model`; only `int8` needs them.
    """

    model: str
    output: str | None = None
    precision: str | None = None
    batch: str = "1"
    size: int | tuple[int, int] | None = None
    workspace_mib: int | None = None
    dla: int | None = None
    images: str | None = None
    max_loss: float | None = None
    library: str | None = None
    cache_dir: str | None = None
    labels: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The result of a build."""

    plan: PlanFile
    reason: str
    wall_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a summary."""
        facts = asdict(self.plan.facts) if self.plan.facts else {}
        return {
            "plan": str(self.plan.path),
            "reason": self.reason,
            "wall_s": round(self.wall_s, 2),
            "size_mb": round(self.plan.path.stat().st_size / 1e6, 2),
            **facts,
            "inputs": [str(spec) for spec in self.plan.facts.inputs] if self.plan.facts else [],
            "outputs": [str(spec) for spec in self.plan.facts.outputs] if self.plan.facts else [],
        }


def build(request: BuildRequest, report: Report | None = None) -> BuildResult:
    """Build a plan, or find it in the cache.

    Args:
        request: what to build.
        report: called with the fraction done and the phase; an exception from it cancels the build.

    Raises:
        ModelError: the model is broken or not supported, or INT8 loses too much.
        ConfigError: a request that cannot work here, with the remedy.
        MissingDependencyError: no TensorRT.
    """
    started_ns = time.monotonic_ns()
    file = read_model_file(request.model)
    options = _options(request, file)
    library = _library(request.library)
    prepare = _prepare(request) if options.precision == "int8" else None
    if request.output is not None:
        plan = build_plan(file.path, Path(request.output), options, library=library, prepare=prepare, report=report)
        reason = "built now, as requested"
    else:
        cache = cache_for(file.path, Path(request.cache_dir) if request.cache_dir else None)
        plan, reason = cache.get_or_build(file.path, options, library=library, prepare=prepare, report=report)
        _check_again(plan, request)
    return BuildResult(plan, reason, (time.monotonic_ns() - started_ns) / 1e9)


def _options(request: BuildRequest, file: ModelFile) -> BuildOptions:
    precision = request.precision or usual_precision(file)
    if precision not in PRECISIONS:
        raise ConfigError(f'precision "{precision}": expected {", ".join(PRECISIONS)}')
    return BuildOptions(
        precision=precision,
        batch=parse_batch(request.batch),
        size_hw=_size_hw(request, file),
        workspace_mib=request.workspace_mib,
        dla_core=request.dla,
        calibration_id=_calibration_id(request),
    )


def _size_hw(request: BuildRequest, file: ModelFile) -> tuple[int, int]:
    """Return rows and columns of the plan's images; a model of fixed size can be built for parts of its frame."""
    own_hw = fixed_size(file)
    size_hw = (request.size, request.size) if isinstance(request.size, int) else request.size
    if own_hw is None or size_hw in (None, own_hw):
        return image_size(file, request.size)
    facts = inspect_model(request.model, **request.given)
    step = largest_stride(facts)
    if any(side % step or not 0 < side <= own for side, own in zip(size_hw, own_hw, strict=True)):
        raise ConfigError(
            f"{file.path}: size {size_hw[0]}x{size_hw[1]}: expected rows and columns in multiples of {step}, "
            f"at most {own_hw[0]}x{own_hw[1]}"
        )
    return at_size(facts, size_hw).size_hw


def parse_size(text: str) -> int | tuple[int, int]:
    """Return the size of `SIDE` or `ROWSxCOLUMNS`. Raises `ConfigError`.

    >>> parse_size("640"), parse_size("384x640")
    (640, (384, 640))
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f'size "{text}": expected SIDE, as 640, or ROWSxCOLUMNS, as 384x640')
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _calibration_id(request: BuildRequest) -> str:
    """Return an identity of the images and the acceptance criteria, which the plan depends on."""
    if not request.images or request.precision != "int8":
        return ""
    return images_id(Path(request.images)) + ("+labels" if request.labels else "")


def _check_again(plan: PlanFile, request: BuildRequest) -> None:
    """Raise `ModelError` if the cached plan was accepted with a larger loss than is allowed now."""
    accuracy = plan.facts.accuracy if plan.facts else {}
    allowed = allowed_loss(request.max_loss, request.labels is not None)
    numbers = ", ".join(f"{name} {value}" for name, value in accuracy.items())
    check_loss(plan.path.name, accuracy.get("loss", 0.0), allowed, f"accepted before with {numbers}")


def _prepare(request: BuildRequest) -> Prepare:
    if request.images is None:
        raise ConfigError("INT8 needs about 200 images like those that the model will see: use --images FOLDER")
    size = request.size if fixed_size(read_model_file(request.model)) is None else None
    facts = inspect_model(request.model, **{**request.given, "size": size})
    images, labels = Path(request.images), Path(request.labels) if request.labels else None
    return lambda: prepare_int8(facts, images, request.max_loss, labels, request.given)


def _library(name: str | None) -> Library | None:
    if name is None:
        return None
    wanted = name.replace("-", "_")
    if wanted not in LIBRARIES:
        raise ConfigError(f'library "{name}": expected {" or ".join(LIBRARIES)}')
    return wanted
