"""The device that a model runs on, by name, and the backend that has it."""

from __future__ import annotations

import re

from engine.errors import ConfigError

_DEVICE = re.compile(r"^(?i:auto|cpu|npu|gpu(?:\.\d{1,2})?|cuda:\d{1,2})$")
PATTERN = _DEVICE.pattern
_OPENVINO = ("gpu", "npu", "auto")


def backend_of_device(device: str | None, backend: str) -> tuple[str, tuple[str, ...]]:
    """Return the backend to ask for, and those to leave out, so that a model runs on a device.

    Args:
        device: `cpu`, `gpu`, `gpu.1`, `npu`, `auto` (OpenVINO's), `cuda:0`; None: the backend decides.
        backend: `auto`, or the name of one.

    Raises:
        ConfigError: the device does not exist, or the backend cannot use it.

    >>> backend_of_device("GPU", "auto"), backend_of_device("cpu", "auto")
    (('openvino', ()), ('auto', ('tensorrt',)))
    """
    if device is None:
        return backend, ()
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"device {device!r}: expected cpu, gpu, gpu.1, npu, auto or cuda:0")
    kind = device.lower().partition(".")[0]
    if kind == "cpu" and backend == "auto":
        return "auto", ("tensorrt",)
    if kind == "cpu" and backend != "tensorrt":
        return backend, ()
    needed = "openvino" if kind in _OPENVINO else "tensorrt"
    if kind != "cpu" and backend in ("auto", needed):
        return needed, ()
    raise ConfigError(f"backend {backend} has no device {device}: leave out the backend, or the device")


def cuda_index(device: str | None) -> int:
    """Return the number of the GPU that `cuda:N` names; 0 for any other device.

    >>> cuda_index("cuda:3"), cuda_index(None)
    (3, 0)
    """
    return int(device.partition(":")[2]) if device is not None and device.lower().startswith("cuda:") else 0


def check_openvino_device(device: str, available: list[str]) -> str:
    """Return OpenVINO's name of a device.

    Raises:
        ConfigError: this machine does not have it.
    """
    name = device.upper()
    if name == "AUTO" or name in available or any(other.partition(".")[0] == name for other in available):
        return name
    found = ", ".join(available) or "none"
    raise ConfigError(
        f"OpenVINO has no device {name} here, only {found}: install its driver, or choose another; see framewire doctor"
    )
