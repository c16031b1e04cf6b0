"""The contract of every backend, held by TensorRT on the fake GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.tensorrt.fake_gpu import FakeMachine
from tests.contract.test_backend import *  # noqa: F403
from tests.contract.test_backend import SIDE, Make

del test_a_broken_file_is_a_model_error  # noqa: F821 it names its own backends


@pytest.fixture(params=[pytest.param(False, id="discrete GPU"), pytest.param(True, id="integrated GPU")])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    machine = FakeMachine(tmp_path, SIDE, is_integrated=request.param)
    return machine.backend
