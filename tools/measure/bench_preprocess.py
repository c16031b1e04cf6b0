#!/usr/bin/env python3
"""Measure the steps around inference: letterbox, normalisation, head and NMS, each against the naive form.

Everything runs on one core. The figures are p50 and p99 of each step, and its ratio to the naive form in the same run.

    python tools/measure/bench_preprocess.py [--rounds 200]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.backends.base import ImageInput
from engine.backends.pixels import Normaliser
from engine.backends.tensorrt.images import pack
from engine.detection.heads.ultralytics import RawHead
from engine.detection.letterbox import Canvas
from engine.detection.nms import nms
from engine.sources.live.pixels import DecodedImage, image_from_packed
from engine.video.to_bgr import BgrConverter

SIDE = 640


def measure(name: str, work: Callable[[], object], rounds: int, naive_ms: float | None = None) -> float:
    """Print p50 and p99 of `work` in milliseconds and return p50."""
    work()
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        spent.append((time.perf_counter() - started) * 1e3)
    p50, p99 = np.percentile(spent, [50, 99])
    ratio = f"   {p50 / naive_ms:.2f} of the form above" if naive_ms else ""
    print(f"{name:52} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms{ratio}")
    return float(p50)


def naive_letterbox(image: np.ndarray) -> np.ndarray:
    """Return an (h, w, 3) uint8 image as (SIDE, SIDE, 3): resized, then copied into a padded array, as usual."""
    scale = min(SIDE / image.shape[0], SIDE / image.shape[1])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    resized = cv2.resize(image, size)
    borders = (top, SIDE - size[1] - top, left, SIDE - size[0] - left)
    return np.asarray(cv2.copyMakeBorder(resized, *borders, cv2.BORDER_CONSTANT, value=(114, 114, 114)))


def naive_normalise(batch: np.ndarray) -> np.ndarray:
    """Return (b, h, w, 3) uint8 BGR as (b, 3, h, w) float32 RGB 0..1: float, divide, swap, transpose, as usual."""
    return np.ascontiguousarray((batch[..., ::-1].astype(np.float32) / 255).transpose(0, 3, 1, 2))


def naive_head(output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transpose, argmax over all anchors, then the threshold: the usual form.

    Args:
        output: (1, 84, anchors) float32.

    Returns:
        The (K, 84) rows above the threshold, and their (K,) classes.
    """
    rows = output[0].T
    classes = rows[:, 4:].argmax(axis=1)
    scores = rows[np.arange(len(rows)), 4 + classes]
    return rows[scores > 0.25], classes[scores > 0.25]


def realistic_output(random: np.random.Generator) -> np.ndarray:
    """Return (1, 84, 8400) float32 in which sixty anchors pass, as in a street scene."""
    output = random.random((1, 84, 8400), dtype=np.float32) * 0.05
    output[0, :4] = random.random((4, 8400)) * 600
    output[0, 4, random.choice(8400, 60, replace=False)] = 0.8
    return output


def preprocess(rounds: int, random: np.random.Generator) -> None:
    """Measure letterbox and normalisation."""
    for width, height in ((768, 576), (1920, 1080)):
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        naive = measure(f"letterbox {width}x{height}, naive", partial(naive_letterbox, image), rounds)
        canvas = Canvas(np.empty((1, SIDE, SIDE, 3), np.uint8), "center")
        ours = f"letterbox {width}x{height}, into the batch"
        measure(ours, partial(canvas.place, 0, image), rounds, naive)
    batch = random.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    naive = measure("normalise, naive", lambda: naive_normalise(batch), rounds)
    measure(
        "normalise, cv2.dnn.blobFromImage", lambda: cv2.dnn.blobFromImage(batch[0], 1 / 255, swapRB=True), rounds, naive
    )
    normaliser, out = Normaliser(ImageInput((SIDE, SIDE))), np.empty((1, 3, SIDE, SIDE), np.float32)
    measure("normalise, into a reused batch", lambda: normaliser.write(batch, out), rounds, naive)


def _place_next(canvas: Canvas, images: Iterator[NDArray[np.uint8]]) -> None:
    canvas.place(0, next(images))


def _copy_next(room: NDArray[np.uint8], images: Iterator[NDArray[np.uint8]]) -> None:
    np.copyto(room, next(images))


def _convert_next(room: NDArray[np.uint8], frames: Iterator[Any], convert: BgrConverter) -> None:
    np.copyto(room, image_from_packed(convert.packed(next(frames))))


def _pack_next(room: NDArray[np.uint8], frames: Iterator[Any], convert: BgrConverter) -> None:
    planes = DecodedImage(next(frames), convert).planes()
    assert planes is not None
    pack(planes, room.reshape(-1)[: planes.nbytes])


def hand_over(rounds: int, random: np.random.Generator) -> None:
    """Compare the CPU time for copying a frame or its planes, as for a GPU, with the time for letterboxing it."""
    canvas = Canvas(np.empty((1, SIDE, SIDE, 3), np.uint8), "center")
    for width, height in ((768, 576), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160)):
        first = random.integers(0, 256, (4, height, width, 3), dtype=np.uint8)
        images = cycle(first)
        room = np.empty((height, width, 3), np.uint8)
        size = f"{width}x{height}, {width * height / SIDE / SIDE:.1f} x the model's bytes"
        letterbox = measure(f"letterbox {size}", partial(_place_next, canvas, images), rounds)
        measure(f"copy {size}", partial(_copy_next, room, images), rounds, letterbox)
        for kind in ("yuv420p", "nv12"):
            decoded = [av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=kind) for image in first]
            convert, frames = BgrConverter(), cycle(decoded)
            converted = measure(f"convert {kind}, copy", partial(_convert_next, room, frames, convert), rounds)
            measure(f"copy {kind}", partial(_pack_next, room, frames, convert), rounds, converted)


def postprocess(rounds: int, random: np.random.Generator) -> None:
    """Measure head and NMS."""
    output = realistic_output(random)
    naive = measure("head (84, 8400), argmax first", lambda: naive_head(output), rounds)
    head = RawHead()
    measure("head (84, 8400), maximum first", lambda: head.find([output], 0, 0.25), rounds, naive)
    found = head.find([output], 0, 0.25)
    measure(f"NMS, {len(found)} candidates", lambda: head.suppress(found, 0.7), rounds)
    corner = random.random((8400, 2)) * 560
    boxes = np.concatenate((corner, corner + 80), axis=1).astype(np.float32)
    score, class_id = random.random(8400).astype(np.float32), random.integers(0, 80, 8400).astype(np.int32)
    measure("NMS, 8400 candidates, 80 classes", lambda: nms(boxes, score, class_id, 0.7), rounds // 4)
    leaders = np.array([[x * 30, y * 30, x * 30 + 20, y * 30 + 20] for x in range(23) for y in range(13)], np.float32)
    boxes = np.concatenate((leaders, leaders[random.integers(0, len(leaders), 8400 - len(leaders))]))
    score = np.concatenate((np.linspace(1, 0.9, len(leaders)), random.random(8400 - len(leaders)) * 0.8))
    one = np.zeros(8400, np.int32)
    measure("NMS, 8400 candidates, worst case", lambda: nms(boxes, score.astype(np.float32), one, 0.7), rounds // 4)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    return parser.parse_args()


def main() -> None:
    """Parse the arguments and measure."""
    arguments = _options()
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    preprocess(arguments.rounds, random)
    hand_over(arguments.rounds, random)
    postprocess(arguments.rounds, random)


if __name__ == "__main__":
    main()
