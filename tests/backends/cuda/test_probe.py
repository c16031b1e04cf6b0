"""The CUDA probe against stand-ins for the driver's library, compiled here, and against this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.backends.cuda import probe as probe_module
from engine.backends.cuda.probe import Gpu, probe_cuda, why_no_access

DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, device == 7 ? "Orin" : "RTX", size); return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { memset(uuid, device, 16); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? (device == 7 ? 7 : 9) : device == 7;
    return 0;
}
int cuGetErrorName(int code, const char **name) {
    *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR";
    return 0;
}
"""


def stand_in(folder: Path, init: int, count: int) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a stand-in for the driver: apt-get install gcc")
    source, library = folder / "driver.c", folder / "libcuda.so.1"
    source.write_text(DRIVER)
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", "-o", library, source], check=True
    )
    return str(library)


def test_gpus_are_listed_with_what_a_plan_depends_on(tmp_path: Path):
    probe = probe_cuda(stand_in(tmp_path, init=0, count=2))
    assert probe.reason is None
    assert probe.driver_version == (12, 6)
    assert probe.gpus == (
        Gpu(0, "Orin", (8, 7), "GPU-07070707-0707-0707-0707-070707070707", 8 << 30, True),
        Gpu(1, "RTX", (8, 9), "GPU-08080808-0808-0808-0808-080808080808", 8 << 30, False),
    )
    assert str(probe) == "Orin (sm_87, 8.0 GiB), RTX (sm_89, 8.0 GiB), driver for CUDA 12.6"


@pytest.mark.parametrize(
    ("init", "count", "reason"),
    [
        pytest.param(100, 0, r"CUDA_ERROR_NO_DEVICE \(100\): no NVIDIA GPU is visible.*--gpus all", id="no device"),
        pytest.param(803, 1, r"CUDA_ERROR \(803\): .*reboot", id="driver and module differ"),
        pytest.param(4, 1, r"CUDA_ERROR \(4\)$", id="an error without a known remedy"),
        pytest.param(0, 0, r"no GPU: .*--gpus all", id="a driver that counts none"),
    ],
)
def test_a_driver_without_a_usable_gpu_says_why(tmp_path: Path, init: int, count: int, reason: str):
    probe = probe_cuda(stand_in(tmp_path, init, count))
    assert probe.gpus == ()
    assert probe.driver_version == (12, 6)
    assert probe.reason is not None
    assert re.search(reason, probe.reason)


def test_no_driver_is_a_reason_and_no_error():
    probe = probe_cuda("libcuda-that-is-not-there.so.1")
    assert probe.gpus == ()
    assert "no NVIDIA driver" in str(probe)
    assert "--gpus all" in str(probe)


def test_a_library_that_is_no_driver_is_a_reason_and_no_error():
    probe = probe_cuda("libc.so.6")
    assert "is not a CUDA driver" in (probe.reason or "")


def test_this_machine_answers_without_a_crash():
    probe = probe_cuda()
    assert bool(probe.gpus) == (probe.reason is None)


def device_node(root: Path, name: str, mode: int) -> Path:
    node = root / name
    node.parent.mkdir(exist_ok=True, parents=True)
    node.touch()
    node.chmod(mode)
    return node


def test_nodes_of_a_group_that_this_user_is_not_in_are_named_with_the_remedy(tmp_path: Path):
    device_node(tmp_path, "nvmap", 0o666)
    device_node(tmp_path, "nvgpu/igpu0/ctrl", 0o666)
    node = device_node(tmp_path, "dri/renderD128", 0o660)
    group = node.stat().st_gid
    reason = why_no_access(tmp_path, groups=[group + 1])
    assert f"the group that owns {node}: in a container, docker run --group-add {group}; outside, usermod" in str(
        reason
    )
    assert why_no_access(tmp_path, groups=[group]) is None


def test_nodes_that_everybody_may_open_are_not_the_reason(tmp_path: Path):
    device_node(tmp_path, "nvmap", 0o666)
    assert why_no_access(tmp_path, groups=[]) is None


def test_off_a_jetson_the_nodes_of_another_gpu_are_not_the_reason(tmp_path: Path):
    device_node(tmp_path, "dri/renderD128", 0o660)
    assert why_no_access(tmp_path, groups=[]) is None


def test_this_process_is_asked_as_the_kernel_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Root passes in spite of the mode, and so does a user with an access control list."""
    node = device_node(tmp_path, "nvmap", 0o600)
    asked: list[Path] = []
    monkeypatch.setattr(probe_module.os, "access", lambda path, mode: asked.append(path))
    assert str(node) in str(why_no_access(tmp_path))
    monkeypatch.setattr(probe_module.os, "access", lambda path, mode: True)
    assert why_no_access(tmp_path) is None
    assert asked == [node]


def test_error_801_names_the_groups_where_they_are_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe_module, "why_no_access", lambda: "this user is not in the group")
    probe = probe_cuda(stand_in(tmp_path, init=801, count=1))
    assert (probe.reason or "").endswith(
        "(801): this driver does not support the operation; this user is not in the group"
    )
