#!/usr/bin/env python3
"""Detect on three frames of the demo clip and print the boxes as JSON, or compare two such outputs.

usage: smoke_detect.py            prints {"machine": ..., "frames": [[[x1, y1, x2, y2, score, class_id], ...], ...],
                                  "crops": [...]}
       smoke_detect.py --compare ONE.json OTHER.json

The crops have the size of the model's input, so the model gets the same bytes everywhere. Whole frames are scaled by
OpenCV, which rounds differently on each architecture: a fifth of the pixels differ by one.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.assets import demo_clip, demo_model
from engine.boxes import iou_matrix
from engine.data import Frame
from engine.detection.load import load_detector

FRAMES = (0, 105, 250)
CROP = slice(160, 576), slice(280, 696)
"""Rows and columns with people in all three frames; 416 x 416 pixels, the input of the demo model."""
TOLERANCES = {"crops": (0.999, 0.001), "frames": (0.95, 0.02)}
"""The smallest IoU and the largest difference between scores."""


def detect() -> dict[str, Any]:
    """Return the boxes of the demo model, using ONNX Runtime, which runs everywhere.

    OpenCV converts the colours with integer arithmetic, because FFmpeg's result depends on the CPU's instructions.
    """
    import av

    with av.open(str(demo_clip())) as container:
        pictures = [
            Frame(np.asarray(cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2BGR_I420), np.uint8), "smoke", index, 0, 0)
            for index, frame in enumerate(container.decode(video=0))
            if index in FRAMES
        ]
    crops = [Frame(np.ascontiguousarray(picture.image[CROP]), "smoke", n, 0, 0) for n, picture in enumerate(pictures)]
    rows = {}
    with load_detector(demo_model(), backend="onnxruntime") as detector:
        for key, given in (("frames", pictures), ("crops", crops)):
            found = detector.detect(given)
            rows[key] = [np.column_stack((one.xyxy, one.score, one.class_id)).round(4).tolist() for one in found]
    return {"machine": platform.machine(), **rows}


def compare(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    """Print how closely two outputs agree, box by box, and return whether they do."""
    worst_iou, worst_score, boxes = 1.0, 0.0, 0
    for first, second in zip(one[key], other[key], strict=True):
        left, right = np.float32(first).reshape(-1, 6), np.float32(second).reshape(-1, 6)
        if len(left) != len(right) or not len(left):
            print(f"{len(left)} boxes on {one['machine']}, {len(right)} on {other['machine']}")
            return False
        overlap = iou_matrix(left[:, :4], right[:, :4])
        overlap[left[:, 5][:, None] != right[:, 5][None, :]] = 0
        nearest = overlap.argmax(axis=1)
        worst_iou = min(worst_iou, float(overlap.max(axis=1).min()))
        worst_score = max(worst_score, float(np.abs(left[:, 4] - right[nearest, 4]).max()))
        boxes += len(left)
    min_iou, tolerance = TOLERANCES[key]
    held = worst_iou >= min_iou and worst_score <= tolerance
    print(
        f"{one['machine']} and {other['machine']} {'agree' if held else 'DIFFER'} on {boxes} boxes of {key}: "
        f"IoU at least {worst_iou:.4f}, scores within {worst_score:.4f}"
    )
    return held


def main(arguments: list[str]) -> int:
    """Detect, or compare."""
    if arguments[:1] == ["--compare"]:
        one, other = (json.loads(Path(name).read_text()) for name in arguments[1:3])
        return 0 if compare(one, other, "crops") & compare(one, other, "frames") else 1
    print(json.dumps(detect()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
