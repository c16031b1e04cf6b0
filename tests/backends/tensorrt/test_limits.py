"""Limits of a build: the memory of a Jetson, and its deep learning accelerators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.backends.tensorrt.api import Messages, TensorRt
from engine.backends.tensorrt.build_plan import BuildOptions, _fill_profile, _use_dla, with_memory_limit
from engine.errors import ConfigError
from engine.testing.cuda import FAKE_GPU

JETSON = replace(FAKE_GPU, is_integrated=True)


@pytest.mark.parametrize(
    ("gpu", "asked", "expected"),
    [
        pytest.param(JETSON, None, 1000, id="a quarter of what is free on an integrated GPU"),
        pytest.param(JETSON, 300, 300, id="what was asked for"),
        pytest.param(FAKE_GPU, None, None, id="no limit on a discrete GPU"),
        pytest.param(None, None, None, id="no GPU"),
    ],
)
def test_a_build_leaves_an_integrated_gpus_machine_alive(
    tmp_path: Path, gpu: Any, asked: int | None, expected: int | None
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    4096000 kB\n")
    assert with_memory_limit(BuildOptions(workspace_mib=asked), gpu, meminfo).workspace_mib == expected


def test_without_the_kernels_report_there_is_no_limit(tmp_path: Path) -> None:
    assert with_memory_limit(BuildOptions(), JETSON, tmp_path / "missing").workspace_mib is None


class Config:
    def __init__(self) -> None:
        self.flags: list[str] = []

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)


def _library() -> TensorRt:
    flags = SimpleNamespace(FP16="FP16", INT8="INT8", GPU_FALLBACK="GPU_FALLBACK")
    return TensorRt(
        SimpleNamespace(BuilderFlag=flags, DeviceType=SimpleNamespace(DLA="DLA")), "tensorrt", "10.3", None, Messages()
    )


@pytest.mark.parametrize(
    ("cores", "core", "precision", "message"),
    [
        pytest.param(2, 1, "int8", "Q/DQ.*fp16", id="int8"),
        pytest.param(2, 1, "fp32", "FP32.*fp16", id="fp32"),
        pytest.param(2, 2, "fp16", "DLA core 2: this device has 2, counted from 0", id="beyond the last"),
        pytest.param(0, 0, "fp16", "this device has none", id="a device without one"),
    ],
)
def test_a_dla_that_cannot_run_the_plan_is_refused(cores: int, core: int, precision: Any, message: str) -> None:
    options = BuildOptions(precision=precision, dla_core=core)
    with pytest.raises(ConfigError, match=message):
        _use_dla(_library(), SimpleNamespace(num_DLA_cores=cores), Config(), options)


def test_a_dla_falls_back_to_the_gpu_for_what_it_cannot_do() -> None:
    config: Any = Config()
    _use_dla(_library(), SimpleNamespace(num_DLA_cores=2), config, BuildOptions(precision="fp16", dla_core=1))
    assert config.flags == ["FP16", "GPU_FALLBACK"]
    assert (config.default_device_type, config.DLA_core) == ("DLA", 1)


class Tensor(SimpleNamespace):
    """`ITensor`."""


@pytest.mark.parametrize(
    ("batch", "shape", "ranges"),
    [
        pytest.param((1, 1, 1), (1, 3, 8, 8), {}, id="one image"),
        pytest.param((4, 4, 4), (4, 3, 8, 8), {}, id="always four"),
        pytest.param((1, 2, 4), (-1, 3, 8, 8), {"images": [(n, 3, 8, 8) for n in (1, 2, 4)]}, id="several sizes"),
    ],
)
def test_a_single_batch_size_leaves_no_shape_open(
    batch: tuple[int, int, int], shape: tuple[int, ...], ranges: dict[str, Any]
) -> None:
    """TensorRT-RTX runs slower kernels for open shapes, until it has compiled faster ones."""
    images = Tensor(name="images", shape=(-1, 3, 8, 8))
    network = SimpleNamespace(num_inputs=1, get_input=lambda index: images)
    found: dict[str, Any] = {}
    profile = SimpleNamespace(set_shape=lambda name, *bounds: found.update({name: list(bounds)}))
    assert _fill_profile(profile, network, BuildOptions(batch=batch)) == bool(ranges)
    assert (tuple(images.shape), found) == (shape, ranges)
