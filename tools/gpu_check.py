#!/usr/bin/env python3
"""Check and measure the GPU path on the machine at hand, in one command, and write what was found.

usage: gpu_check.py --model yolov8n.onnx [--model ...] [--images FOLDER] [--minutes 10] [--output docs/measurements]

Runs, each on its own so that one failure does not hide the others: the GPU tests (contract of backend and CUDA
packages, exactness of the kernel), building of plans, equality of boxes with ONNX Runtime, equality of a batch with its
images one by one, the speed table (bare TensorRT, the engine end to end on 1080p frames, latency of batches), and
a loop that watches the GPU's memory. Writes gpu_check.json and gpu_check.md; exit code 0 if everything held.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.backends.base import BackendOptions
from engine.backends.cuda import open_cuda
from engine.backends.cuda_probe import probe_cuda
from engine.backends.plan import read_plan_file
from engine.backends.plan_build import BuildOptions
from engine.backends.plan_cache import PlanCache
from engine.backends.plan_precision import Precision
from engine.backends.tensorrt import TensorRtBackend, load_plan, unusable_reason
from engine.backends.tensorrt_api import load_tensorrt
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.detection.model import inspect_model

BATCHES = (1, 8, 32)
WANTED_IOU = {"fp32": 0.99, "fp16": 0.97}
CONFIDENT = 0.4
"""Boxes above this score in the reference must be found; those nearer to the threshold may fall on either side."""

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass
class Finding:
    """One check: what it found, and whether it held."""

    name: str
    verdict: str = "ok"
    facts: dict[str, Any] = field(default_factory=dict)


class Report:
    """Runs checks one by one and keeps what each found."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def run(self, name: str, check: Callable[[], dict[str, Any]]) -> None:
        """Run one check; a failure is a finding."""
        print(f"{name} ...", flush=True)
        finding = Finding(name)
        try:
            finding.facts = check()
            if finding.facts.pop("failed", False):
                finding.verdict = "failed"
        except Exception as error:  # noqa: BLE001 - the other checks still have to run
            finding.verdict = "failed"
            finding.facts = {"error": f"{type(error).__name__}: {error}"}
        self.findings.append(finding)
        print(f"  {finding.verdict}: {json.dumps(finding.facts, default=str)}", flush=True)

    @property
    def held(self) -> bool:
        """Whether every check held."""
        return all(finding.verdict == "ok" for finding in self.findings)

    def markdown(self) -> str:
        """Return the findings as a page."""
        lines = ["# GPU check", "", "Made by `tools/gpu_check.py`.", ""]
        for finding in self.findings:
            lines += [f"## {finding.name}: {finding.verdict}", ""]
            rows = finding.facts.get("table")
            if rows:
                lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
                lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
            lines += [f"- {key}: {value}" for key, value in finding.facts.items() if key != "table"]
            lines.append("")
        return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Return what this was run on."""
    trt = load_tensorrt()
    probe = probe_cuda()
    cuda = open_cuda()
    cuda.close()
    return {"gpu": str(probe), "library": str(trt), "cuda through": cuda.name, "python": platform.python_version()}


def gpu_tests() -> dict[str, Any]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=900, check=False)
    tail = (done.stdout.strip().splitlines() or ["no output"])[-12:]
    return {"summary": tail[-1], "failed": done.returncode != 0, **({"tail": tail} if done.returncode else {})}


@contextmanager
def detector(model: Path, precision: Precision, max_batch: int, folder: Path) -> Iterator[ModelDetector]:
    """Open a detector on TensorRT; its plan is built, or taken from `folder`."""
    facts = inspect_model(model)
    batch = facts.batch or max_batch
    options = BackendOptions(facts.image, max_batch=batch, precision=precision, cache_dir=folder)
    with ModelDetector(facts, TensorRtBackend(model, options), max_batch=max_batch) as opened:
        yield opened


def frames(images: Path) -> list[Frame]:
    """Return the pictures of a folder as frames."""
    files = [file for file in sorted(images.iterdir()) if file.suffix.lower() in (".jpg", ".jpeg", ".png")]
    return [Frame(np.asarray(cv2.imread(str(file)), np.uint8), "images", i, 0, 0) for i, file in enumerate(files)]


def full_hd(count: int) -> list[Frame]:
    """Return synthetic 1080p frames."""
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (68, 120, 3), dtype=np.uint8) for _ in range(count)]
    pictures = [np.asarray(cv2.resize(picture, (1920, 1080)), np.uint8) for picture in small]
    return [Frame(picture, "synthetic", index, 0, 0) for index, picture in enumerate(pictures)]


def same_boxes(model: Path, precision: Precision, images: Path, folder: Path) -> dict[str, Any]:
    """Compare the boxes with those of ONNX Runtime on the same pictures."""
    pictures = frames(images)
    reference = load_detector(model, backend="onnxruntime").detect(pictures)
    with detector(model, precision, 1, folder) as opened:
        found = opened.detect(pictures)
    overlaps = [value for first, second in zip(reference, found, strict=True) for value in overlap(first, second)]
    low = min(overlaps, default=0.0)
    wanted = WANTED_IOU[precision]
    share = float(np.mean([value >= wanted for value in overlaps])) if overlaps else 0.0
    return {
        "boxes": len(overlaps),
        "min_iou": round(low, 4),
        f"share_at_{wanted}": round(share, 4),
        "failed": share < 0.99,
    }


def overlap(reference: Detections, found: Detections) -> list[float]:
    """Return for each confident box of the reference how well a box of the same class fits it."""
    sure = reference[reference.score > CONFIDENT]
    table = iou_matrix(sure.xyxy, found.xyxy)
    table[sure.class_id[:, None] != found.class_id[None, :]] = 0
    return [float(row.max(initial=0.0)) for row in table]


def batch_exactness(model: Path, images: Path, folder: Path) -> dict[str, Any]:
    """Compare a batch with its images one by one."""
    pictures = frames(images)[:8]
    if inspect_model(model).batch is not None:
        return {"note": "the model fixes its batch: nothing to compare"}
    with detector(model, "fp16", 8, folder) as opened:
        together = opened.detect(pictures)
        alone = [opened.detect([picture])[0] for picture in pictures]
    differences = [
        float(np.abs(one.xyxy - other.xyxy).max(initial=0.0)) if len(one) == len(other) else float("inf")
        for one, other in zip(together, alone, strict=True)
    ]
    return {"images": len(pictures), "max_difference_px": round(max(differences), 3), "failed": max(differences) > 2}


def speed(model: Path, folder: Path) -> dict[str, Any]:
    """Measure bare TensorRT, the engine end to end, and one camera's latency."""
    rows = []
    fixed = inspect_model(model).batch
    for batch in (fixed,) if fixed else BATCHES:
        raw_ms = bare_ms(model, batch, folder)
        with detector(model, "fp16", batch, folder) as opened:
            fps, latency = end_to_end(opened, batch)
        raw_fps = 1000 * batch / raw_ms
        rows.append(
            {
                "model": model.stem,
                "batch": batch,
                "bare ms": round(raw_ms, 3),
                "bare fps": round(raw_fps, 1),
                "engine fps, 1080p": round(fps, 1),
                "ratio": round(fps / raw_fps, 3),
                "latency p50 ms": round(statistics.median(latency), 2),
                "latency p99 ms": round(float(np.percentile(latency, 99)), 2),
            }
        )
    return {"table": rows}


