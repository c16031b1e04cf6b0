"""Experiments of `gpu_check.py` that need a GPU: waiting, starts, graphs, faults, memory errors.

Each is a function from plain values to facts. A fact `failed` means that something is wrong.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends.base import BackendOptions
from engine.backends.cuda.driver import CudaApi, open_cuda
from engine.backends.files.plan import PlanFile
from engine.backends.tensorrt.backend import Parts, TensorRtBackend, load_plan
from engine.backends.tensorrt.build_plan import BuildOptions
from engine.backends.tensorrt.loaded_plan import LoadedPlan
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.detection.model import inspect_model
from engine.errors import EngineError, ModelError
from tools.gpu.gpu_sections import bare_context

Facts = dict[str, Any]
Load = Callable[[CudaApi, PlanFile], LoadedPlan]
RUNS = (3, 30, 300)
"""Number of eager runs before the timed one: a library may still be compiling during the first."""

WAIT_COPIES = 64
WAIT_BYTES = 1 << 26
LEFT_FREE_MIB = 64
SANITIZER = """
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.probe import probe_cuda
from tests.backends.cuda.cuda_contract import check, open_package
check(open_package("{package}"), compile_kernels(probe_cuda().gpus[0].compute_capability))
print("held")
"""


def waiting(open_api: Callable[[], CudaApi] = open_cuda) -> Facts:
    """Measure the cost of a waiting thread: CPU time while the GPU is busy, as a share of the wall time."""
    api = open_api()
    with api.current():
        stream, event = api.create_stream(), api.create_event()
        pinned = api.pinned((WAIT_BYTES,), np.uint8)
        address = api.allocate(WAIT_BYTES)
        for _ in range(WAIT_COPIES):
            api.copy_to_gpu(address, pinned.array, stream)
        api.record(event, stream)
        wall, spent = time.perf_counter(), time.process_time()
        api.wait(event)
        wall, spent = time.perf_counter() - wall, time.process_time() - spent
        api.free(address)
        api.free_pinned(pinned)
        api.free_event(event)
        api.free_stream(stream)
    api.close()
    return {"waited ms": round(wall * 1000, 1), "processor share": round(spent / max(wall, 1e-9), 3)}


def sanitizer(package: str = "cuda-bindings") -> Facts:
    """Run our kernels under compute-sanitizer's memcheck and racecheck."""
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if program is None:
        return {"note": "compute-sanitizer is not installed: it comes with the CUDA toolkit"}
    facts: Facts = {}
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9", sys.executable, "-c"]
        done = subprocess.run(
            [*command, SANITIZER.format(package=package)], capture_output=True, text=True, check=False
        )
        facts[tool] = (done.stdout.strip().splitlines() or ["no output"])[-1]
        if done.returncode:
            facts |= {"failed": True, f"{tool} says": (done.stdout + done.stderr)[-1500:]}
    return facts


def starts(
    model: Path, folder: Path, make: Callable[[Path, BackendOptions], TensorRtBackend] = TensorRtBackend
) -> Facts:
    """Time two starts of one plan, from `open` to the first result: the second reuses what the first compiled."""
    facts = inspect_model(model)
    options = BackendOptions(facts.image, max_batch=facts.batch or 1, precision="fp16", cache_dir=folder)
    make(model, options).missing_plan()  # the build itself does not count as a start
    times = []
    for _ in range(3):
        started = time.perf_counter()
        backend = make(model, options)
        backend.open()
        spec = backend.inputs[0]
        shape = (facts.batch or 1, *spec.shape[1:])
        image = backend.empty([size or 0 for size in shape], spec.dtype)
        image[:] = 100
        for _ in range(4):  # the runtime cache is written once the kernels have run
            pending = backend.submit({spec.name: image})
            pending.result()
            pending.release()
        times.append(time.perf_counter() - started)
        backend.close()
    first, second, third = (round(value, 2) for value in times)
    return {"with the build, s": first, "second start, s": second, "third start, s": third}


