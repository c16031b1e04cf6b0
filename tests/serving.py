"""A server of images in a thread, on models that are quick or that a test controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.backends.base import BackendOptions
from engine.backends.files.base import read_model_file
from engine.backends.select import create_backend
from engine.protocols import Detector
from pipelines.serving.app import OPEN_PATHS, create_app
from pipelines.serving.models import MAX_BATCH, ServedModel, load_models
from pipelines.serving.raw import RawModel
from pipelines.serving.requests import AppLimits, Server
from pipelines.serving.worker import ModelWorker
from pipelines.web.access import Exposure, Gate, GateRules, Listen, ServerLimits
from tests.fakes import PixelDetector
from tests.web_server import PATIENCE_S, running

PLACES = 4


@dataclass(frozen=True)
class Serving:
    """A running server.

    Attributes:
        port: on loopback.
        server: its state.
    """

    port: int
    server: Server


def worker_of(detector: Detector, name: str = "model", **options: Any) -> ModelWorker:
    """Return a worker on a detector, not started."""
    return ModelWorker(detector, name, **{"places": PLACES, "max_wait_ms": 30_000.0, **options})


def model_of(detector: Detector, name: str = "model", **options: Any) -> ServedModel:
    """Return a detector as a model of a server."""
    return ServedModel(name, "detect", worker_of(detector, name, **options), None, None, 0.25)


def tensor_model(path: Path, name: str) -> ServedModel:
    """Return a model file of any kind, of which only the tensors are served."""
    backend = create_backend("onnxruntime", path, BackendOptions(max_batch=MAX_BATCH))
    worker = worker_of(PixelDetector(), name)
    return ServedModel(
        name, "detect", worker, read_model_file(path), RawModel(backend, name, 16, max_batch=MAX_BATCH), 0.25
    )


def models_of_files(*models: str | Path, backend: str = "onnxruntime", **options: Any) -> dict[str, ServedModel]:
    """Return model files, given as `[NAME=]PATH`, as models of a server."""
    given = {"score": None, "settings": [], "places": PLACES, "max_wait_ms": 30_000.0, **options}
    return load_models([str(model) for model in models], backend=backend, **given)


@contextmanager
def serving(
    models: Mapping[str, ServedModel],
    *,
    limits: AppLimits | None = None,
    server_limits: ServerLimits | None = None,
    port: int = 0,
) -> Iterator[Serving]:
    """Serve models on loopback; they are loaded once this yields, and closed at the end."""
    server = Server(models, limits or AppLimits())
    rules = GateRules(
        Exposure(Listen("127.0.0.1", 0)), open_paths=OPEN_PATHS, max_body=server.limits.body_bytes, body_s=2.0
    )
    try:
        for model in models.values():
            model.worker.start()
        for model in models.values():
            model.worker.opened.result(PATIENCE_S)
        with running(Gate(create_app(server), rules), limits=server_limits, port=port) as bound:
            yield Serving(bound, server)
    finally:
        for model in models.values():
            model.close()
        server.decoders.shutdown()


def encoded(kind: str = ".jpg", width: int = 64, height: int = 48, value: int = 7) -> bytes:
    """Return an image of one grey value."""
    done, data = cv2.imencode(kind, np.full((height, width, 3), value, np.uint8))
    assert done
    return bytes(data)
