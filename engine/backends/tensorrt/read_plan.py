"""Reading what a plan file says about itself: from its header, or by loading it on the GPU if it has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.backends.base import TensorSpec
from engine.backends.cuda.driver import open_cuda
from engine.backends.files.base import ModelFile
from engine.backends.files.plan import PlanFile, read_plan_file
from engine.backends.tensorrt.backend import load_plan, warn_of_distrust, why_not
from engine.errors import ModelError


def read_plan(path: Path) -> ModelFile:
    """Read what a plan file says about itself, with or without a GPU.

    Raises:
        ModelError: the plan lacks our header, and TensorRT cannot load it on this machine.
    """
    found = read_plan_file(path)
    size = path.stat().st_size
    if found.facts is not None:
        facts = found.facts
        return ModelFile(path, "plan", facts.inputs, facts.outputs, found.metadata, facts.precision, size)
    inputs, outputs = read_foreign_plan(found)
    return ModelFile(path, "plan", inputs, outputs, found.metadata, _precision_of(found.metadata), size)


def _precision_of(metadata: Mapping[str, Any]) -> str:
    """Return the precision that Ultralytics records under `args`, or `unknown`."""
    arguments = metadata.get("args")
    if not isinstance(arguments, Mapping):
        return "unknown"
    by_bits = {8: "int8", 16: "fp16"}
    if arguments.get("quantize") in by_bits:
        return by_bits[arguments["quantize"]]
    return "int8" if arguments.get("int8") else "fp16" if arguments.get("half") else "unknown"


def read_foreign_plan(file: PlanFile) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Load a plan without our header to find its inputs and outputs.

    Raises:
        ModelError: TensorRT cannot load it here; the message says why.
    """
    reason = why_not(file.path)
    if reason is not None:
        raise ModelError(
            f"{file.path}: its inputs can only be read by loading it, which is not possible here: {reason}"
        )
    warn_of_distrust(file.path)
    cuda = open_cuda()
    try:
        with cuda.current():
            plan = load_plan(cuda, file)
            specs = plan.inputs, plan.outputs
            plan.close()
    finally:
        cuda.close()
    return specs
