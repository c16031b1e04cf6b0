"""Which backend and device run a model: those requested, or a clear refusal."""

from __future__ import annotations

import pytest

from engine.assets import demo_model
from engine.backends.choose_device import backend_of_device, check_openvino_device, cuda_index
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.flow.defaults import describe


@pytest.mark.parametrize(
    ("device", "backend", "expected"),
    [
        (None, "auto", ("auto", ())),
        ("cpu", "auto", ("auto", ("tensorrt",))),
        ("CPU", "onnxruntime", ("onnxruntime", ())),
        ("gpu.1", "auto", ("openvino", ())),
        ("npu", "openvino", ("openvino", ())),
        ("cuda:1", "auto", ("tensorrt", ())),
    ],
)
def test_a_device_chooses_its_backend(device: str | None, backend: str, expected: object) -> None:
    assert backend_of_device(device, backend) == expected


@pytest.mark.parametrize(
    ("device", "backend"),
    [("gpu", "onnxruntime"), ("cuda:0", "openvino"), ("cpu", "tensorrt"), ("tpu", "auto"), ("cuda:", "auto")],
)
def test_a_device_that_the_backend_lacks_is_refused(device: str, backend: str) -> None:
    with pytest.raises(ConfigError):
        backend_of_device(device, backend)


def test_the_number_of_a_gpu() -> None:
    assert [cuda_index(each) for each in (None, "cpu", "cuda:0", "CUDA:12")] == [0, 0, 0, 12]


def test_a_device_that_is_missing_is_named_with_those_that_exist() -> None:
    assert check_openvino_device("gpu", ["CPU", "GPU.0", "GPU.1"]) == "GPU"
    assert check_openvino_device("gpu.1", ["CPU", "GPU.0", "GPU.1"]) == "GPU.1"
    with pytest.raises(ConfigError, match="no device NPU here, only CPU"):
        check_openvino_device("npu", ["CPU"])


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_openvino_runs_on_the_device_that_was_asked_for(device: str) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    detector = load_detector(demo_model(), device=device, backend="openvino")
    with detector:
        assert describe(detector).device == "cpu"  # the only one that the machines of the tests have


def test_a_model_is_not_loaded_on_a_device_that_does_not_exist() -> None:
    openvino = pytest.importorskip("openvino", reason="pip install openvino")
    if any(each.startswith("NPU") for each in openvino.Core().available_devices):
        pytest.skip("this machine has an NPU")
    with pytest.raises(ConfigError, match="no device NPU"):
        load_detector(demo_model(), device="npu").open()
