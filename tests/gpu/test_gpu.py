"""Tests that need a GPU: both CUDA packages, the kernel, and the backend's contract on TensorRT itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.probe import probe_cuda
from engine.backends.tensorrt import backend as tensorrt
from engine.backends.tensorrt.backend import TensorRtBackend
from tests.backends.cuda.cuda_contract import check, open_package
from tests.backends.cuda.test_api import installed
from tests.contract.test_backend import *  # noqa: F403
from tests.contract.test_backend import SIDE, Make
from tests.onnx_models import save_pixel_model

del test_a_broken_file_is_a_model_error  # noqa: F821 it names its own backends

REASON = tensorrt.why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=f"TensorRT cannot run here: {REASON}")]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    model = save_pixel_model(tmp_path / "pixels.onnx", side=SIDE)

    def backend(options: BackendOptions) -> TensorRtBackend:
        settings = {name: getattr(options, name) for name in ("image", "performance", "depth", "max_batch")}
        return TensorRtBackend(model, BackendOptions(**settings, precision="f32", cache_dir=tmp_path))

    return backend


@pytest.mark.parametrize(
    ("package", "module"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda")], ids=["cuda-bindings", "pycuda"]
)
def test_the_package_keeps_the_contract(package: str, module: str):
    if not installed(module):
        pytest.skip(f"{package} is not installed: pip install {package}")
    check(open_package(package), compile_kernels(probe_cuda().gpus[0].compute_capability))


def test_a_thousand_batches_leave_no_memory_behind(make: Make):
    backend = make(BackendOptions(image=ImageInput((SIDE, SIDE)), depth=2, max_batch=3))
    assert isinstance(backend, TensorRtBackend)
    free: list[int] = []
    backend.open()
    for number in range(1000):
        pending = backend.submit({"images": np.full((1 + number % 3, SIDE, SIDE, 3), number % 256, np.uint8)})
        pending.result()
        pending.release()
        if number in (100, 999):
            cuda = backend._opened()
            with cuda.current():
                free.append(cuda.memory()[0])
    backend.close()
    assert free[1] >= free[0] - (1 << 20)
