"""Training by Ultralytics (AGPL-3.0, extra `export`), in the child process only: nothing else of Framewire imports it.

It starts from a checkpoint `.pt`, or from scratch. Nothing is downloaded or sent: no fonts, weights or statistics.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.optional import require
from pipelines.learning.child import Fields, Tell, torch_for_training
from pipelines.learning.json_files import write_json
from pipelines.learning.train.checkpoint import Progress
from pipelines.learning.train.loop import TELL_EVERY_S, add_row
from pipelines.learning.train.options import MIN_PER_H, TrainOptions
from pipelines.learning.train.vision_ops import torchvision

SWITCHES = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
SIDE = 640
BACKBONE_LAYERS = 10
MOST_EPOCHS = 10_000
SCORES = {"map50": "metrics/mAP50(B)", "map50_95": "metrics/mAP50-95(B)"}


def train_ultralytics(request: Fields, listing: Fields, options: TrainOptions, tell: Tell) -> Fields:
    """Train and write `weights.pt`, `last.pt`, `curves.csv` and `model.onnx`, as `train_detector` does.

    Raises:
        MissingDependencyError: Ultralytics is not installed.
        ModelError: the base is not a checkpoint of a detector.
    """
    torchvision(torch_for_training())
    folder = Path(request["folder"])
    place, size = folder / "ultralytics", options.size or SIDE
    package = _package(place)
    data, last = _write_data(listing, place), place / "run" / "weights" / "last.pt"
    resumes = bool(request.get("resume")) and last.is_file()
    model = _model(package, str(last) if resumes else options.base or f"{options.arch}.yaml")
    report = _Report(options, len(listing["train"]), folder, tell)
    model.add_callback("on_train_batch_end", report.batch)
    model.add_callback("on_fit_epoch_end", report.epoch)
    tell({"note": "training with Ultralytics: it and its models are AGPL-3.0"})
    with contextlib.redirect_stdout(io.StringIO()):
        model.train(**({"resume": True} if resumes else _arguments(options, data, place, size)))
        best = _model(package, str(last.with_name("best.pt")))
        made = best.export(format="onnx", imgsz=size, simplify=False, dynamic=False, opset=17)
    shutil.move(str(made), folder / "model.onnx")
    for name, source in (("weights.pt", "best.pt"), ("last.pt", "last.pt")):
        shutil.copyfile(last.with_name(source), folder / name)
    spent = round(report.progress.spent_s, 1)
    return {"steps": report.progress.step, "seconds": spent, "size": size, "val": report.best}


def _package(place: Path) -> Any:
    """Return Ultralytics, prevented from connecting to anything, with its settings in the run's folder."""
    place.mkdir(parents=True, exist_ok=True)
    os.environ.update(SWITCHES, YOLO_CONFIG_DIR=str(place))
    package = require("ultralytics", extra="export")
    package.settings.update({"sync": False})
    require("ultralytics.data.utils").check_font = lambda *given: None  # the original downloads a font for images
    return package


def _model(package: Any, path: str) -> Any:
    try:
        model = package.YOLO(path)
    except Exception as error:  # Ultralytics raises many kinds of errors
        raise ModelError(f"{path}: Ultralytics cannot load it ({type(error).__name__}: {error})") from error
    if model.task != "detect":
        raise ModelError(f"{path}: a model for {model.task}: expected a detector")
    return model


def _write_data(listing: Fields, place: Path) -> Path:
    """Write the listed images as links with their labels, as Ultralytics reads them; return the description."""
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            shutil.rmtree(place / kind / part, ignore_errors=True)
            (place / kind / part).mkdir(parents=True)
        for number, entry in enumerate(listing[part]):
            image = Path(entry["image"]).resolve()
            (place / "images" / part / f"{number:06d}{image.suffix}").symlink_to(image)
            rows = [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) for row in entry["boxes"]]
            (place / "labels" / part / f"{number:06d}.txt").write_text("\n".join(rows), encoding="utf-8")
    values = {"path": str(place.resolve()), "train": "images/train", "val": "images/val"}
    path = place / "data.yaml"
    write_json(path, {**values, "names": dict(enumerate(listing["class_names"]))})  # JSON is YAML
    return path


def _arguments(options: TrainOptions, data: Path, place: Path, size: int) -> dict[str, Any]:
    """Return the options under Ultralytics' names."""
    augment = options.augment
    known = {
        "data": str(data),
        "imgsz": size,
        "batch": options.batch,
        "seed": options.seed,
        "project": str(place.resolve()),
        "name": "run",
        "fliplr": augment.flip,
        "hsv_h": augment.colour / 10,
        "hsv_s": augment.colour,
        "hsv_v": augment.colour,
        "scale": min(0.9, max(augment.scale[1] - 1, 1 - augment.scale[0])),
        "translate": augment.translate,
        "mosaic": augment.mosaic,
    }
    fixed = {"exist_ok": True, "device": "cpu", "workers": 0, "plots": False, "amp": False, "verbose": False}
    known["epochs"] = MOST_EPOCHS if options.epochs is None else math.ceil(options.epochs)
    if options.minutes is not None:
        known["time"] = options.minutes / MIN_PER_H
    if options.base is not None:
        known |= {"optimizer": "AdamW", "lr0": options.lr}
    if options.freeze == "backbone":
        known["freeze"] = BACKBONE_LAYERS
    return known | fixed


class _Report:
    """Reports the training progress to the parent, and extends the curves."""

    def __init__(self, options: TrainOptions, pictures: int, folder: Path, tell: Tell) -> None:
        self.progress = Progress(options, max(1.0, pictures / options.batch))
        self.best = {"map50": 0.0, "map50_95": 0.0}
        self._folder, self._tell, self._told = folder, tell, 0.0

    def batch(self, trainer: Any) -> None:
        """Count a step."""
        self.progress.step += 1
        share = min(1.0, self.progress.share())
        if time.monotonic() - self._told > TELL_EVERY_S:
            self._told = time.monotonic()
            self._tell({"done": share, "step": self.progress.step})

    def epoch(self, trainer: Any) -> None:
        """Add the scores of an epoch."""
        scores = {name: round(float(trainer.metrics.get(key, 0.0)), 4) for name, key in SCORES.items()}
        if scores["map50_95"] >= self.best["map50_95"]:
            self.best = scores
        parts = trainer.tloss.values() if isinstance(trainer.tloss, dict) else [trainer.tloss.sum()]
        loss = round(sum(float(part) for part in parts), 4)
        share = min(1.0, self.progress.share())
        add_row(self._folder, self.progress, {"loss": loss, **scores})
        self._tell({"done": share, "step": self.progress.step, **scores})
