"""The models of a server by name: loaded as `framewire detect` loads them, or as classifiers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.assets import demo_model
from engine.backends.base import Backend, BackendOptions, TensorSpec
from engine.backends.files.base import ModelFile, read_model_file
from engine.backends.select import create_backend, select_backend
from engine.errors import ConfigError
from engine.flow.defaults import describe
from engine.protocols import Detector
from engine.registry import is_reference
from pipelines.build.detector import CLASSIC, DEMO, build_detector, least_score, tiled
from pipelines.config.file import load_config
from pipelines.config.models import Config
from pipelines.serving.answers import ModelCard, ModelMetadata
from pipelines.serving.raw import Outputs, RawModel
from pipelines.serving.refusals import RefusedError
from pipelines.serving.tensors import tensor_metadata
from pipelines.serving.worker import ModelWorker

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
CLASSIFY = "classify"
MAX_METADATA_CHARS, MAX_METADATA_KEYS = 100_000, 64
PLANS = (".plan", ".engine")
MAX_BATCH = 32
"""Largest first size of a tensor whose model leaves it open."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the server.

    Attributes:
        name: as given in requests.
        task: `detect`, ... or `classify`.
        worker: runs it on images.
        file: the facts in the model's file; None for a detector without one.
        raw: runs it on tensors; None for a detector without a file.
        score_threshold: the lowest score that it reports.
    """

    name: str
    task: str
    worker: ModelWorker
    file: ModelFile | None
    raw: RawModel | None
    score_threshold: float

    def card(self) -> ModelCard:
        """Return the information for clients."""
        detector = self.worker.detector
        backend = describe(detector).backend
        names = list(detector.class_names)
        return ModelCard(self.name, self.task, names, self.worker.is_ready, backend, self.score_threshold)

    def tensors(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return inputs and outputs. Raises `RefusedError` for a model without tensors."""
        if self.file is None:
            raise RefusedError(f"{self.name} has no tensors: use /v1/detect", 404)
        return self.file.inputs, self.file.outputs

    def ask(self, feeds: Mapping[str, Any]) -> Future[Outputs]:
        """Run the model on (b, ...) tensors by name. Raises `RefusedError`."""
        if self.raw is None or self.file is None:
            raise RefusedError(f"{self.name} has no tensors: use /v1/detect", 404)
        sizes = {len(feeds[spec.name]) for spec in self.file.inputs if spec.shape[:1] == (None,)}
        if max(sizes, default=0) > MAX_BATCH:
            raise RefusedError(f"a batch of {max(sizes)}: at most {MAX_BATCH}", 413)
        return self.raw.submit(feeds)

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self.worker.close()
        if self.raw is not None:
            self.raw.close()

    def metadata(self) -> ModelMetadata:
        """Return the metadata of the Open Inference Protocol."""
        inputs, outputs = self.tensors()
        return ModelMetadata(
            self.name,
            ["1"],
            f"framewire_{self.card().backend}",
            [tensor_metadata(spec) for spec in inputs],
            [tensor_metadata(spec) for spec in outputs],
            _shown(self),
        )


def _shown(model: ServedModel) -> dict[str, str]:
    """Return what a remote detector needs besides the tensors: the file's metadata as text, and the class names."""
    metadata = {} if model.file is None else model.file.metadata
    shown = {str(key): str(value) for key, value in list(metadata.items())[:MAX_METADATA_KEYS]}
    shown["class_names"] = json.dumps(list(model.worker.detector.class_names))
    return {key: text for key, text in shown.items() if len(text) <= MAX_METADATA_CHARS}


