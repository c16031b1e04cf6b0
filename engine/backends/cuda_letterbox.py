"""The letterbox kernel: its source, its parameters, and its compilation for the GPU at hand.

One launch takes images from uint8 BGR to the model's float tensor. A batch that was letterboxed on the host already is
the case of a scale of 1 without a border.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from engine.backends.base import ImageInput
from engine.errors import MissingDependencyError, ModelError

KERNEL_NAME = "letterbox"
BLOCK = (32, 8, 1)
PAD_VALUE = 114
PARAMETERS = struct.Struct("PPqqdd11i3f3f4x")
"""`struct Letterbox` of cuda_letterbox.cu; two addresses first, so that it is aligned and padded to 8 bytes."""

NVRTC_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
OPTIONS = ("--fmad=false", "-default-device")


class Placement(Protocol):
    """Where an image lands in the model's frame; `engine.detection.letterbox.Letterbox` is one."""

    @property
    def source_wh(self) -> tuple[int, int]:
        """Size of the image."""

    @property
    def inner_wh(self) -> tuple[int, int]:
        """Size of the scaled image in the frame."""

    @property
    def pad_xy(self) -> tuple[int, int]:
        """Its left top corner there."""


@dataclass(frozen=True, slots=True)
class WholeFrame:
    """The placement of an image that has the size of the model's frame already."""

    source_wh: tuple[int, int]

    @property
    def inner_wh(self) -> tuple[int, int]:
        """The size of the image itself."""
        return self.source_wh

    @property
    def pad_xy(self) -> tuple[int, int]:
        """No border."""
        return 0, 0


def parameters(image: ImageInput, placement: Placement, source: int, target: int) -> bytes:
    """Return the kernel's parameter.

    Args:
        image: what the model wants.
        placement: where the image goes.
        source: address of the first uint8 BGR image on the GPU.
        target: address of the first float row that is written.
    """
    rows, columns = image.size_hw
    (source_w, source_h), (inner_w, inner_h) = placement.source_wh, placement.inner_wh
    return PARAMETERS.pack(
        *(source, target),
        *(source_w * source_h * 3, rows * columns * 3),
        *(source_w / inner_w, source_h / inner_h),
        *(source_w, source_h, columns, rows, inner_w, inner_h, *placement.pad_xy),
        *(PAD_VALUE, int(image.color == "rgb"), int(image.layout == "nchw")),
        *image.mean,
        *(1.0 / std for std in image.std),
    )


def grid(image: ImageInput, count: int) -> tuple[int, int, int]:
    """Return the launch grid for `count` images of one size that lie behind each other."""
    rows, columns = image.size_hw
    return -(-columns // BLOCK[0]), -(-rows // BLOCK[1]), count


def kernel_source() -> str:
    """Return the CUDA source of the kernel."""
    return (files("engine.backends") / "cuda_letterbox.cu").read_text()


def compile_kernel(compute_capability: tuple[int, int]) -> bytes:
    """Return the kernel as machine code (cubin) for one GPU architecture, by NVRTC, else by nvcc. Needs no GPU.

    Machine code rather than PTX: a compiler newer than the driver makes PTX that the driver refuses.

    Raises:
        MissingDependencyError: neither compiler is there.
        ModelError: the compiler refuses, with its log.
    """
    major, minor = compute_capability
    architecture = f"sm_{major}{minor}"
    for path in _nvrtc_places():
        try:
            return _compile_with_nvrtc(ctypes.CDLL(path), architecture)
        except OSError:
            continue
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        raise MissingDependencyError(
            "no CUDA compiler for the letterbox kernel: pip install nvidia-cuda-nvrtc, or install the CUDA toolkit"
        )
    return _compile_with_nvcc(nvcc, architecture)


def _nvrtc_places() -> Iterator[str]:
    """Yield where NVRTC may be: where the loader finds it, in NVIDIA's wheels, in the toolkit."""
    yield from NVRTC_NAMES
    package = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
    for folder in (*folders, Path("/usr/local/cuda")):
        yield from (str(path) for path in sorted(folder.glob("**/libnvrtc.so*"), reverse=True))


def _compile_with_nvrtc(nvrtc: Any, architecture: str) -> bytes:
    program = ctypes.c_void_p()
    source = kernel_source().encode()
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"cuda_letterbox.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in OPTIONS)]
        array = (ctypes.c_char_p * len(options))(*options)
        if nvrtc.nvrtcCompileProgram(program, len(options), array):
            log = _buffer(nvrtc, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            raise ModelError(f"the letterbox kernel does not compile for {architecture}: {log[:1000]}")
        return _buffer(nvrtc, "CUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _buffer(nvrtc: Any, kind: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{kind}")(program, content))
    return content.raw


def _check(nvrtc: Any, code: int) -> None:
    if code:
        describe = nvrtc.nvrtcGetErrorString
        describe.restype = ctypes.c_char_p
        raise ModelError(f"the CUDA compiler failed: {describe(code).decode()} ({code})")


def _compile_with_nvcc(nvcc: str, architecture: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="framewire-nvcc-") as folder:
        source, target = Path(folder) / "letterbox.cu", Path(folder) / "letterbox.cubin"
        source.write_text(kernel_source())
        command = [nvcc, "-cubin", f"-arch={architecture}", OPTIONS[0], "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ModelError(f"the letterbox kernel does not compile for {architecture}: {done.stderr[:1000]}")
        return target.read_bytes()
