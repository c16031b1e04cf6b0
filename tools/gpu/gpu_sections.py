"""The measurements and comparisons of `gpu_check.py`, each a function from plain values to facts.

A fact `failed` means that something is wrong, `missed` that a target was not reached.
"""

from __future__ import annotations

import math
import platform
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.assets import demo_clip
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.driver import CudaApi, available_packages, open_cuda
from engine.backends.cuda.probe import probe_cuda
from engine.backends.tensorrt.api import installed_libraries, load_tensorrt
from engine.backends.tensorrt.backend import TensorRtBackend, load_plan
from engine.backends.tensorrt.build_plan import BuildOptions
from engine.backends.tensorrt.loaded_plan import LoadedPlan, PlanContext
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.backends.tensorrt.precision import Precision
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.feeding import LetterboxOn
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.errors import ModelError
from engine.sources.open import open_source
from engine.video.read_image import IMAGE_SUFFIXES, read_image

Facts = dict[str, Any]
WANTED_IOU = {"fp32": 0.99, "fp16": 0.97}
WANTED_RATIO = 0.95
MORE_LATENCY_MS = 2.0
CONFIDENT = 0.4
"""Boxes of the reference above this score must be found; those closer to the threshold may fall on either side."""

CHECKOUT = Path(__file__).resolve().parents[2]


def machine() -> Facts:
    """Return the facts about this machine."""
    facts: Facts = {"cuda": str(probe_cuda()), "python": platform.python_version(), "packages": available_packages()}
    for library in installed_libraries():
        facts[library] = str(load_tensorrt(library))
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        facts["nvidia-smi"] = done.stdout.strip()
    return facts


def cuda_contract() -> Facts:
    """Run everything that the backend needs from CUDA, including kernels and graphs, with each package, no TensorRT."""
    sys.path.insert(0, str(CHECKOUT))
    from tests.backends.cuda.cuda_contract import check, open_package

    image = compile_kernels(probe_cuda().gpus[0].compute_capability)
    names = {"pycuda": "pycuda", "cuda": "cuda-bindings"}
    for package in available_packages():
        check(open_package(names[package]), image)
    return {"held by": [names[package] for package in available_packages()], "kernel bytes": len(image)}


def answer(folder: Path) -> Facts:
    """Build, load and run the smallest model with each library, and keep the exact message of one that refuses."""
    sys.path.insert(0, str(CHECKOUT))
    from tests.onnx_models import save_pixel_model

    folder.mkdir(parents=True, exist_ok=True)
    model = save_pixel_model(folder / "pixels.onnx", side=32)
    backend = TensorRtBackend(model, BackendOptions(ImageInput((32, 32)), precision="fp32", cache_dir=folder))
    backend.open()
    pending = backend.submit({"images": np.full((1, 32, 32, 3), 100, np.uint8)})
    mean = float(pending.result()[1].mean()) * 255
    pending.release()
    backend.close()
    return {"device": backend.device, "100 comes back as": round(mean, 3), "failed": abs(mean - 100) > 0.5}


def gpu_tests() -> Facts:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    tail = (done.stdout.strip().splitlines() or ["no output"])[-12:]
    return {"summary": tail[-1], "failed": done.returncode != 0, **({"tail": tail} if done.returncode else {})}


Bare = Callable[[Path, int, Path], tuple[float, float]]
Open = Callable[..., AbstractContextManager[ModelDetector]]


@contextmanager
def detector(
    model: Path,
    precision: Precision,
    max_batch: int,
    folder: Path,
    *,
    letterbox_on: LetterboxOn = "auto",
    with_candidates: bool = True,
) -> Iterator[ModelDetector]:
    """Open a detector on TensorRT, with a plan that is built here or taken from `folder`."""
    facts = inspect_model(model)
    batch = facts.batch or max_batch
    scores = facts.head().class_scores if with_candidates else None
    options = BackendOptions(facts.image, class_scores=scores, max_batch=batch, precision=precision, cache_dir=folder)
    with ModelDetector(
        facts, TensorRtBackend(model, options), max_batch=max_batch, letterbox_on=letterbox_on
    ) as opened:
        yield opened


def frames(images: Path) -> list[Frame]:
    """Return the images of a folder as frames."""
    files = [file for file in sorted(images.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
    return [Frame(read_image(file), "images", number) for number, file in enumerate(files)]


def some_frames(images: Path | None) -> list[Frame]:
    """Return the first eight images of a folder, or eight frames spread over the demo clip if there is no folder."""
    if images is not None:
        return frames(images)[:8]
    return list(islice(open_source(str(demo_clip())), 0, 200, 25))


def full_hd(count: int, size: tuple[int, int] = (1920, 1080)) -> list[Frame]:
    """Return synthetic frames, 1080p by default."""
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (68, 120, 3), dtype=np.uint8) for _ in range(count)]
    pictures = [np.asarray(cv2.resize(picture, size), np.uint8) for picture in small]
    return [Frame(picture, "synthetic", index, 0, 0) for index, picture in enumerate(pictures)]


