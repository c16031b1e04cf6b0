"""What `framewire doctor` says of a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.backends.cuda import probe
from engine.backends.cuda.probe import CudaProbe, Gpu
from engine.backends.tensorrt import api
from pipelines import doctor
from pipelines.doctor import Finding, examine, readiness

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


def test_what_a_run_needs_decides_whether_a_machine_is_ready() -> None:
    fine, optional = Finding("decode", "ok", "PyAV", "", True), Finding("display", "missing", "no DISPLAY", "a desktop")
    assert readiness([fine, optional])[0]
    ready, line = readiness([replace(fine, verdict="broken", found="TypeError"), optional])
    assert not ready
    assert line == "Not ready: decode: TypeError"


def test_a_frame_is_decoded_and_inferred_and_protocols_are_listed() -> None:
    findings = {finding.part: finding for finding in examine()}
    assert findings["try"].is_needed
    assert "decoded a frame of the demo clip and found" in findings["try"].found
    assert "RTSP" in findings["protocols"].found
    assert readiness(list(findings.values()))[1].startswith("Ready: ")


def test_a_reader_that_raises_makes_a_machine_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("unexpected keyword argument")

    monkeypatch.setattr("engine.video.decode.VideoReader.__init__", broken)
    ready, line = readiness(examine())
    assert not ready
    assert "unexpected keyword argument" in line


def test_device_nodes_that_this_user_cannot_open_are_a_finding_with_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    what = "this user is not root and not in the group that owns /dev/dri/renderD128"
    how = "in a container, docker run --group-add 994; outside, usermod -aG render and log in again"
    monkeypatch.setattr("engine.backends.cuda.probe.why_no_access", lambda: f"{what}: {how}")
    [finding] = [one for one in doctor._gpu() if one.part == "gpu device nodes"]
    assert (finding.verdict, finding.found, finding.remedy) == ("missing", what, how)
