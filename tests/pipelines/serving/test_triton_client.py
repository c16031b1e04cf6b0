"""`tritonclient[http]`, as it comes from the registry, against this server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engine.assets import demo_model
from pipelines.serving.requests import AppLimits
from tests.serving import Serving, models_of_files, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    triton: Any = pytest.importorskip(
        "tritonclient.http", reason='needs the extra "kserve": pip install "framewire[kserve]"'
    )

EXACT, CLOSE = 1e-5, 1e-3


@pytest.fixture(scope="module")
def here() -> Iterator[Serving]:
    with serving(models_of_files("demo"), limits=AppLimits()) as running:
        yield running


@pytest.fixture
def client(here: Serving) -> Iterator[Any]:
    with closing(triton.InferenceServerClient(f"127.0.0.1:{here.port}")) as client:
        yield client


def _images(shape: list[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random([1 if size < 0 else size for size in shape], np.float32)


def _input(client: Any, model: str, images: np.ndarray, **options: Any) -> Any:
    [spec] = client.get_model_metadata(model)["inputs"]
    tensor = triton.InferInput(spec["name"], list(images.shape), spec["datatype"])
    return tensor.set_data_from_numpy(images, **options)


def _reference(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))


def test_the_server_and_its_model_are_described(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "1")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_repository_index()[0]["name"] == "demo"
    assert client.get_model_config("demo")["input"][0]["data_type"] == "TYPE_FP32"
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "demo"
    metadata = client.get_model_metadata("demo", "1")
    session = onnxruntime.InferenceSession(str(demo_model()), providers=["CPUExecutionProvider"])
    assert [each["name"] for each in metadata["outputs"]] == [output.name for output in session.get_outputs()]


def test_tensors_are_those_of_onnx_runtime(client: Any) -> None:
    images = _images(client.get_model_metadata("demo")["inputs"][0]["shape"])
    expected = _reference(demo_model(), images)
    result = client.infer("demo", [_input(client, "demo", images)], request_id="7")
    assert result.get_response()["id"] == "7"
    for name, output in expected.items():
        np.testing.assert_allclose(result.as_numpy(name), output, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_one_output_as_json_and_a_packed_request(client: Any, algorithm: str) -> None:
    images = _images(client.get_model_metadata("demo")["inputs"][0]["shape"], 1)
    name, expected = next(iter(_reference(demo_model(), images).items()))
    wanted = triton.InferRequestedOutput(name, binary_data=False)
    tensor = _input(client, "demo", images)
    result = client.infer("demo", [tensor], outputs=[wanted], request_compression_algorithm=algorithm)
    assert [output["name"] for output in result.get_response()["outputs"]] == [name]
    np.testing.assert_allclose(result.as_numpy(name), expected, rtol=EXACT, atol=EXACT)


def test_requests_at_once_each_get_their_own_tensors(client: Any) -> None:
    with closing(triton.InferenceServerClient(client._parsed_url.geturl().split("//")[-1], concurrency=3)) as many:
        shape = many.get_model_metadata("demo")["inputs"][0]["shape"]
        every = [_images(shape, seed) for seed in range(3)]
        pending = [many.async_infer("demo", [_input(many, "demo", images)]) for images in every]
        for images, request in zip(every, pending, strict=True):
            result = request.get_result()
            for name, output in _reference(demo_model(), images).items():
                np.testing.assert_allclose(result.as_numpy(name), output, rtol=EXACT, atol=EXACT)


def test_errors_are_those_of_the_protocol(client: Any) -> None:
    from tritonclient.utils import InferenceServerException

    wrong = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(InferenceServerException, match="expected images") as refused:
        client.infer("demo", [_input(client, "demo", wrong)])
    assert refused.value.status() == "400"
    with pytest.raises(InferenceServerException, match="no model is called"):
        client.get_model_metadata("other")


@pytest.mark.parametrize(("backend", "tolerance"), [("onnxruntime", EXACT), ("openvino", CLOSE)])
def test_yolov8_gives_the_tensors_of_onnx_runtime(data_dir: Path, backend: str, tolerance: float) -> None:
    path = data_dir / "models" / "yolov8n_fp32_dequantised.onnx"
    images = _images([1, 3, 640, 640])
    expected = _reference(path, images)["output0"]
    with serving(models_of_files(f"yolo={path}", backend=backend)) as here:
        with closing(triton.InferenceServerClient(f"127.0.0.1:{here.port}", network_timeout=60)) as client:
            found = client.infer("yolo", [_input(client, "yolo", images)]).as_numpy("output0")
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
