"""The CUDA kernels compiled for the GPU at hand: by NVRTC, which comes as a wheel, else by the toolkit's nvcc."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.errors import MissingDependencyError, ModelError

SOURCES = ("letterbox.cu", "candidates.cu")
NVRTC_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
OPTIONS = ("--fmad=false", "-default-device")


def kernel_source() -> str:
    """Return the CUDA source of all kernels."""
    return "".join((files("engine.backends.cuda") / name).read_text() for name in SOURCES)


def compile_kernels(compute_capability: tuple[int, int]) -> bytes:
    """Return the kernels as machine code (cubin) for one GPU architecture, by NVRTC, else by nvcc. Needs no GPU.

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
            "no CUDA compiler for our kernels: pip install nvidia-cuda-nvrtc, or install the CUDA toolkit"
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
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in OPTIONS)]
        array = (ctypes.c_char_p * len(options))(*options)
        if nvrtc.nvrtcCompileProgram(program, len(options), array):
            log = _buffer(nvrtc, "ProgramLog", program).rstrip(b"\0").decode(errors="replace")
            raise ModelError(f"the CUDA kernels do not compile for {architecture}: {log[:1000]}")
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
        source, target = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        source.write_text(kernel_source())
        command = [nvcc, "-cubin", f"-arch={architecture}", OPTIONS[0], "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ModelError(f"the CUDA kernels do not compile for {architecture}: {done.stderr[:1000]}")
        return target.read_bytes()