def graphs(
    model: Path,
    folder: Path,
    *,
    open_api: Callable[[], CudaApi] = open_cuda,
    load: Load = load_plan,
    runs: tuple[int, ...] = RUNS,
) -> Facts:
    """Time eager runs and graphs, each recorded early and late, because a library may record slow kernels."""
    options = BuildOptions("fp16", (1, 1, 1), inspect_model(model).size_hw)
    file, _reason = PlanCache(folder).get_or_build(model, options)
    return graphs_of(file, open_api=open_api, load=load, runs=runs)


def graphs_of(file: PlanFile, *, open_api: Callable[[], CudaApi], load: Load, runs: tuple[int, ...]) -> Facts:
    """Return the results of `graphs` for one plan."""
    cuda = open_api()
    rows: list[Facts] = []
    with cuda.current(), bare_context(cuda, load(cuda, file)) as (context, stream):
        done = 0
        for count in runs:
            while done < count:
                context.enqueue(stream)
                cuda.synchronize(stream)
                done += 1
            row: Facts = {"after runs": count, "eager ms": _ms(cuda, stream, lambda: context.enqueue(stream))}
            row["capturable"] = context.is_capturable(stream)
            rows.append(row | {"graph ms": _graph_ms(cuda, stream, lambda: context.enqueue(stream))})
    cuda.close()
    return {"table": rows}


def _ms(cuda: CudaApi, stream: int, step: Callable[[], None], repeats: int = 20) -> float:
    """Return milliseconds of the fastest step."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        cuda.synchronize(stream)
        times.append(time.perf_counter() - started)
    return round(min(times) * 1000, 4)


def _graph_ms(cuda: CudaApi, stream: int, step: Callable[[], None]) -> float | str:
    try:
        cuda.begin_capture(stream)
        try:
            step()
        finally:
            graph = cuda.end_capture(stream)
    except ModelError as error:
        return str(error)
    spent = _ms(cuda, stream, lambda: cuda.launch_graph(graph, stream))
    cuda.free_graph(graph)
    return spent


def out_of_memory(
    model: Path,
    folder: Path,
    *,
    open_api: Callable[[], CudaApi] = open_cuda,
    make: Callable[[Path, BackendOptions], TensorRtBackend] = TensorRtBackend,
) -> Facts:
    """Fill almost all of the GPU's memory, open the model, and check the error and the memory that is left after it."""
    facts = inspect_model(model)
    options = BackendOptions(facts.image, max_batch=facts.batch or 8, precision="fp16", cache_dir=folder)
    api = open_api()
    with api.current():
        ballast = []
        piece = 1 << 30
        while piece >= LEFT_FREE_MIB << 20:
            try:
                ballast.append(api.allocate(piece))
            except ModelError:
                piece //= 2
        before = api.memory()[0]
    try:
        make(model, options).open()
        words, refused = "it opened nevertheless", False
    except EngineError as error:
        words, refused = str(error), True
    except Exception as error:  # noqa: BLE001  # the finding: an error that is not ours
        words, refused = f"{type(error).__name__}: {error}", False
    with api.current():
        lost = (before - api.memory()[0]) / 2**20
        for address in ballast:
            api.free(address)
    api.close()
    return {"error": words, "MiB not given back": round(lost, 1), "failed": not refused or lost > 1}


def lost_gpu(
    model: Path, folder: Path, *, make: Callable[..., TensorRtBackend] = TensorRtBackend, parts: Parts | None = None
) -> Facts:
    """Break the context with a copy to a bad address, and check the reported error and that closing works."""
    facts = inspect_model(model)
    options = BackendOptions(facts.image, max_batch=facts.batch or 1, precision="fp16", cache_dir=folder)
    backend = make(model, options, parts=parts)
    backend.open()
    cuda = backend._opened()
    words = []
    try:
        with cuda.current():
            stream = cuda.create_stream()
            cuda.copy_to_gpu(0xDEAD0000, np.zeros(16, np.uint8), stream)
            cuda.synchronize(stream)
    except ModelError as error:
        words.append(str(error))
    started = time.perf_counter()
    try:
        backend.close()
    except Exception as error:  # noqa: BLE001  # the finding: closing must not raise
        words.append(f"close raised {type(error).__name__}: {error}")
    return {"errors": words, "close s": round(time.perf_counter() - started, 3), "failed": len(words) != 1}
