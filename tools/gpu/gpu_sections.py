"""The measurements and comparisons of `gpu_check.py`, each a function from plain values to facts.

A fact `failed` means that something is wrong, `missed` that a target was not reached.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.assets import demo_clip
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.driver import CudaApi, available_packages
from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.plan import PlanFile
from engine.backends.tensorrt.api import installed_libraries, load_tensorrt
from engine.backends.tensorrt.build_plan import BuildOptions, Prepared
from engine.backends.tensorrt.loaded_plan import LoadedPlan, PlanContext
from engine.backends.tensorrt.network import usual_precision
from engine.backends.tensorrt.precision import Precision, with_precision
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.feeding import LetterboxOn
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.errors import ModelError
from engine.sources.open import open_source
from engine.video.read_image import IMAGE_SUFFIXES, read_image
from pipelines.models.accuracy_gate import calibration_batches
from tools.gpu.device import CHECKOUT, Device, Facts, record_graph

WANTED_IOU = {"fp32": 0.99, "fp16": 0.97}
WANTED_RATIO = 0.95
MORE_LATENCY_MS = 2.0
TIME_LEFT = "GPU_CHECK_SECONDS"
"""Environment variable with the seconds that a section may take."""

LEFT_TO_END_S = 60.0
CONFIDENT = 0.4
"""Boxes of the reference above this score must be found; those closer to the threshold may fall on either side."""


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


def cuda_contract(device: Device) -> Facts:
    """Run everything that the backend needs from CUDA, including kernels and graphs, with each package; no TensorRT."""
    from tests.backends.cuda.cuda_contract import check

    image, held = device.compile(), []
    for name, api in device.open_packages():
        check(api, image)
        held.append(name)
    return {"held by": held, "kernel bytes": len(image), "failed": not held}


def answer(device: Device, folder: Path) -> Facts:
    """Build, load and run the smallest model, and keep the exact message of a library that refuses."""
    from tests.onnx_models import save_pixel_model

    folder.mkdir(parents=True, exist_ok=True)
    model = save_pixel_model(folder / "pixels.onnx", side=32)
    backend = device.backend(model, BackendOptions(ImageInput((32, 32)), precision="fp32", cache_dir=folder))
    backend.open()
    pending = backend.submit({"images": np.full((1, 32, 32, 3), 100, np.uint8)})
    mean = float(pending.result()[1].mean()) * 255
    pending.release()
    backend.close()
    return {"device": backend.device, "100 comes back as": round(mean, 3), "failed": abs(mean - 100) > 0.5}


def gpu_tests(device: Device) -> Facts:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", *device.tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    tail = ((done.stdout + done.stderr).strip().splitlines() or ["no output"])[-12:]
    failed = done.returncode != 0 or " passed" not in tail[-1]
    return {"summary": tail[-1], "failed": failed, **({"tail": tail} if failed else {})}


@contextmanager
def detector(
    device: Device,
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
    backend = device.backend(model, options)
    with ModelDetector(facts, backend, max_batch=max_batch, letterbox_on=letterbox_on) as opened:
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


def same_boxes(device: Device, model: Path, precision: Precision, images: Path | None, folder: Path) -> Facts:
    """Compare the boxes with those of ONNX Runtime on the same images."""
    pictures = some_frames(None) if images is None else frames(images)
    with load_detector(model, backend="onnxruntime") as reference:
        wanted_boxes = reference.detect(pictures)
    with detector(device, model, precision, 1, folder) as opened:
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


def same_either_way(device: Device, model: Path, images: Path | None, folder: Path) -> Facts:
    """Compare detections that use the GPU for letterbox and candidates with those that use the CPU for both."""
    ways: dict[str, dict[str, Any]] = {
        "all on the processor": {"letterbox_on": "cpu", "with_candidates": False},
        "candidates": {"letterbox_on": "cpu"},
        "candidates and letterbox": {"letterbox_on": "gpu"},
    }
    found = {}
    pictures = some_frames(images)
    for name, options in ways.items():
        with detector(device, model, "fp32", 1, folder, **options) as opened:
            found[name] = opened.detect(pictures)
    first, *others = found.values()
    facts: Facts = {"boxes": sum(map(len, first))}
    for name, other in zip(list(ways)[1:], others, strict=True):
        facts[name] = f"{sum(map(_is_same, first, other))} of {len(first)} images equal to the bit"
    facts["failed"] = not facts["boxes"] or not all(map(_is_same, first, others[0]))
    return facts


def _is_same(first: Detections, second: Detections) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("xyxy", "score", "class_id"))


def batch_exactness(device: Device, model: Path, images: Path | None, folder: Path) -> Facts:
    """Compare a batch with its images one by one."""
    if inspect_model(model).batch is not None:
        return {"note": "the model fixes its batch: nothing to compare"}
    pictures = some_frames(images)
    with detector(device, model, "fp16", 8, folder) as opened:
        together = opened.detect(pictures)
        alone = [opened.detect([picture])[0] for picture in pictures]
    differences = [
        float(np.abs(one.xyxy - other.xyxy).max(initial=0.0)) if len(one) == len(other) else float("inf")
        for one, other in zip(together, alone, strict=True)
    ]
    boxes, largest = sum(map(len, alone)), max(differences)
    facts: Facts = {"images": len(pictures), "boxes": boxes, "max_difference_px": round(largest, 3)}
    return facts | {"failed": not boxes or largest > 2}


def speed(device: Device, model: Path, batch: int, folder: Path) -> Facts:
    """Measure bare TensorRT, the engine on 1080p frames with each letterbox, and the latency of single batches."""
    batch = inspect_model(model).batch or batch
    eager_ms, graph_ms = bare_ms(device, model, batch, folder)
    raw_ms = min(eager_ms, graph_ms)
    rows: list[Facts] = []
    ratios: list[float] = []
    p50s: list[float] = []
    for letterbox_on in ("cpu", "gpu"):
        with detector(device, model, "fp16", batch, folder, letterbox_on=letterbox_on) as opened:
            fps, latency = end_to_end(opened, batch, device.repeats)
        ratios.append(fps * raw_ms / 1000 / batch)
        p50s.append(statistics.median(latency))
        row = {"letterbox": letterbox_on, "batch": batch, "bare ms": round(eager_ms, 3)}
        row |= {"bare graph ms": round(graph_ms, 3), "bare fps": round(1000 * batch / raw_ms, 1)}
        row |= {"engine fps, 1080p": round(fps, 1), "ratio": round(ratios[-1], 3), "p50 ms": round(p50s[-1], 2)}
        rows.append(row | {"p99 ms": round(float(np.percentile(latency, 99)), 2)})
    missed = max(ratios) < WANTED_RATIO if batch >= 8 else min(p50s) > raw_ms + MORE_LATENCY_MS
    return {"table": rows, "missed": missed}


def int8_speed(device: Device, model: Path, images: Path | None, folder: Path) -> Facts:
    """Compare the bare time of an INT8 plan, whose rest is FP16, with that of an FP16 plan; accuracy is not judged."""
    facts = inspect_model(model)
    if usual_precision(facts.file) == "fp32":
        return {"note": "the model is quantised already, or has branches: it is built unchanged"}
    content, counts = with_precision(model, "int8", calibration_batches(facts, some_frames(images)))
    kinds: tuple[Precision, ...] = ("fp16", "int8")
    rows: list[Facts] = []
    for precision in kinds:
        options = BuildOptions(precision, (1, 1, 1), facts.size_hw)
        file = device.build(model, options, folder, (lambda: Prepared(content)) if precision == "int8" else None)
        eager_ms, graph_ms = bare_ms_of(device, file)
        rows.append({"plan": precision, "eager ms": round(eager_ms, 3), "graph ms": round(graph_ms, 3)})
    fp16_ms, int8_ms = (min(row["eager ms"], row["graph ms"]) for row in rows)
    return {"table": rows, "quantised": counts["quantised_nodes"], "missed": int8_ms > fp16_ms}


@contextmanager
def bare_context(cuda: CudaApi, plan: LoadedPlan, batch: int | None = None) -> Iterator[tuple[PlanContext, int]]:
    """Bind a plan to device memory and yield its context and a stream; free all at the end.

    Args:
        cuda: the GPU.
        plan: to run.
        batch: None: the largest.
    """
    context = plan.create_context()
    shapes = {spec.name: plan.largest(spec) for spec in plan.inputs}
    if batch is not None:
        shapes = {name: (batch, *shape[1:]) for name, shape in shapes.items()}
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


def bare_ms(device: Device, model: Path, batch: int, folder: Path) -> tuple[float, float]:
    """Return milliseconds per bare inference, back to back: enqueued, and as a graph."""
    options = BuildOptions("fp16", (1, batch, batch), inspect_model(model).size_hw)
    return bare_ms_of(device, device.build(model, options, folder))


def bare_ms_of(device: Device, file: PlanFile) -> tuple[float, float]:
    """Return the same for a plan file."""
    cuda = device.open_api()
    with cuda.current(), bare_context(cuda, device.load(cuda, file)) as (context, stream):
        eager = timed_ms(cuda, stream, lambda: context.enqueue(stream), device.repeats)
        replayed = _graph_ms(cuda, context, stream, device.repeats)
    cuda.close()
    return eager, replayed


def _graph_ms(cuda: CudaApi, context: PlanContext, stream: int, repeats: int) -> float:
    """Return milliseconds per replay of the inference as a graph; infinity if it cannot be recorded."""
    try:
        graph = record_graph(cuda, stream, lambda: context.enqueue(stream))
    except ModelError:
        return math.inf
    replayed = timed_ms(cuda, stream, lambda: cuda.launch_graph(graph, stream), repeats)
    cuda.free_graph(graph)
    return replayed


def timed_ms(cuda: CudaApi, stream: int, step: Callable[[], None], repeats: int) -> float:
    """Return milliseconds per step, with steps queued back to back."""
    for _ in range(max(repeats // 10, 1)):
        step()
    cuda.synchronize(stream)
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    cuda.synchronize(stream)
    return (time.perf_counter() - started) / repeats * 1000


def end_to_end(opened: ModelDetector, batch: int, batches: int) -> tuple[float, list[float]]:
    """Return frames per second with `depth` batches in flight, and milliseconds of sequential batches."""
    pictures = full_hd(16)
    chosen = [[pictures[(start + i) % 16] for i in range(batch)] for start in range(16)]
    for group in chosen[: max(batches // 12, 1)]:
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


def pipeline(device: Device, model: Path, cameras: int, folder: Path) -> Facts:
    """Run `framewire bench` on synthetic 1080p cameras and return its figures."""
    source = f"synthetic://?width=1920&height=1080&fps=1000&count={2 * device.repeats}&objects=8&seed="
    command = [sys.executable, "-m", "pipelines", "bench", "--model", str(model), "--backend", device.bench, "--json"]
    for number in range(cameras):
        command += ["--source", f"camera{number}={source}{number}"]
    command += ["--set", f"detector.cache_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    if done.returncode:
        return {"failed": True, "error": done.stderr.strip()[-1500:]}
    return {"figures": done.stdout.strip().splitlines()[-1]}


def steady_memory(device: Device, model: Path, minutes: float, folder: Path) -> Facts:
    """Run for minutes, or until the section's time is nearly over, and watch the GPU's free memory.

    The first tenth is for warming up.
    """
    left_s = float(os.environ.get(TIME_LEFT, "inf")) - LEFT_TO_END_S
    minutes = min(minutes, max(left_s, 0.0) / 60)
    pictures = full_hd(16)
    samples: list[int] = []
    end = time.monotonic() + minutes * 60
    watcher = device.open_api()
    with detector(device, model, "fp16", 8, folder) as opened:
        number = 0
        while time.monotonic() < end or number < device.repeats // 2:
            count = 1 + number % (1 if opened.facts.batch else opened.max_batch)
            opened.detect(pictures[:count])
            number += 1
            if number % 50 == 0 or number < 3:
                with watcher.current():
                    samples.append(watcher.memory()[0])
    watcher.close()
    steady = samples[len(samples) // 10 :] or samples
    grown = (steady[0] - steady[-1]) / 2**20 if steady else 0.0
    return {"minutes": round(minutes, 1), "batches": number, "grown_mib": round(grown, 2), "failed": grown > 8}
