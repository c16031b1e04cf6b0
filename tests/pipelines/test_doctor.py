"""What `framewire doctor` says of a GPU."""

from __future__ import annotations

import pytest

from engine.backends.cuda import probe
from engine.backends.cuda.probe import CudaProbe, Gpu
from engine.backends.tensorrt import api
from pipelines.doctor import examine

GPU = Gpu(0, "RTX 3060", (8, 6), "GPU-1", 12 << 30, False)


@pytest.mark.parametrize(
    ("driver", "verdict", "remedy"),
    [
        pytest.param((13, 0), "ok", "", id="new driver"),
        pytest.param((12, 2), "broken", "update the NVIDIA driver", id="old driver"),
    ],
)
def test_a_library_is_ok_only_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch, driver: tuple[int, int], verdict: str, remedy: str
):
    monkeypatch.setattr(probe, "probe_cuda", lambda: CudaProbe((GPU,), driver))
    monkeypatch.setattr(api, "installed_libraries", lambda: ("tensorrt_rtx",))
    packages = {"tensorrt_rtx": "1.7.1", "tensorrt_rtx_cu13_bindings": "1.7.1"}
    monkeypatch.setattr(api, "_package_version", packages.get)
    finding = next(finding for finding in examine() if finding.part == "tensorrt-rtx")
    assert (finding.verdict, finding.remedy) == (verdict, remedy)