def same_boxes(model: Path, precision: Precision, images: Path | None, folder: Path, opener: Open = detector) -> Facts:
    """Compare the boxes with those of ONNX Runtime on the same images."""
    pictures = some_frames(None) if images is None else frames(images)
    with load_detector(model, backend="onnxruntime") as reference:
        wanted_boxes = reference.detect(pictures)
    with opener(model, precision, 1, folder) as opened:
        found = opened.detect(pictures)
    overlaps = [value for first, second in zip(wanted_boxes, found, strict=True) for value in overlap(first, second)]
    wanted = WANTED_IOU[precision]
    share = float(np.mean([value >= wanted for value in overlaps])) if overlaps else 0.0
    low = round(min(overlaps, default=0.0), 4)
    return {"boxes": len(overlaps), "min_iou": low, f"share_at_{wanted}": round(share, 4), "failed": share < 0.99}


def overlap(reference: Detections, found: Detections) -> list[float]:
    """Return, for each confident box of the reference, the IoU of the best box of the same class."""
    sure = reference[reference.score > CONFIDENT]
    table = iou_matrix(sure.xyxy, found.xyxy)
    table[sure.class_id[:, None] != found.class_id[None, :]] = 0
    return [float(row.max(initial=0.0)) for row in table]


def same_either_way(model: Path, images: Path | None, folder: Path, opener: Open = detector) -> Facts:
    """Compare detections that use the GPU for letterbox and candidates with those that use the CPU for both."""
    ways: dict[str, dict[str, Any]] = {
        "all on the processor": {"letterbox_on": "cpu", "with_candidates": False},
        "candidates": {"letterbox_on": "cpu"},
        "candidates and letterbox": {"letterbox_on": "gpu"},
    }
    found = {}
    pictures = some_frames(images)
    for name, options in ways.items():
        with opener(model, "fp32", 1, folder, **options) as opened:
            found[name] = opened.detect(pictures)
    first, *others = found.values()
    facts: Facts = {"boxes": sum(map(len, first))}
    for name, other in zip(list(ways)[1:], others, strict=True):
        facts[name] = f"{sum(map(_is_same, first, other))} of {len(first)} images equal to the bit"
    facts["failed"] = not facts["boxes"] or not all(map(_is_same, first, others[0]))
    return facts


def _is_same(first: Detections, second: Detections) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("xyxy", "score", "class_id"))


def batch_exactness(model: Path, images: Path | None, folder: Path, opener: Open = detector) -> Facts:
    """Compare a batch with its images one by one."""
    if inspect_model(model).batch is not None:
        return {"note": "the model fixes its batch: nothing to compare"}
    pictures = some_frames(images)
    with opener(model, "fp16", 8, folder) as opened:
        together = opened.detect(pictures)
        alone = [opened.detect([picture])[0] for picture in pictures]
    differences = [
        float(np.abs(one.xyxy - other.xyxy).max(initial=0.0)) if len(one) == len(other) else float("inf")
        for one, other in zip(together, alone, strict=True)
    ]
    boxes, largest = sum(map(len, alone)), max(differences)
    facts: Facts = {"images": len(pictures), "boxes": boxes, "max_difference_px": round(largest, 3)}
    return facts | {"failed": not boxes or largest > 2}


def speed(model: Path, batch: int, folder: Path, opener: Open = detector, bare: Bare | None = None) -> Facts:
    """Measure bare TensorRT, the engine on 1080p frames with each letterbox, and the latency of single batches."""
    batch = inspect_model(model).batch or batch
    eager_ms, graph_ms = (bare or bare_ms)(model, batch, folder)
    raw_ms = min(eager_ms, graph_ms)
    rows: list[Facts] = []
    ratios: list[float] = []
    p50s: list[float] = []
    for letterbox_on in ("cpu", "gpu"):
        with opener(model, "fp16", batch, folder, letterbox_on=letterbox_on) as opened:
            fps, latency = end_to_end(opened, batch)
        ratios.append(fps * raw_ms / 1000 / batch)
        p50s.append(statistics.median(latency))
        row = {"letterbox": letterbox_on, "batch": batch, "bare ms": round(eager_ms, 3)}
        row |= {"bare graph ms": round(graph_ms, 3), "bare fps": round(1000 * batch / raw_ms, 1)}
        row |= {"engine fps, 1080p": round(fps, 1), "ratio": round(ratios[-1], 3), "p50 ms": round(p50s[-1], 2)}
        rows.append(row | {"p99 ms": round(float(np.percentile(latency, 99)), 2)})
    missed = max(ratios) < WANTED_RATIO if batch >= 8 else min(p50s) > raw_ms + MORE_LATENCY_MS
    return {"table": rows, "missed": missed}


