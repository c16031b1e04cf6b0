"""A detector on the fake GPU: ONNX Runtime runs its model, and our kernels run compiled for the processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine.backends.base import BackendOptions
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import write_plan_file
from engine.backends.tensorrt.backend import Parts, TensorRtBackend
from engine.detection.detector import ModelDetector
from engine.detection.feeding import LetterboxOn
from engine.detection.input_size.sized import SizedModel
from engine.detection.input_size.sizes import OneSize
from engine.detection.model import inspect_model
from engine.testing.cuda import FAKE_GPU, FakeCuda
from engine.testing.tensorrt import FakePlan
from tests.backends.cuda.processor_kernels import PROCESSOR_KERNELS
from tests.backends.tensorrt.fake_gpu import PLAN, plan_facts

Before = Callable[[str], None]


def gpu_parts(
    model: Path,
    *,
    max_batch: int = 4,
    is_integrated: bool = False,
    before: Before = lambda operation: None,
) -> Parts:
    """Return parts of a backend that runs any plan as `model`, an ONNX file, on a fake GPU."""
    file = read_model_file(model)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def respond(feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return [np.asarray(output) for output in session.run(None, dict(feeds))]

    return Parts(
        lambda: FakeCuda(replace(FAKE_GPU, is_integrated=is_integrated), before, PROCESSOR_KERNELS),
        lambda cuda, plan: FakePlan(cuda, file.inputs, file.outputs, respond, max_batch),  # type: ignore[arg-type]
        lambda capability: b"cubin",
        lambda: None,
    )


def gpu_detector(
    model: Path,
    folder: Path,
    *,
    max_batch: int = 4,
    is_integrated: bool = False,
    with_candidates: bool = True,
    before: Before = lambda operation: None,
    letterbox_on: LetterboxOn = "auto",
    check: Callable[[SizedModel], None] | None = None,
    **options: Any,
) -> ModelDetector:
    """Return a detector that runs a plan of `model` as if on a GPU.

    Args:
        model: ONNX file.
        folder: for the plan file.
        max_batch: of the plan and the detector.
        is_integrated: as on a Jetson.
        with_candidates: keep only the candidates of a raw head.
        before: as for `FakeCuda`.
        letterbox_on: as for `ModelDetector`.
        check: as for `SizedModel`.
        options: further arguments of `ModelDetector`.
    """
    file = read_model_file(model)
    path = folder / f"{model.stem}.plan"
    header = plan_facts(inputs=file.inputs, outputs=file.outputs, plan_sha256=sha256(PLAN).hexdigest())
    write_plan_file(path, PLAN, header, file.metadata)
    facts = inspect_model(path)
    parts = gpu_parts(model, max_batch=max_batch, is_integrated=is_integrated, before=before)
    scores = facts.head().class_scores if with_candidates else None
    backend = TensorRtBackend(path, BackendOptions(facts.image, scores, max_batch=max_batch), parts=parts)
    sized = SizedModel(facts, backend, max_batch, letterbox_on, check)
    return ModelDetector(facts, sizes=OneSize(sized), max_batch=max_batch, **options)
