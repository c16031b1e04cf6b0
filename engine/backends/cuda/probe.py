"""Query the CUDA driver for the GPUs of this machine, through ctypes.

TensorRT crashes the process on a machine without a GPU (its constructors dereference null pointers from the driver), so
call this before importing any of it. It needs no package, allocates no GPU memory and creates no context.
"""

from __future__ import annotations

import ctypes
import grp
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

DRIVER_LIBRARY = "libcuda.so.1"
DEVICE_NODES = ("nvmap", "nvgpu/*/*", "nvgpu/*", "dri/renderD*")
"""Device nodes that CUDA opens on a Jetson."""
JETSON_NODES = ("nvmap", "nvgpu")
"""Only a Jetson has these: on a desktop, `dri/renderD*` may belong to another vendor's GPU, and CUDA needs none."""

# Numbers of the CUDA driver API (cuda.h).
SUCCESS = 0
NOT_SUPPORTED = 801
ATTRIBUTE_INTEGRATED = 18
ATTRIBUTE_MAJOR = 75
ATTRIBUTE_MINOR = 76
REMEDY_BY_ERROR = {
    100: "no NVIDIA GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES; in a container, run with --gpus all",
    101: "CUDA_VISIBLE_DEVICES names a GPU that is not there",
    801: "this driver does not support the operation",
    802: "the system is not ready: start nvidia-fabricmanager and try again",
    803: "the driver's library and its kernel module differ in version: reboot, or mount the host's libcuda only",
    804: "this container's CUDA compatibility library does not run on this GPU: remove cuda-compat from the image",
    999: "the driver failed for an unknown reason: look at dmesg, then reload the nvidia modules or reboot",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: CUDA's number.
        name: the driver's name for it.
        compute_capability: major and minor.
        uuid: identity of this particular board.
        memory_bytes: of the device; on a Jetson, of the whole machine.
        is_integrated: whether it shares its memory with the CPU (Jetson).
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    uuid: str
    memory_bytes: int
    is_integrated: bool

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name} (sm_{major}{minor}, {self.memory_bytes / 2**30:.1f} GiB)"


@dataclass(frozen=True, slots=True)
class CudaProbe:
    """The driver's answer.

    Attributes:
        gpus: usable GPUs; if empty, `reason` says why.
        driver_version: newest CUDA version that the driver supports; None if there is no driver.
        reason: why no GPU can be used, with the remedy; None if one can.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_version: tuple[int, int] | None = None
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None or self.driver_version is None:
            return self.reason or "no NVIDIA driver"
        major, minor = self.driver_version
        return f"{', '.join(map(str, self.gpus))}, driver for CUDA {major}.{minor}"


def probe_cuda(library: str = DRIVER_LIBRARY) -> CudaProbe:
    """Return the GPUs of this machine, or why there are none. Never raises and never crashes.

    Args:
        library: the driver's library, for tests.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        return CudaProbe(reason=f"no NVIDIA driver ({error}): install it; in a container, run with --gpus all")
    try:
        return _probe(driver)
    except AttributeError as error:
        return CudaProbe(reason=f"{library} is not a CUDA driver or predates CUDA 11 ({error}): update the driver")


def _probe(driver: Any) -> CudaProbe:
    code = driver.cuInit(0)
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver_version = version.value // 1000, version.value % 1000 // 10
    if code != SUCCESS:
        reason = f"CUDA cannot start: {describe_error(driver, code)}"
        if code == NOT_SUPPORTED:
            closed = why_no_access()
            reason += "" if closed is None else f"; {closed}"
        return CudaProbe(driver_version=driver_version, reason=reason)
    count = ctypes.c_int()
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != SUCCESS or count.value == 0:
        return CudaProbe(driver_version=driver_version, reason=f"no GPU: {describe_error(driver, code or 100)}")
    return CudaProbe(tuple(_gpu(driver, index) for index in range(count.value)), driver_version)


def _gpu(driver: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    identity = (ctypes.c_ubyte * 16)()
    driver.cuDeviceGetUuid(ctypes.byref(identity), device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=(_attribute(driver, ATTRIBUTE_MAJOR, device), _attribute(driver, ATTRIBUTE_MINOR, device)),
        uuid=f"GPU-{UUID(bytes=bytes(identity))}",
        memory_bytes=memory.value,
        is_integrated=_attribute(driver, ATTRIBUTE_INTEGRATED, device) == 1,
    )


def _attribute(driver: Any, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def why_no_access(root: Path = Path("/dev"), groups: Collection[int] | None = None) -> str | None:
    """Return which device nodes of a Jetson this user cannot open, with the remedy; None if there are none.

    With JetPack 6, CUDA needs the group that owns `/dev/dri/renderD*` (`render`) and `video`; without it `cuInit`
    returns 801 (dusty-nv/jetson-containers issue 1136).

    Args:
        root: folder of the device nodes, for tests.
        groups: of a user that is neither root nor the owner, for tests; None asks the system about this process.
    """
    if not any((root / name).exists() for name in JETSON_NODES):
        return None
    nodes = sorted({path for pattern in DEVICE_NODES for path in root.glob(pattern) if not path.is_dir()})
    closed = [node for node in nodes if not _may_open(node, groups)]
    if not closed:
        return None
    owners = sorted({node.stat().st_gid for node in closed})
    options = " ".join(f"--group-add {gid}" for gid in owners)
    names = ", ".join(str(node) for node in closed)
    return (
        f"this user is not root and not in the group that owns {names}: in a container, docker run {options}; "
        f"outside, usermod -aG {','.join(_group_name(gid) for gid in owners)} and log in again"
    )


def _may_open(node: Path, groups: Collection[int] | None) -> bool:
    if groups is None:  # the kernel also knows access control lists and capabilities
        return os.access(node, os.R_OK | os.W_OK)
    status = node.stat()
    mode = stat.S_IMODE(status.st_mode)
    return mode & 0o006 == 0o006 or (status.st_gid in groups and mode & 0o060 == 0o060)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:  # a group of the host, which has no name in a container
        return str(gid)


def describe_error(driver: Any, code: int) -> str:
    """Return the driver's name for an error, its number, and the remedy if we know one."""
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    text = name.value.decode() if name.value else "CUDA error"
    remedy = REMEDY_BY_ERROR.get(code)
    return f"{text} ({code}){': ' + remedy if remedy else ''}"