@contextmanager
def bare_context(cuda: CudaApi, plan: LoadedPlan) -> Iterator[tuple[PlanContext, int]]:
    """Bind a plan at its largest shapes to device memory and yield its context and a stream; free all at the end."""
    context = plan.create_context()
    shapes = {spec.name: plan.largest(spec) for spec in plan.inputs}
    outputs = context.bind(shapes, {})
    width = {spec.name: np.dtype(spec.dtype).itemsize for spec in (*plan.inputs, *plan.outputs)}
    sizes = {name: int(np.prod(shape)) * width[name] for name, shape in {**shapes, **outputs}.items()}
    addresses = {name: cuda.allocate(size) for name, size in sizes.items()}
    context.bind(shapes, addresses)
    stream = cuda.create_stream()
    try:
        yield context, stream
    finally:
        context.close()
        for address in addresses.values():
            cuda.free(address)
        cuda.free_stream(stream)
        plan.close()


def bare_ms(model: Path, batch: int, folder: Path, repeats: int = 200) -> tuple[float, float]:
    """Return milliseconds per bare inference, back to back: enqueued, and as a graph."""
    options = BuildOptions("fp16", (1, batch, batch), inspect_model(model).size_hw)
    file, _reason = PlanCache(folder).get_or_build(model, options)
    cuda = open_cuda()
    with cuda.current(), bare_context(cuda, load_plan(cuda, file)) as (context, stream):
        eager = timed_ms(cuda, stream, lambda: context.enqueue(stream), repeats)
        replayed = _graph_ms(cuda, context, stream, repeats)
    cuda.close()
    return eager, replayed


def _graph_ms(cuda: CudaApi, context: PlanContext, stream: int, repeats: int) -> float:
    """Return milliseconds per replay of the inference as a graph; infinity if it cannot be recorded."""
    try:
        cuda.begin_capture(stream)
        try:
            context.enqueue(stream)
        finally:
            graph = cuda.end_capture(stream)
    except ModelError:
        return math.inf
    replayed = timed_ms(cuda, stream, lambda: cuda.launch_graph(graph, stream), repeats)
    cuda.free_graph(graph)
    return replayed


def timed_ms(cuda: CudaApi, stream: int, step: Callable[[], None], repeats: int) -> float:
    """Return milliseconds per step, with steps queued back to back."""
    for _ in range(20):
        step()
    cuda.synchronize(stream)
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    cuda.synchronize(stream)
    return (time.perf_counter() - started) / repeats * 1000


def end_to_end(opened: ModelDetector, batch: int, batches: int = 200) -> tuple[float, list[float]]:
    """Return frames per second with `depth` batches in flight, and milliseconds of sequential batches."""
    pictures = full_hd(16)
    chosen = [[pictures[(start + i) % 16] for i in range(batch)] for start in range(16)]
    for group in chosen:
        opened.detect(group)
    under_way: deque[Any] = deque()
    started = time.perf_counter()
    for number in range(batches):
        if len(under_way) == opened.depth:
            under_way.popleft().result()
        under_way.append(opened.submit(chosen[number % 16]))
    while under_way:
        under_way.popleft().result()
    fps = batches * batch / (time.perf_counter() - started)
    latency = []
    for number in range(batches):
        begun = time.perf_counter()
        opened.submit(chosen[number % 16]).result()
        latency.append((time.perf_counter() - begun) * 1000)
    return fps, latency


def pipeline(model: Path, cameras: int, folder: Path) -> Facts:
    """Run `framewire bench` on synthetic 1080p cameras and return its figures."""
    source = "synthetic://?width=1920&height=1080&fps=1000&count=400&objects=8&seed={}"
    command = [sys.executable, "-m", "pipelines", "bench", "--model", str(model), "--backend", "tensorrt", "--json"]
    for number in range(cameras):
        command += ["--source", f"camera{number}={source.format(number)}"]
    command += ["--set", f"detector.cache_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    if done.returncode:
        return {"failed": True, "error": done.stderr.strip()[-1500:]}
    return {"figures": done.stdout.strip().splitlines()[-1]}


def steady_memory(
    model: Path, minutes: float, folder: Path, opener: Open = detector, open_api: Callable[[], CudaApi] = open_cuda
) -> Facts:
    """Run for minutes and watch the GPU's free memory; the first tenth is for warming up."""
    pictures = full_hd(16)
    samples: list[int] = []
    end = time.monotonic() + minutes * 60
    watcher = open_api()
    with opener(model, "fp16", 8, folder) as opened:
        number = 0
        while time.monotonic() < end or number < 100:
            count = 1 + number % (1 if opened.facts.batch else opened.max_batch)
            opened.detect(pictures[:count])
            number += 1
            if number % 50 == 0:
                with watcher.current():
                    samples.append(watcher.memory()[0])
    watcher.close()
    steady = samples[len(samples) // 10 :] or samples
    grown = (steady[0] - steady[-1]) / 2**20 if steady else 0.0
    return {"minutes": minutes, "batches": number, "grown_mib": round(grown, 2), "failed": grown > 8}
