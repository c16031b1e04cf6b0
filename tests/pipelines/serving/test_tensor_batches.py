"""Tensors of several requests in one inference, and each request gets its own rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from engine.backends.base import BackendOptions
from engine.backends.select import create_backend
from pipelines.serving.raw import RawModel
from pipelines.serving.refusals import BusyError, NotReadyError
from tests.onnx_models import save_model, save_pixel_model
from tests.web_server import PATIENCE_S

REQUESTS, MAX_BATCH = 12, 8


def save_selecting_model(path: Path) -> Path:
    """Write a model that returns the rows above a half: as many as there are, like boxes."""
    nodes = [
        helper.make_node("Greater", ["rows", "half"], ["is_high"]),
        helper.make_node("Squeeze", ["is_high", "axis"], ["flat"]),
        helper.make_node("Compress", ["rows", "flat"], ["found"], axis=0),
    ]
    weights = {"half": np.float32(0.5), "axis": np.array([1], np.int64)}
    return save_model(path, nodes, {"rows": ("batch", 1)}, {"found": ("found", 1)}, weights)


@contextmanager
def running(path: Path, *, places: int = REQUESTS, max_wait_ms: float | None = None) -> Iterator[RawModel]:
    backend = create_backend("onnxruntime", path, BackendOptions(max_batch=MAX_BATCH))
    model = RawModel(backend, "model", places, max_batch=MAX_BATCH, max_wait_ms=max_wait_ms)
    try:
        yield model
    finally:
        model.close()


def test_requests_that_wait_share_an_inference_and_each_gets_its_own_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = [rng.random((1 + n % 2, 3, 8, 8), np.float32) for n in range(REQUESTS)]
    with running(save_pixel_model(tmp_path / "model.onnx")) as model:
        asked = [model.submit({"images": each}) for each in images]  # while the model is being loaded
        for each, future in zip(images, asked, strict=True):
            outputs = future.result(PATIENCE_S)
            np.testing.assert_allclose(outputs["doubled"], 2 * each, rtol=1e-6)
            np.testing.assert_allclose(outputs["means"], each.mean(axis=(2, 3)), rtol=1e-5)
        assert model.done == REQUESTS == sum(size * n for size, n in model.batches.items())
        assert max(model.batches) > 1, "no two shared an inference"
        assert sum(model.batches.values()) < REQUESTS


def test_requests_of_other_shapes_do_not_share(tmp_path: Path) -> None:
    with running(save_pixel_model(tmp_path / "model.onnx", side="side")) as model:
        images = [np.full((1, 3, 4 + n % 3, 4 + n % 3), n, np.float32) for n in range(REQUESTS)]
        asked = [model.submit({"images": each}) for each in images]
        for each, future in zip(images, asked, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_S)["doubled"], 2 * each)


def test_a_model_that_returns_as_many_rows_as_it_finds_is_run_request_by_request(tmp_path: Path) -> None:
    with running(save_selecting_model(tmp_path / "model.onnx")) as model:
        rows = [np.array([[n / REQUESTS]], np.float32) for n in range(REQUESTS)]
        asked = [model.submit({"rows": each}) for each in rows]
        for each, future in zip(rows, asked, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_S)["found"], each[each[:, 0] > 0.5])
        assert dict(model.batches) == {1: REQUESTS}


def test_without_a_free_place_or_in_time_a_request_is_refused(tmp_path: Path) -> None:
    image = {"images": np.zeros((1, 3, 8, 8), np.float32)}
    with running(save_pixel_model(tmp_path / "model.onnx"), places=2, max_wait_ms=0.001) as model:
        asked = [model.submit(image) for _ in range(2)]
        with pytest.raises(BusyError, match="queue for model is full"):
            model.submit(image)
        for future in asked:
            with pytest.raises(BusyError, match="waited longer"):
                future.result(PATIENCE_S)
    with pytest.raises(NotReadyError):
        model.submit(image)
