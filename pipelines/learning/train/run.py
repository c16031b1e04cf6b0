"""One training run from the parent's side: its folder, manifest, curves and scores."""

from __future__ import annotations

import csv
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from engine.boxes import xyxy_from_cxcywh
from engine.catalogue import CATALOGUE
from engine.detection.classify import load_image_classifier
from engine.detection.load import load_detector
from engine.errors import ConfigError
from pipelines.learning.child import Tell, run_in_child, threads
from pipelines.learning.json_files import read_json, write_json
from pipelines.learning.lock import check_lock
from pipelines.learning.model_facts import sha256_of, stamp
from pipelines.learning.testing.pictures import curves
from pipelines.learning.train.bases import refuse
from pipelines.learning.train.data import Listing, list_objects, list_pictures
from pipelines.learning.train.options import CLASSIFIERS, ULTRALYTICS, TrainOptions, options_from
from pipelines.scoring.detect import EVAL_IOU, EVAL_SCORE, score_detector
from pipelines.scoring.labels import Truth

logger = logging.getLogger(__name__)
PACKAGES = ("framewire", "torch", "torchvision", "libreyolo", "numpy", "opencv-python", "onnx")
SCRATCH_PICTURES = 1000
HOLDOUT = 0.2
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """A run to make.

    Attributes:
        data: data set.
        runs: folder of the runs; the new one gets a number.
        options: how.
        classes: names, if the data set does not state them.
        trials: number of trials in a search before training; 0: no search.
        resume: folder of an interrupted run to continue, instead of the other fields.
        repeat: folder of an earlier run to repeat from its manifest, instead of data, options and classes.
        expected_sha256: of the images and labels; None: any.
    """

    data: Path
    runs: Path
    options: TrainOptions | None
    classes: Sequence[str] | None = None
    trials: int = 0
    resume: Path | None = None
    repeat: Path | None = None
    expected_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is about to start."""

    folder: Path
    options: TrainOptions
    listing: Listing
    trials: int
    resumes: bool


def train(request: TrainRequest, tell: Tell | None = None) -> dict[str, Any]:
    """Train, export, score the exported file with the engine, and return the summary.

    Raises:
        ConfigError: the data, the base or an option is invalid.
        ModelError: the base does not fit the architecture.
        MissingDependencyError: torch or another package is missing.
        LearningError: the training failed.
    """
    run = _resumed(request.resume) if request.resume is not None else _begun(request)
    listing = run.folder / "listing.json"
    run.listing.write(listing)
    asked = {"folder": str(run.folder), "listing": str(listing), "options": run.options.as_dict()}
    result = run_in_child("train", {**asked, "trials": run.trials, "resume": run.resumes}, tell)
    return _finish(run.folder, options_from(result["options"]), run.listing, result)


def _begun(request: TrainRequest) -> _Run:
    """Check the request, and create the folder of a new run with its manifest."""
    if request.repeat is not None:
        request = _repeated(request.repeat, request.runs)
    options = request.options
    if options is None:
        raise ConfigError("neither options nor a run to resume or repeat")
    _check_base(options)
    check_lock(request.data)
    listing = _list(request.data, options, request.classes)
    if request.expected_sha256 not in (None, listing.sha256):
        raise ConfigError(f"{request.data}: its images or labels have changed since that run: begin a new one")
    folder = _new_folder(request.runs)
    _warn_from_scratch(options, len(listing.train))
    _write_manifest(folder, request, options, listing)
    return _Run(folder, options, listing, request.trials, resumes=False)


def _repeated(folder: Path, runs: Path) -> TrainRequest:
    """Return the request of an earlier run. Raises `ConfigError` if its base has changed."""
    path = folder / MANIFEST
    manifest = read_json(path)
    try:
        options = options_from(manifest["options"])
        names = [str(name) for name in manifest["class_names"]] if options.is_detector else None
        data, expected, base = Path(manifest["data"]), str(manifest["data_sha256"]), manifest["base_sha256"]
        trials = 0 if "model_sha256" in manifest else int(manifest["trials"])  # the result of a finished search
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not the manifest of a run ({type(error).__name__}: {error})") from error
    if options.base is not None and base != _hash_of(Path(options.base)):
        raise ConfigError(f"{options.base}: not the file that {folder} began with, whose SHA-256 is {base}")
    return TrainRequest(data, runs, options, names, trials, expected_sha256=expected)


def _hash_of(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def _check_base(options: TrainOptions) -> None:
    refuse(options.arch, options.base)
    if options.base is not None and not Path(options.base).is_file():
        raise ConfigError(f"{options.base}: no such base: give an ONNX file or a checkpoint, or --base none")


def _list(data: Path, options: TrainOptions, classes: Sequence[str] | None) -> Listing:
    return (
        list_objects(data, classes, options.seed) if options.is_detector else list_pictures(data, HOLDOUT, options.seed)
    )


def _warn_from_scratch(options: TrainOptions, count: int) -> None:
    if options.base is None and options.arch != "cnn" and count < SCRATCH_PICTURES:
        logger.warning(
            "%s trains from scratch on %d images: expect a small share of what a pretrained base (--base, --weights) "
            "reaches in the same time; from scratch it takes thousands of images and hours%s",
            options.arch,
            count,
            f". The base: framewire models get {options.arch}" if options.arch in CATALOGUE else "",
        )


def _new_folder(runs: Path) -> Path:
    """Create the next numbered folder. Raises `ConfigError` if that fails."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in runs.iterdir() if path.name.isdecimal()), default=0) + 1
        folder = runs / f"{number:04d}"
        folder.mkdir()
    except OSError as error:
        raise ConfigError(f"{runs}: no run can be stored there ({error.strerror or error})") from error
    return folder