def bare_ms(model: Path, batch: int, folder: Path, repeats: int = 200) -> float:
    """Return milliseconds per inference with nothing around it: enqueued back to back on one stream."""
    facts = inspect_model(model)
    options = BuildOptions("fp16", (1, batch, batch), facts.size_hw)
    file, _reason = PlanCache(folder).get_or_build(model, options)
    cuda = open_cuda()
    with cuda.current():
        plan = load_plan(cuda, read_plan_file(file.path))
        context = plan.create_context()
        shapes = {spec.name: plan.largest(spec) for spec in plan.inputs}
        outputs = context.bind(shapes, {})
        sizes = {name: int(np.prod(shape)) * 4 for name, shape in {**shapes, **outputs}.items()}
        addresses = {name: cuda.allocate(size) for name, size in sizes.items()}
        context.bind(shapes, addresses)
        stream = cuda.create_stream()
        for _ in range(20):
            context.enqueue(stream)
        cuda.synchronize(stream)
        started = time.perf_counter()
        for _ in range(repeats):
            context.enqueue(stream)
        cuda.synchronize(stream)
        spent = time.perf_counter() - started
        context.close()
        for address in addresses.values():
            cuda.free(address)
        cuda.free_stream(stream)
        plan.close()
    cuda.close()
    return spent / repeats * 1000


def end_to_end(opened: ModelDetector, batch: int, batches: int = 200) -> tuple[float, list[float]]:
    """Return frames per second with `depth` batches in flight, and milliseconds of batches one after the other."""
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


def steady_memory(model: Path, minutes: float, folder: Path) -> dict[str, Any]:
    """Run for minutes and watch the GPU's free memory; the first tenth is warming up."""
    pictures = full_hd(16)
    samples: list[int] = []
    end = time.monotonic() + minutes * 60
    watcher = open_cuda()
    with detector(model, "fp16", 8, folder) as opened:
        number = 0
        while time.monotonic() < end:
            count = 1 + number % (1 if opened.facts.batch else 8)
            opened.detect(pictures[:count])
            number += 1
            if number % 50 == 0:
                with watcher.current():
                    samples.append(watcher.memory()[0])
    watcher.close()
    steady = samples[len(samples) // 10 :] or samples
    grown = (steady[0] - steady[-1]) / 2**20 if steady else 0.0
    return {"minutes": minutes, "batches": number, "grown_mib": round(grown, 2), "failed": grown > 8}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, action="append", required=True, help="ONNX file; may be repeated")
    parser.add_argument("--images", type=Path, help="folder of pictures for the comparison with ONNX Runtime")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the memory loop")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "docs" / "measurements")
    parser.add_argument("--cache", type=Path, default=Path("plans"), help="folder of built plans")
    chosen = parser.parse_args(arguments)
    reason = unusable_reason()
    if reason is not None:
        print(f"TensorRT cannot run here: {reason}", file=sys.stderr)
        return 1
    report = Report()
    report.run("machine", machine)
    report.run("GPU tests", gpu_tests)
    for model in chosen.model:
        if chosen.images:
            report.run(f"{model.stem}: boxes, fp32", partial(same_boxes, model, "fp32", chosen.images, chosen.cache))
            report.run(f"{model.stem}: boxes, fp16", partial(same_boxes, model, "fp16", chosen.images, chosen.cache))
            report.run(f"{model.stem}: batch", partial(batch_exactness, model, chosen.images, chosen.cache))
        report.run(f"{model.stem}: speed, fp16", partial(speed, model, chosen.cache))
    report.run("memory", lambda: steady_memory(chosen.model[0], chosen.minutes, chosen.cache))
    chosen.output.mkdir(parents=True, exist_ok=True)
    findings = [asdict(finding) for finding in report.findings]
    (chosen.output / "gpu_check.json").write_text(json.dumps(findings, indent=2, default=str) + "\n")
    (chosen.output / "gpu_check.md").write_text(report.markdown())
    print(f"written to {chosen.output}")
    return 0 if report.held else 1


if __name__ == "__main__":
    raise SystemExit(main())
