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

import numpy as np

from engine.assets import demo_model
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.driver import CudaApi, free_quietly
from engine.backends.cuda.letterbox import BLOCK, KERNEL_NAME, WholeFrame, grid, parameters
from engine.backends.files.plan import PlanFile
from engine.backends.tensorrt.build_plan import BuildOptions
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.errors import EngineError, ModelError
from tools.gpu.device import CHECKOUT, Device, Facts, record_graph
from tools.gpu.gpu_sections import bare_context, some_frames

RUNS = (3, 30, 300)
"""Number of eager runs before the timed one: a library may still be compiling during the first."""

WAIT_COPIES = 64
WAIT_BYTES = 1 << 26
MOST_SHARE = 0.5
"""A waiting thread that uses more of a core spins."""

LEAST_WAIT_S = 0.005
SMALLEST_PIECE = 1 << 20
BAD_ADDRESS = 0xDEAD0000
SANITIZER = """
from tools.gpu.device import Device
from tests.backends.cuda.cuda_contract import check
device = Device()
image = device.compile()
for name, api in device.open_packages():
    check(api, image)
print("held")
"""


def waiting(device: Device) -> Facts:
    """Measure the cost of a waiting thread: CPU time while the GPU is busy, as a share of the wall time."""
    api = device.open_api()
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
    share = spent / max(wall, 1e-9)
    return {
        "waited ms": round(wall * 1000, 1),
        "processor share": round(share, 3),
        "missed": share > MOST_SHARE and wall > LEAST_WAIT_S,
    }


def sanitizer() -> Facts:
    """Run our kernels under compute-sanitizer's memcheck and racecheck, through each installed package."""
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if program is None:
        return {"note": "compute-sanitizer is not installed: it comes with the CUDA toolkit"}
    facts: Facts = {}
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9", sys.executable, "-c"]
        done = subprocess.run([*command, SANITIZER], capture_output=True, text=True, check=False, cwd=CHECKOUT)
        facts[tool] = (done.stdout.strip().splitlines() or ["no output"])[-1]
        if done.returncode:
            facts |= {"failed": True, f"{tool} says": (done.stdout + done.stderr)[-1500:]}
    return facts


def starts(device: Device, model: Path, folder: Path) -> Facts:
    """Time starts of one plan, from `open` to the first results: without kernels kept from before, then with them."""
    facts = inspect_model(model)
    options = BackendOptions(facts.image, max_batch=facts.batch or 1, precision="fp16", cache_dir=folder)
    backend = device.backend(model, options)
    backend.open()  # builds the plan, which does not count as a start
    file = backend.plan_file
    backend.close()
    kept = file.path.with_name(f"{file.path.name}.kernels") if file is not None else folder / "none"
    kept.unlink(missing_ok=True)
    first, second, third = (_start_s(device, model, options) for _ in range(3))
    size = round(kept.stat().st_size / 2**20, 2) if kept.is_file() else "none: this library compiles at build"
    return {"first start, s": first, "second start, s": second, "third start, s": third, "kept kernels, MiB": size}


def _start_s(device: Device, model: Path, options: BackendOptions) -> float:
    started = time.perf_counter()
    backend = device.backend(model, options)
    backend.open()
    spec = backend.inputs[0]
    image = backend.empty([options.max_batch, *(size or 0 for size in spec.shape[1:])], spec.dtype)
    image[:] = 100
    for _ in range(4):  # the runtime cache is written once the kernels have run
        pending = backend.submit({spec.name: image})
        pending.result()
        pending.release()
    spent = time.perf_counter() - started
    backend.close()
    return round(spent, 2)


def graphs(device: Device, model: Path, folder: Path, runs: tuple[int, ...] = RUNS) -> Facts:
    """Time batch 1 on a plan for several batches, eagerly and as graphs recorded early and late.

    TensorRT-RTX compiles the kernels of a dynamic shape while slow ones run; a graph keeps replaying those that it
    recorded. Our contexts are eager; the library's own default is measured beside them. Where the model fixes its
    batch, the demo model takes its place.
    """
    facts = inspect_model(model)
    if facts.batch is not None:
        model, facts = demo_model(), inspect_model(demo_model())
    file = device.build(model, BuildOptions("fp16", (1, 4, 8), facts.size_hw), folder)
    is_rtx = file.facts is not None and file.facts.library == "tensorrt_rtx"
    rows = _graph_rows(device, file, runs, is_eager=True)
    if is_rtx:
        rows += _graph_rows(device, file, runs, is_eager=False)
    ours = [row["eager ms"] for row in rows if row["kernels"] == "eager"]
    return {"model": model.name, "table": rows, "missed": ours[0] > 1.5 * min(ours)}