def named_model(text: str) -> tuple[str, str]:
    """Return name and path of `[NAME=]MODEL`; without a name, that of the file.

    Raises:
        ConfigError: a name with characters other than letters, digits, dots, dashes and underscores.

    >>> named_model("street=yolo11n.onnx"), named_model("models/yolo11n_openvino_model/"), named_model("demo")
    (('street', 'yolo11n.onnx'), ('yolo11n_openvino_model', 'models/yolo11n_openvino_model/'), ('demo', 'demo'))
    """
    name, sign, path = text.partition("=")
    if not sign or os.path.lexists(text) or "/" in name:
        place = Path(text)
        stem = place.stem if place.suffix.lower() in (".onnx", ".xml", ".tflite", ".plan", ".engine") else place.name
        return _NOT_IN_NAMES.sub("_", stem).lstrip("._-")[:64] or "model", text
    if not NAME.fullmatch(name):
        raise ConfigError(f"model name {name!r}: expected up to 64 letters, digits, dots, dashes and underscores")
    return name, path


def load_models(
    models: Sequence[str],
    *,
    backend: str,
    score: float | None,
    settings: Sequence[str],
    places: int,
    max_wait_ms: float,
) -> dict[str, ServedModel]:
    """Return the models by name, checked but not loaded.

    Args:
        models: `[NAME=]MODEL` each.
        backend: `auto` or a name.
        score: the lowest score to report; None: 0.25, and 0 for classifiers.
        settings: `key=value` texts of keys of `detector:`, for all models.
        places: maximum number of waiting and running requests per model.
        max_wait_ms: how long a request may wait.

    Raises:
        ConfigError: an argument is invalid, or two models have the same name.
        ModelError: a file that cannot be used.
    """
    found: dict[str, ServedModel] = {}
    for text in models:
        name, path = named_model(text)
        if name in found:
            raise ConfigError(f"two models are called {name}: name them, as in --model street={path}")
        overrides: dict[str, Any] = {"detector.model": path, "detector.backend": backend}
        file, task = _task(path)
        overrides["detector.task"] = CLASSIFY if task == CLASSIFY else "detect"
        least = score if score is not None else (0.0 if task == CLASSIFY else None)
        if least is not None:
            overrides["detector.score_threshold"] = least
        config = load_config(None, overrides, [f"detector.{each}" for each in settings])
        worker = ModelWorker(_detector(config, places), name, places=places, max_wait_ms=max_wait_ms)
        raw = None if file is None else _raw(file, config, name, places, max_wait_ms)
        found[name] = ServedModel(name, task, worker, file, raw, least_score(config.detector, worker.detector))
    return found


def _detector(config: Config, places: int) -> Detector:
    return tiled(config, build_detector(config, [], at_once=places))


def _task(path: str) -> tuple[ModelFile | None, str]:
    """Return the facts in the file (None for a detector without one) and its task."""
    if path in CLASSIC or is_reference(path):
        return None, "detect"
    file = read_model_file(demo_model() if path == DEMO else path)
    task = str(file.metadata.get("task", "") or "")
    only = file.outputs[0].shape if len(file.outputs) == 1 else ()
    if task in ("classify", "classification") or (not task and len(only) == 2):
        return file, CLASSIFY
    return file, task or "detect"


def _raw(file: ModelFile, config: Config, name: str, places: int, max_wait_ms: float) -> RawModel:
    """Return the runner for tensor requests."""
    most = 1 if _is_plan(file) else MAX_BATCH
    return RawModel(_tensor_backend(file, config), name, places, max_batch=most, max_wait_ms=max_wait_ms)


def _is_plan(file: ModelFile) -> bool:
    return file.path.suffix.lower() in PLANS


def _tensor_backend(file: ModelFile, config: Config) -> Backend:
    """Return the backend for the model's own tensors, in the arithmetic of its file.

    Never a plan that `auto` would build.
    """
    options: Mapping[str, Any] = config.detector.model_dump(include={"depth", "precision", "threads", "cache_dir"})
    wanted = config.detector.backend
    only_plan = _is_plan(file)
    name, _ = select_backend(file.path, wanted, without=() if only_plan or wanted != "auto" else ("tensorrt",))
    return create_backend(name, file.path, BackendOptions(max_batch=1 if only_plan else MAX_BATCH, **options))
