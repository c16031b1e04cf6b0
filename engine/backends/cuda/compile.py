"""Compiling our CUDA kernels for the GPU at hand: with NVRTC, which comes as a wheel, else with the toolkit's nvcc."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.errors import MissingDependencyError, ModelError

logger = logging.getLogger(__name__)
SOURCES = ("letterbox.cu", "candidates.cu")
NVRTC_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
OPTIONS = ("--fmad=false", "-default-device")


def kernel_source() -> str:
    """Return the CUDA source of all kernels."""
    return "".join((files("engine.backends.cuda") / name).read_text() for name in SOURCES)


def compile_kernels(compute_capability: tuple[int, int], driver_version: tuple[int, int] | None = None) -> bytes:
    """Return the kernels as machine code (cubin) for one GPU architecture. Needs no GPU.

    Tries every NVRTC on this machine, then nvcc: an outdated compiler may be installed beside the right one. The result
    is machine code rather than PTX because the driver refuses PTX from a newer compiler.

    Args:
        compute_capability: of the GPU, for example (8, 7).
        driver_version: newest CUDA version that the driver supports; compilers of a later major version are skipped.

    Raises:
        MissingDependencyError: no compiler is installed.
        ModelError: every compiler fails; the message is that of the last one.
    """
    major, minor = compute_capability
    architecture = f"sm_{major}{minor}"
    failure: ModelError | None = None
    for compile_with in _compilers(driver_version):
        try:
            return compile_with(architecture)
        except OSError:
            continue
        except ModelError as error:
            logger.info("%s: trying the next compiler", error)
            failure = error
    if failure is not None:
        raise failure
    raise MissingDependencyError(
        "no CUDA compiler for our kernels: pip install nvidia-cuda-nvrtc, or install the CUDA toolkit"
    )


Compiler = Callable[[str], bytes]


def _compilers(driver_version: tuple[int, int] | None) -> Iterator[Compiler]:
    """Yield the compilers of this machine: NVRTC from NVIDIA's wheels, the loader's path and the toolkit, then nvcc."""
    for path in _nvrtc_places():
        yield partial(_compile_with_library, path, driver_version)
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is not None:
        yield partial(_compile_with_nvcc, nvcc, driver_version)


def _nvrtc_places() -> Iterator[str]:
    """Yield the places where NVRTC may be, the newest wheel first."""
    package = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (package.submodule_search_locations or ())] if package else []
    found = [path for folder in folders for path in folder.glob("**/libnvrtc.so*")]
    yield from map(str, sorted(found, key=_version_in_name, reverse=True))
    yield from NVRTC_NAMES
    yield from map(str, sorted(Path("/usr/local/cuda").glob("**/libnvrtc.so*"), reverse=True))


def _version_in_name(path: Path) -> tuple[int, ...]:
    """Return the version in a library's file name, for example (13,) of `libnvrtc.so.13`."""
    return tuple(int(part) for part in path.name.partition(".so")[2].split(".") if part.isdigit())


def _compile_with_library(path: str, driver_version: tuple[int, int] | None, architecture: str) -> bytes:
    """Compile with the NVRTC at `path`. Raises OSError if it does not load, ModelError if it cannot be used."""
    nvrtc = ctypes.CDLL(path)
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc, nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    _refuse_newer(f"{path} is NVRTC", (major.value, minor.value), driver_version)
    return _compile_with_nvrtc(nvrtc, architecture)


def _refuse_newer(what: str, version: tuple[int, int], driver_version: tuple[int, int] | None) -> None:
    """Raise ModelError if a compiler makes code of a CUDA major version that the driver does not run."""
    if driver_version is not None and version[0] > driver_version[0]:
        raise ModelError(
            f"{what} {version[0]}.{version[1]}, and this driver runs CUDA {driver_version[0]} code at most: "
            f"pip install 'nvidia-cuda-nvrtc<{driver_version[0] + 1}', or update the driver"
        )


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


def _compile_with_nvcc(nvcc: str, driver_version: tuple[int, int] | None, architecture: str) -> bytes:
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    release = re.search(r"release (\d+)\.(\d+)", told)
    if release is not None:
        _refuse_newer(f"{nvcc} is from CUDA", (int(release[1]), int(release[2])), driver_version)
    with tempfile.TemporaryDirectory(prefix="framewire-nvcc-") as folder:
        source, target = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        source.write_text(kernel_source())
        command = [nvcc, "-cubin", f"-arch={architecture}", OPTIONS[0], "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ModelError(f"the CUDA kernels do not compile for {architecture}: {done.stderr[:1000]}")
        return target.read_bytes()
