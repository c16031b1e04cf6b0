#!/usr/bin/env python3
"""Measure what the learning tests leave out because it takes minutes; docs/measurements/learning.md has the results.

usage: python tools/learning_checks.py person DATA --base deimv2_hgnetv2_femto_coco.onnx [--steps 32]
       python tools/learning_checks.py corruptions DATA [--pictures 24]
       python tools/learning_checks.py features

DATA is a folder with `images` and `labels` of COCO's classes, such as coco128. `person` keeps one class of 80, trains
on every second image and compares AP50 on the others. `corruptions` damages images in 12 ways with two seeds.
`features` recognises digits with EfficientNet-Lite0, trained on 100 images of each, also as a second stage.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine import Detections, Frame
from engine.detection.classify import load_classifier
from engine.detection.coco import COCO_NAMES
from engine.detection.second_stage import SecondStage
from pipelines.learning.testing.corruptions import CORRUPTIONS
from pipelines.learning.testing.detectors import DetectorTest, run_detector_test
from pipelines.learning.train.options import Augment, TrainOptions
from pipelines.learning.train.run import TrainRequest, train
from pipelines.scoring.detect import evaluate_detect

PERSON = "person"
STRENGTHS = (1, 3, 5)
SIDE = 8
"""Of a digit, as it is stored."""


def pictures(data: Path) -> list[tuple[Path, Path]]:
    """Return images with their labels, in order of their names."""
    labels = {path.stem: path for path in (data / "labels").rglob("*.txt")}
    images = sorted(path for path in (data / "images").rglob("*.jpg") if path.stem in labels)
    return [(image, labels[image.stem]) for image in images]


def put(found: list[tuple[Path, Path]], folder: Path, part: str, only: int | None = None) -> None:
    """Copy images and labels into a part of a data set; if a class is given, only that one."""
    for image, label in found:
        rows = [row for row in label.read_text().splitlines() if row.strip()]
        if only is not None:
            rows = [f"0 {row.split(maxsplit=1)[1]}" for row in rows if int(row.split()[0]) == only]
        for kind, name, content in (
            ("images", image.name, image.read_bytes()),
            ("labels", label.name, "\n".join(rows).encode()),
        ):
            place = folder / kind / part
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)


def person(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Keep one class of 80: AP50 of people before and after, on images not used for training."""
    found, number = pictures(given.data), COCO_NAMES.index(PERSON)
    put(found[::2], folder, "train", number)
    put(found[1::2], folder, "val", number)
    (folder / "data.yaml").write_text(f"names: [{PERSON}]\n")
    epochs = given.steps * 4 / len(found[::2])
    options = TrainOptions(given.arch, base=given.base, epochs=epochs, lr=1e-4, augment=Augment(scale=(0.8, 1.25)))
    result = train(TrainRequest(folder, folder / "runs", options), lambda fields: print(fields, flush=True))
    scores = [
        evaluate_detect(model, folder / "images" / "val", folder / "labels" / "val").per_class[PERSON]
        for model in (given.base, result["model"])
    ]
    kept = {"pictures": len(found[::2]), "tested": len(found[1::2]), "steps": result["steps"]}
    named = zip(("before", "after"), scores, strict=True)
    return {**kept, **{name: {"ap50": one.ap50, "ap50_95": one.ap50_95} for name, one in named}}


def corruptions(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Damage images with two seeds; report whether each kind lowers mAP and how similar the order of the kinds is."""
    put(pictures(given.data)[: given.pictures], folder, "val")
    place, labels = folder / "images" / "val", folder / "labels" / "val"
    tests = [
        run_detector_test(DetectorTest(given.model, place, labels, strengths=STRENGTHS, seed=seed)) for seed in (0, 1)
    ]
    means = [[test["corruptions"]["mean_by_kind"][kind] for kind in CORRUPTIONS] for test in tests]
    ranks = np.argsort(np.argsort(np.array(means), axis=1), axis=1)
    plain = evaluate_detect(given.model, place, labels).map50_95
    return {
        "clean": tests[0]["map50_95"],
        "plain_eval": round(plain, 4),
        "by_kind": dict(zip(CORRUPTIONS, zip(*means, strict=True), strict=True)),
        "all_lower": bool((np.array(means) < plain).all()),
        "rank_correlation": round(float(np.asarray(np.corrcoef(ranks))[0, 1]), 3),
    }


def _write_digits(folder: Path) -> list[NDArray[np.uint8]]:
    """Write 100 images of each digit to train on, and 30 to test, and return those."""
    from sklearn.datasets import load_digits

    digits, held = load_digits(), []
    for number in range(10):
        for count, row in enumerate(np.flatnonzero(digits.target == number)[:130]):
            image = _image_of(digits.images[row])
            place = folder / ("train" if count < 100 else "test") / str(number)
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{row}.png"), image)
            held += [image] if count >= 100 else []
    return held


def _image_of(digit: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (8, 8) values from 0 to 16 as a (8, 8, 3) uint8 BGR image."""
    grey = (digit / 16 * 255).round().astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def features(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Recognise digits by frozen features, and compare the written file with the engine's second stage."""
    from pipelines.learning.classic.train import ClassicOptions, train_classic
    from pipelines.learning.train.pretrained import efficientnet_lite0

    held = _write_digits(folder / "digits")
    out = folder / "digits.onnx"
    result = train_classic(folder / "digits", out, ClassicOptions("features", base=efficientnet_lite0()))
    with load_classifier(out) as classifier:
        direct = classifier.probabilities(held, crop=False).argmax(axis=1)
    stage, wall = SecondStage(load_classifier(out), top=1), np.concatenate(held, axis=1)
    left = np.arange(len(held)) * SIDE
    boxes = np.stack((left, left * 0, left + SIDE, left * 0 + SIDE), axis=1).astype(np.float32)
    said = stage.classify(Frame(wall), Detections(boxes, np.ones(len(held)), np.zeros(len(held), int)))
    stage.close()
    alike = float((said.extra["classes"][:, 0, 0].astype(int) == direct).mean())
    return {"accuracy": result.accuracy, "learnt": result.learnt, "held_back": result.held_back, "second_stage": alike}


def main() -> None:
    """Run one check and print its results as JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("check", choices=["person", "corruptions", "features"])
    options.add_argument("data", type=Path, nargs="?")
    options.add_argument("--base")
    options.add_argument("--arch", default="deimv2-femto")
    options.add_argument("--model", default="demo")
    options.add_argument("--steps", type=int, default=32)
    options.add_argument("--pictures", type=int, default=24)
    given = options.parse_args()
    if given.data is None and given.check != "features":
        options.error(f"{given.check} needs DATA")
    if given.base is None and given.check == "person":
        options.error("person needs --base FILE.onnx")
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps({given.check: globals()[given.check](given, Path(scratch))}))


if __name__ == "__main__":
    main()
