"""Specialise a person detector on one camera: frames of the embedded clip, labelled by a stronger model.

    python examples/learning/one_camera.py BASE.onnx [--teacher MODEL] [--budget 5m]

BASE is the public DEIMv2-Femto file; it also labels the frames unless another teacher is named. In real use, a person
reviews the labels before training. tools/learning_loop.py does the same on a long clip, with measurements.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from engine import load_detector, open_source
from engine.assets import demo_clip
from pipelines.learning.train.options import TrainOptions, parse_budget
from pipelines.learning.train.run import TrainRequest, train

options = argparse.ArgumentParser()
options.add_argument("base")
options.add_argument("--teacher")
options.add_argument("--budget", default="5m")
options.add_argument("--size", type=int, default=320)
given = options.parse_args()

for kind in ("images", "labels"):
    Path("camera", kind).mkdir(parents=True, exist_ok=True)
with load_detector(given.teacher or given.base, score_threshold=0.4, classes=["person"]) as teacher:
    for frame in list(open_source(str(demo_clip())))[::4]:
        [found] = teacher.detect([frame])
        rows = []
        for x1, y1, x2, y2 in found.xyxy.tolist():
            centre = (x1 + x2) / 2 / frame.width, (y1 + y2) / 2 / frame.height
            rows.append(f"0 {centre[0]} {centre[1]} {(x2 - x1) / frame.width} {(y2 - y1) / frame.height}")
        cv2.imwrite(f"camera/images/{frame.frame_id:04d}.jpg", frame.image)
        Path(f"camera/labels/{frame.frame_id:04d}.txt").write_text("\n".join(rows))
Path("camera/data.yaml").write_text("names: [person]\n")

wanted = TrainOptions("deimv2-femto", base=given.base, size=given.size, **parse_budget(given.budget))
result = train(TrainRequest(Path("camera"), Path("runs"), wanted), print)
print(f"{result['model']}: AP50 of people on held-out frames {result['val']['map50']:.3f}")
