"""Trains a classifier of crops and scores it, as the engine will run it, on held-out images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.detection.classify import centre_crop, load_image_classifier
from engine.detection.words.classifier import descriptors, histogram
from engine.detection.words.file import SUFFIX, WordsModel, write_words
from engine.errors import ConfigError
from engine.optional import require
from engine.sources.preparation import Preparation
from pipelines.learning.classic.backbone import Backbone
from pipelines.learning.classic.crops import Crops, Image, read_crops
from pipelines.learning.classic.graph import GraphBuilder, linear, support_vectors
from pipelines.learning.classic.hog import CELL, hog
from pipelines.learning.classic.machine import fit_linear, fit_machine
from pipelines.scoring.detect import Progress

METHODS = ("hog-svm", "sift-words", "features")
HOG_SIZE = 32
WORDS = 64
WORDS_SIDE = 160
SAMPLES_PER_WORD = 150
"""Number of descriptors from which the vocabulary is built; more take longer and change little."""
BATCH = 32
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassicOptions:
    """How to train.

    Attributes:
        method: one of `METHODS`.
        size: side of the image for HOG in pixels, a multiple of 8; None: 32.
        words: size of the vocabulary for SIFT.
        base: pretrained classifier in ONNX for features.
        whole_frames: images are whole frames, cropped at the centre as in the engine; False: crops, stretched.
        holdout: share of each class to hold out, if the folder has no split.
        seed: of every random choice.
        preparation: applied to each image.
    """

    method: str
    size: int | None = None
    words: int = WORDS
    base: Path | None = None
    whole_frames: bool = False
    holdout: float = 0.25
    seed: int = 0
    preparation: Preparation | None = None


@dataclass(frozen=True, slots=True)
class ClassicResult:
    """The trained model and its scores on held-out images.

    Attributes:
        file: the model.
        method: how it was trained.
        accuracy: share of held-out images classified correctly.
        balanced: mean of that share over the classes.
        learnt: number of training images.
        held_back: number of images scored.
        confusion: (true, found) counts by class id.
        class_names: by class id.
        data_sha256: of all images with their classes.
    """

    file: str
    method: str
    accuracy: float
    balanced: float
    learnt: int
    held_back: int
    confusion: list[list[int]]
    class_names: list[str]
    data_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def train_classic(folder: Path, out: Path, options: ClassicOptions, progress: Progress | None = None) -> ClassicResult:
    """Train on a folder with one subfolder per class, write the model and return its scores.

    Args:
        folder: of the images.
        out: file of the model.
        options: how.
        progress: called with the number of images whose features are known, and their total.

    Raises:
        ConfigError: an option or the data is invalid.
        MissingDependencyError: scikit-learn or onnx is not installed.
        ModelError: the base is not a classifier.
    """
    _check(out, options)
    crops = read_crops(folder, holdout=options.holdout, seed=options.seed, preparation=options.preparation)
    images, class_id = crops.part(test=False)
    facts = {"method": options.method, "data_sha256": crops.sha256, "learnt": str(len(images))}
    pools = require("threadpoolctl", extra="classic")
    with pools.threadpool_limits(1):  # with more, threads wait for each other for minutes on a busy machine
        _TRAINERS[options.method](_Lesson(images, class_id, crops.class_names, out, options, facts, progress))
    return score_crops(out, crops, options)


def score_crops(model: Path, crops: Crops, options: ClassicOptions) -> ClassicResult:
    """Return the scores of a model on the held-out part, run by the engine."""
    images, truth = crops.part(test=True)
    classifier = load_image_classifier(model)
    try:
        found = classifier.probabilities(images, crop=options.whole_frames).argmax(axis=1)
    finally:
        classifier.close()
    count = len(crops.class_names)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (truth, found), 1)
    recall = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
    return ClassicResult(
        file=str(model),
        method=options.method,
        accuracy=round(float((truth == found).mean()), 4),
        balanced=round(float(recall.mean()), 4),
        learnt=int((~crops.is_test).sum()),
        held_back=len(truth),
        confusion=confusion.tolist(),
        class_names=list(crops.class_names),
        data_sha256=crops.sha256,
    )


def _check(out: Path, options: ClassicOptions) -> None:
    if options.method not in _TRAINERS:
        hint = " (OpenCV has SURF in its non-free modules only: use sift-words)" if "surf" in options.method else ""
        raise ConfigError(f"--with {options.method}: expected one of {', '.join(METHODS)}, resnet50, cnn{hint}")
    suffix = SUFFIX if options.method == "sift-words" else ".onnx"
    check_out(out, suffix, options.method)
    if options.size is not None and (options.size % CELL or not 16 <= options.size <= 256):
        raise ConfigError(f"size {options.size}: expected a multiple of {CELL} between 16 and 256")
    if not 4 <= options.words <= 4096:
        raise ConfigError(f"words {options.words}: expected 4 to 4096")
    if options.method == "features" and options.base is None:
        raise ConfigError(
            "--with features needs a pretrained classifier: give --base FILE.onnx, or --base efficientnet-lite0"
        )
    if options.method != "features" and options.base is not None:
        raise ConfigError(f"--base {options.base}: {options.method} starts from scratch: leave it out, or use features")


def check_out(out: Path, suffix: str, method: str) -> None:
    """Raise `ConfigError` if a model of this suffix could not be written there."""
    if out.suffix.lower() != suffix:
        raise ConfigError(f"{out}: {method} writes a {suffix} file: choose {out.with_suffix(suffix)}")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}: create it first")


def _metadata(names: Sequence[str], size_hw: tuple[int, int], facts: dict[str, str]) -> dict[str, str]:
    own = {f"framewire_{key}": value for key, value in facts.items()}
    return {"task": "classify", "names": str(dict(enumerate(names))), "imgsz": str(list(size_hw)), **own}


@dataclass(frozen=True)
class _Lesson:
    """The training data and the output of a classifier; trainers add to `facts`."""

    images: list[Image]
    class_id: NDArray[np.int64]
    names: Sequence[str]
    out: Path
    options: ClassicOptions
    facts: dict[str, str]
    progress: Progress | None = None


def _train_hog(lesson: _Lesson) -> None:
    size = lesson.options.size or HOG_SIZE
    graph = GraphBuilder()
    output = hog(graph, "images", size)
    features = run_graph(graph, output, (size, size), lesson.images, lesson.options, lesson.progress)
    machine = fit_machine(features, lesson.class_id, lesson.options.seed)
    scores = support_vectors(graph, output, machine.arrays())
    lesson.facts["chosen"] = str(machine.chosen)
    graph.save(lesson.out, (size, size), scores, len(lesson.names), _metadata(lesson.names, (size, size), lesson.facts))


def _train_words(lesson: _Lesson) -> None:
    cluster = require("sklearn.cluster", extra="classic")
    found = []
    for image in lesson.images:
        found.append(descriptors(image, WORDS_SIDE))
        if lesson.progress is not None:
            lesson.progress(len(found), len(lesson.images))
    every = np.concatenate(found)
    if len(every) < lesson.options.words:
        raise ConfigError(
            f"{len(every)} SIFT keypoints in all images: too few for {lesson.options.words} words: the images are "
            "too plain or too small; use hog-svm"
        )
    every = np.random.default_rng(lesson.options.seed).permutation(every)[: lesson.options.words * SAMPLES_PER_WORD]
    means = cluster.MiniBatchKMeans(lesson.options.words, random_state=lesson.options.seed, n_init=3)
    words = means.fit(every).cluster_centers_.astype(np.float32)
    histograms = np.stack([histogram(one, words) for one in found])
    machine = fit_machine(histograms, lesson.class_id, lesson.options.seed)
    values = (machine.support, machine.weights, machine.bias, machine.gamma, machine.scale)
    lesson.facts["chosen"] = str(machine.chosen)
    write_words(lesson.out, WordsModel(tuple(lesson.names), words, *values, WORDS_SIDE, lesson.facts))


def _train_features(lesson: _Lesson) -> None:
    if lesson.options.base is None:
        raise ConfigError("features need a base")
    backbone = Backbone(lesson.options.base)
    size_hw, stages = backbone.facts.image.size_hw, backbone.stages()
    graph, output = backbone.add_to(stages)
    features = run_graph(graph, output, size_hw, lesson.images, lesson.options, lesson.progress)
    fitted = fit_linear(features, lesson.class_id, lesson.options.seed)
    if stages:
        plain, last = backbone.add_to()
        width = run_graph(plain, last, size_hw, lesson.images[:1], lesson.options).shape[1]
        alone = fit_linear(features[:, :width], lesson.class_id, lesson.options.seed)
        if alone.accuracy >= fitted.accuracy:
            graph, output, fitted, stages = plain, last, alone, []
    scores = linear(graph, output, fitted.weights, fitted.bias)
    chosen = {**fitted.chosen, "layers": 1 + len(stages)}
    lesson.facts.update(chosen=str(chosen), base=lesson.options.base.name)
    graph.save(lesson.out, size_hw, scores, len(lesson.names), _metadata(lesson.names, size_hw, lesson.facts))


_TRAINERS: dict[str, Callable[[_Lesson], None]] = {
    "hog-svm": _train_hog,
    "sift-words": _train_words,
    "features": _train_features,
}


def run_graph(
    graph: GraphBuilder,
    output: str,
    size_hw: tuple[int, int],
    images: Sequence[Image],
    options: ClassicOptions,
    progress: Progress | None = None,
) -> Floats:
    """Return (N, D) float32: the output of an unfinished graph for each image, fed as the engine will feed it."""
    runtime = require("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.onnx"
        graph.save(path, size_hw, output, "features", {})
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fixed = graph.batch if isinstance(graph.batch, int) else BATCH
    parts = []
    for start in range(0, len(images), fixed):
        batch = _batch(images[start : start + fixed], size_hw, whole=options.whole_frames)
        missing = fixed - len(batch) if isinstance(graph.batch, int) else 0
        padded = np.concatenate((batch, np.zeros((missing, *batch.shape[1:]), np.float32)))
        parts.append(session.run(None, {"images": padded})[0][: len(batch)])
        if progress is not None:
            progress(min(start + fixed, len(images)), len(images))
    return np.concatenate(parts)


def _batch(images: Sequence[Image], size_hw: tuple[int, int], *, whole: bool) -> Floats:
    rows, columns = size_hw
    scaled = [centre_crop(image, size_hw) if whole else cv2.resize(image, (columns, rows)) for image in images]
    batch = np.stack(scaled)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(batch / np.float32(255))
