"""Which of the two libraries can run here, determined before either is imported."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping

import pytest

from engine.backends.cuda.probe import CudaProbe, Gpu
from engine.backends.tensorrt import api, backend
from engine.backends.tensorrt.api import Library, PhaseTree, installed_version, library_to_run, why_not_library

TURING = Gpu(0, "RTX 2080", (7, 5), "GPU-2", 8 << 30, False)
AMPERE = Gpu(0, "RTX 3060", (8, 6), "GPU-1", 12 << 30, False)
OLD_DRIVER, NEW_DRIVER = CudaProbe((AMPERE,), (12, 2)), CudaProbe((AMPERE,), (13, 0))
RTX = {"tensorrt_rtx": "1.7.1.116", "tensorrt_rtx_cu13_bindings": "1.7.1.116"}
CUDA_12 = {"tensorrt": "10.13.0", "tensorrt_cu12_bindings": "10.13.0"}


def install(monkeypatch: pytest.MonkeyPatch, packages: Mapping[str, str]) -> None:
    """Let these packages, and no others of TensorRT, look as if they were installed."""
    libraries = tuple(name for name in api.LIBRARIES if any(part.startswith(name) for part in packages))
    if not any(part == "tensorrt" or part.startswith("tensorrt_cu") for part in packages):
        libraries = tuple(name for name in libraries if name != "tensorrt")
    monkeypatch.setattr(api, "_package_version", packages.get)
    for module in (api, backend):
        monkeypatch.setattr(module, "installed_libraries", lambda: libraries)


@pytest.mark.parametrize(
    ("packages", "library", "probe", "reason"),
    [
        pytest.param(RTX, "tensorrt_rtx", NEW_DRIVER, None, id="RTX"),
        pytest.param(
            RTX,
            "tensorrt_rtx",
            OLD_DRIVER,
            "TensorRT-RTX for CUDA 13 needs a newer driver than this one for CUDA 12.2: update the NVIDIA driver",
            id="RTX, old driver",
        ),
        pytest.param(
            RTX,
            "tensorrt_rtx",
            CudaProbe((TURING,), (13, 0)),
            "TensorRT-RTX needs a GPU of sm_80 or newer, this is RTX 2080 (sm_75, 8.0 GiB): install tensorrt",
            id="RTX, older than our plans are for",
        ),
        pytest.param(CUDA_12, "tensorrt", OLD_DRIVER, None, id="any driver for the same CUDA"),
        pytest.param({"tensorrt": "10.3.0"}, "tensorrt", OLD_DRIVER, None, id="a Jetson's does not say"),
        pytest.param(
            {"tensorrt": "10.2.0"},
            "tensorrt",
            NEW_DRIVER,
            "TensorRT 10.2.0 is known to build wrong plans: install 10.3 or later",
            id="version",
        ),
    ],
)
def test_what_keeps_a_library_from_running_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, packages: Mapping[str, str], library: Library, probe: CudaProbe, reason: str | None
):
    install(monkeypatch, packages)
    assert why_not_library(probe, library) == reason


def test_auto_leaves_a_library_alone_that_the_driver_is_too_old_for(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, RTX)
    monkeypatch.setattr(backend, "probe_cuda", lambda: OLD_DRIVER)
    assert "update the NVIDIA driver" in str(backend.why_not())


@pytest.mark.parametrize(
    ("packages", "probe", "expected"),
    [
        pytest.param({**RTX, **CUDA_12}, NEW_DRIVER, "tensorrt", id="TensorRT first"),
        pytest.param({**RTX, "tensorrt": "10.2.0"}, NEW_DRIVER, "tensorrt_rtx", id="the other where one cannot"),
        pytest.param({**RTX, "tensorrt": "10.2.0"}, OLD_DRIVER, None, id="neither"),
    ],
)
def test_the_library_that_runs_here_is_chosen(
    monkeypatch: pytest.MonkeyPatch, packages: Mapping[str, str], probe: CudaProbe, expected: Library | None
):
    install(monkeypatch, packages)
    assert library_to_run(probe) == expected


def test_the_packages_of_the_installed_library_say_what_they_need():
    version = installed_version("tensorrt_rtx")
    if version is None:
        pytest.skip("tensorrt_rtx is not installed: pip install tensorrt-rtx")
    assert version[0].isdecimal()
    assert "for CUDA 13" in str(why_not_library(OLD_DRIVER, "tensorrt_rtx"))


def test_phases_may_be_reported_from_several_threads():
    tree, failures, begun = PhaseTree(), [], threading.Barrier(3)
    tree.start("root", None, 100)

    def report(thread: int) -> None:
        begun.wait()
        try:
            for number in range(2000):
                name = f"{thread}-{number}"
                tree.start(name, "root", 4)
                tree.step(name, 0)
                assert 0 <= tree.fraction <= 1
                tree.finish(name)
        except Exception as error:
            failures.append(repr(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=report, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