def _write_manifest(folder: Path, request: TrainRequest, options: TrainOptions, listing: Listing) -> None:
    """Write everything needed to repeat this run."""
    manifest = {
        "format": "framewire-run-1",
        "data": str(request.data.resolve()),
        "data_sha256": listing.sha256,
        "pictures": {"train": len(listing.train), "val": len(listing.val)},
        "class_names": list(listing.class_names),
        "options": options.as_dict(),
        "trials": request.trials,
        "base_sha256": None if options.base is None else sha256_of(Path(options.base)),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(threads()),
    }
    write_json(folder / MANIFEST, manifest)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _resumed(folder: Path) -> _Run:
    """Return an interrupted run. Raises `ConfigError` if its data have changed."""
    asked = _repeated(folder, folder.parent)
    if asked.options is None:
        raise ConfigError(f"{folder}: its manifest has no options")
    check_lock(asked.data)
    listing = _list(asked.data, asked.options, asked.classes)
    if listing.sha256 != asked.expected_sha256:
        raise ConfigError(f"{folder}: its images or labels have changed since it began: begin a new run")
    return _Run(folder, asked.options, listing, asked.trials, resumes=True)


def _finish(folder: Path, options: TrainOptions, listing: Listing, result: dict[str, Any]) -> dict[str, Any]:
    """Stamp the model, score it with the engine, draw the curves, and return the summary."""
    model = folder / "model.onnx"
    manifest = read_json(folder / MANIFEST)
    licence = {"licence": "AGPL-3.0"} if options.arch in ULTRALYTICS else {}
    facts = {
        **licence,
        "arch": options.arch,
        "data_sha256": listing.sha256,
        "run": folder.name,
        "steps": str(result["steps"]),
    }
    if not options.is_detector:
        facts_of_task = {"task": "classify", "imgsz": str([result["size"]] * 2)}
        _set_properties(model, facts_of_task)
    stamp(model, facts, listing.class_names)
    scores = score_detector_run(model, listing) if options.is_detector else score_classifier_run(model, listing)
    write_json(folder / "scores.json", scores)
    _draw_curves(folder)
    write_json(
        folder / MANIFEST, {**manifest, "options": options.as_dict(), "model_sha256": sha256_of(model), **_done(result)}
    )
    return {"run": str(folder), "model": str(model), "arch": options.arch, **_done(result), "val": scores}


def _set_properties(path: Path, values: dict[str, str]) -> None:
    from engine.optional import require

    onnx = require("onnx", extra="train")
    model = onnx.load(str(path))
    known = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    require("onnx.helper", extra="train").set_model_props(model, known | values)
    onnx.save(model, str(path))


def _done(result: dict[str, Any]) -> dict[str, Any]:
    return {"steps": result["steps"], "seconds": result["seconds"]}


def score_detector_run(model: Path, listing: Listing) -> dict[str, Any]:
    """Return the scores of an exported detector on the validation part, run by the engine."""
    truth = [_truth(entry) for entry in listing.val]
    with load_detector(model, score_threshold=EVAL_SCORE, iou_threshold=EVAL_IOU, try_first=True) as detector:
        return score_detector(detector, truth).as_dict()


def _truth(entry: dict[str, Any]) -> Truth:
    rows = np.array(entry["boxes"], np.float32).reshape(-1, 5)
    classes, xyxy = rows[:, 0].astype(np.int32), xyxy_from_cxcywh(rows[:, 1:])
    return Truth(Path(entry["image"]), xyxy, classes, np.zeros(len(rows), bool), normalised=True)


def score_classifier_run(model: Path, listing: Listing) -> dict[str, Any]:
    """Return the accuracy of an exported classifier on the validation part, run by the engine."""
    from pipelines.learning.testing.classifiers import scores_of
    from pipelines.scoring.pictures import read_picture

    images = [read_picture(Path(entry["image"])) for entry in listing.val]
    classifier = load_image_classifier(model)
    try:
        probability = classifier.probabilities(images, crop=False)
    finally:
        classifier.close()
    return scores_of(probability, np.array([entry["class_id"] for entry in listing.val]), listing.class_names)


def _draw_curves(folder: Path) -> None:
    """Plot loss (as a share of its largest value) and scores over the share of the run."""
    path = folder / "curves.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in ("loss", "map50", "map50_95", "accuracy") if name in rows[0]]
    last = max(float(rows[-1]["step"]), 1.0)
    series = {}
    for name in names:
        values = np.nan_to_num([float(row[name]) for row in rows])
        top = max(float(values.max()), 1e-9) if name == "loss" else 1.0
        label = f"loss / {top:.3g}" if name == "loss" else name
        series[label] = ([float(row["step"]) / last for row in rows], (values / top).tolist())
    (folder / "curves.svg").write_text(curves(series, f"share of {last:.0f} steps", "score"), encoding="utf-8")


def default_options(arch: str, **values: Any) -> TrainOptions:
    """Return the options with defaults that suit the architecture: larger batches for classifiers."""
    known = {key: value for key, value in values.items() if value is not None}
    options = TrainOptions(arch, **known)
    return replace(options, batch=32) if arch in CLASSIFIERS and "batch" not in known else options
