"""What the sections of `gpu_check.py` run on: the GPU of this machine, or, in tests, a fake one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.backends.base import BackendOptions
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.driver import CudaApi, available_packages, open_cuda
from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFacts, PlanFile, write_plan_file
from engine.backends.tensorrt.backend import TensorRtBackend, load_plan
from engine.backends.tensorrt.build_plan import (
    BuildOptions,
    Prepare,
    build_serialized,
    library_for_building,
    plan_place,
)
from engine.backends.tensorrt.loaded_plan import LoadedPlan
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.errors import ModelError

Facts = dict[str, Any]
CHECKOUT = Path(__file__).resolve().parents[2]


class LoadPlan(Protocol):
    """Loads a plan, with eager kernels or, to compare, as TensorRT-RTX does by default."""

    def __call__(self, cuda: CudaApi, file: PlanFile, *, is_eager: bool = True) -> LoadedPlan:
        """Return the plan; the CUDA context must be current."""


def compile_for_this_gpu() -> bytes:
    """Return our kernels for the first GPU."""
    probe = probe_cuda()
    return compile_kernels(probe.gpus[0].compute_capability, probe.driver_version)


def open_packages() -> list[tuple[str, CudaApi]]:
    """Return CUDA through each installed package, with the package's name."""
    from tests.backends.cuda.cuda_contract import open_package

    names = {"pycuda": "pycuda", "cuda": "cuda-bindings"}
    return [(names[package], open_package(names[package])) for package in available_packages()]


def build(model: Path, options: BuildOptions, folder: Path, prepare: Prepare | None = None) -> PlanFile:
    """Return the plan of a model, from the cache in `folder` or newly built."""
    return PlanCache(folder).get_or_build(model, options, prepare=prepare)[0]


def build_halves(model: Path, output: Path) -> Path:
    """Return a plan, written to `output`, of a model with FP16 inputs, which `framewire build` does not take."""
    probe = probe_cuda()
    library = library_for_building(None, probe)
    file, place = read_model_file(model), plan_place(library, probe)
    plan, inputs, outputs = build_serialized(library, model.read_bytes(), file, BuildOptions("fp16"))
    facts = PlanFacts(
        library=place.library,
        library_version=place.library_version,
        cuda_version=place.cuda_version,
        gpu=place.gpu.name if place.gpu else "",
        compute_capability=place.compute_capability,
        precision="fp16",
        batch=(1, 1, 1),
        inputs=inputs,
        outputs=outputs,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
    )
    write_plan_file(output, plan, facts, {})
    return output


def record_graph(cuda: CudaApi, stream: int, step: Callable[[], None]) -> int:
    """Return the graph of what a step enqueues on a stream. Raises `ModelError` if it cannot be recorded."""
    cuda.begin_capture(stream)
    try:
        step()
    except ModelError:
        cuda.free_graph(cuda.end_capture(stream))
        raise
    return cuda.end_capture(stream)


@dataclass(frozen=True)
class Device:
    """A GPU with everything that a section needs of it; the defaults are those of this machine.

    Attributes:
        open_api: opens CUDA.
        open_packages: opens CUDA with each package.
        compile: compiles our kernels.
        build: builds a plan.
        build_halves: builds a plan of a model with FP16 inputs.
        load: loads a plan.
        backend: makes a TensorRT backend of a model.
        bench: backend for `framewire bench`.
        tests: arguments of pytest.
        repeats: of what is timed.
    """

    open_api: Callable[[], CudaApi] = open_cuda
    open_packages: Callable[[], Sequence[tuple[str, CudaApi]]] = open_packages
    compile: Callable[[], bytes] = compile_for_this_gpu
    build: Callable[..., PlanFile] = build
    build_halves: Callable[[Path, Path], Path] = build_halves
    load: LoadPlan = load_plan
    backend: Callable[[Path, BackendOptions], TensorRtBackend] = TensorRtBackend
    bench: str = "tensorrt"
    tests: tuple[str, ...] = ("-m", "gpu", "tests/gpu")
    repeats: int = 200