def _graph_rows(device: Device, file: PlanFile, runs: tuple[int, ...], *, is_eager: bool) -> list[Facts]:
    cuda = device.open_api()
    rows: list[Facts] = []
    with cuda.current():
        plan = device.load(cuda, file, is_eager=is_eager)
        with bare_context(cuda, plan, batch=1) as (context, stream):
            done = 0
            for count in runs:
                while done < count:
                    context.enqueue(stream)
                    cuda.synchronize(stream)
                    done += 1
                row: Facts = {"kernels": "eager" if is_eager else "the library's default", "after runs": count}
                row |= {"eager ms": _ms(cuda, stream, lambda: context.enqueue(stream))}
                row["capturable"] = context.is_capturable(stream)
                rows.append(row | {"graph ms": _graph_ms(cuda, stream, lambda: context.enqueue(stream))})
    cuda.close()
    return rows


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
        graph = record_graph(cuda, stream, step)
    except ModelError as error:
        return str(error)
    spent = _ms(cuda, stream, lambda: cuda.launch_graph(graph, stream))
    cuda.free_graph(graph)
    return spent


def out_of_memory(device: Device, model: Path, folder: Path) -> Facts:
    """Fill the GPU's memory and open a model whose plan exists: the error, what `auto` does, the memory afterwards."""
    facts = inspect_model(model)
    options = BackendOptions(facts.image, max_batch=facts.batch or 8, precision="fp16", cache_dir=folder)
    backend = device.backend(model, options)
    backend.open()
    backend.close()
    api = device.open_api()
    with api.current():
        ballast = _fill(api)
    words = [_words_of_opening(device, model, options)]  # the first attempt also loads what the library keeps loaded
    with api.current():
        before = api.memory()[0]
    words.append(_words_of_opening(device, model, options))
    with load_detector(model, max_batch=options.max_batch, precision=None, cache_dir=folder) as detector:
        found, carries_on = detector.detect(some_frames(None)[:1])[0], detector.backend
    with api.current():
        lost = (before - api.memory()[0]) / 2**20
        for address in ballast:
            api.free(address)
    api.close()
    result = {"errors": words, "auto continues on": carries_on, "boxes there": len(found)}
    is_clean = all(word.startswith(("ModelError", "it opened")) for word in words)
    return result | {"MiB not given back": round(lost, 1), "failed": not is_clean or lost > 1}


def _fill(api: CudaApi) -> list[int]:
    """Allocate the GPU's memory down to the last MiB."""
    ballast, piece = [], 1 << 30
    while piece >= SMALLEST_PIECE:
        try:
            ballast.append(api.allocate(piece))
        except ModelError:
            piece //= 2
    return ballast


def _words_of_opening(device: Device, model: Path, options: BackendOptions) -> str:
    backend = device.backend(model, options)
    try:
        backend.open()
        backend.close()
    except Exception as error:  # noqa: BLE001  # the finding: an error that is not ours
        return f"{type(error).__name__}: {error}"
    return "it opened nevertheless"


def lost_gpu(device: Device, model: Path, folder: Path) -> Facts:
    """Let a kernel write to a bad address, which no call in this process survives, and report what each step says.

    The first error must be the one reported, closing must not raise, and opening again must work or raise an error of
        ours: then a run with `on_inference_error: restart` continues on another backend.
    """
    facts = inspect_model(model)
    options = BackendOptions(facts.image, max_batch=facts.batch or 1, precision="fp16", cache_dir=folder)
    backend = device.backend(model, options)
    backend.open()
    cuda, image = backend._opened(), ImageInput((64, 64))

    def break_it() -> None:
        with cuda.current():
            kernel = cuda.load_kernel(device.compile(), KERNEL_NAME)
            stream, source = cuda.create_stream(), cuda.allocate(64 * 64 * 3)
            values = parameters(image, WholeFrame((64, 64)), source, BAD_ADDRESS)
            try:
                cuda.launch(kernel, grid(image, 1), BLOCK, values, stream)
                cuda.synchronize(stream)
            finally:
                free_quietly(cuda.free, source)
                free_quietly(cuda.free_stream, stream)

    def submit() -> None:
        spec = backend.inputs[0]
        batch = np.zeros([options.max_batch, *(size or 0 for size in spec.shape[1:])], spec.dtype)
        pending = backend.submit({spec.name: batch})
        try:
            pending.result()
        finally:
            pending.release()

    steps: Facts = {"a bad address": _said(break_it), "the next inference": _said(submit)}
    started = time.perf_counter()
    steps["closing"] = _said(backend.close)
    steps["close s"] = round(time.perf_counter() - started, 3)
    steps["opening again"] = _words_of_opening(device, model, options)
    is_ours = ("nothing", "ModelError", "ConfigError", "it opened")
    calls = ("a bad address", "the next inference", "opening again")
    wrong = [name for name in calls if not steps[name].startswith(is_ours)]
    failed = steps["a bad address"] == "nothing" or steps["closing"] != "nothing" or bool(wrong)
    return steps | {"failed": failed}


def _said(step: Callable[[], None]) -> str:
    try:
        step()
    except Exception as error:  # noqa: BLE001  # the finding
        return f"{type(error).__name__}: {error}" if isinstance(error, EngineError) else f"not ours: {error!r}"
    return "nothing"
