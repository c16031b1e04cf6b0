"""The kernels' real source, compiled for the processor: threads become loops."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from engine.backends.cuda import candidates as cuda_candidates
from engine.backends.cuda import letterbox as cuda_letterbox
from engine.backends.cuda.compile import kernel_source
from engine.testing.cuda_kernels import Bytes, Kernel, View

PROLOGUE = """
#include <math.h>
#define __device__
#define __global__
struct Index { int x, y, z; };
#ifdef SHARES_TAPS
#include <pthread.h>
#include <vector>
#define __shared__ static
static thread_local Index threadIdx;
static Index blockIdx, blockDim;
static pthread_barrier_t barrier;
static void __syncthreads() { pthread_barrier_wait(&barrier); }
#else
static Index blockIdx, blockDim, threadIdx;
#endif
static int atomicAdd(int *place, int more) { int before = *place; *place += more; return before; }
"""
EPILOGUE = """
#define RUN(name, Parameter) \\
extern "C" void run_##name( \\
    const Parameter *given, int images, int blocks_x, int blocks_y, int threads_x, int threads_y) \\
{ \\
    blockDim.x = threads_x; blockDim.y = threads_y; \\
    for (blockIdx.z = 0; blockIdx.z < images; ++blockIdx.z) \\
        for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y) \\
            for (blockIdx.x = blocks_x - 1; blockIdx.x >= 0; --blockIdx.x) \\
                for (threadIdx.y = 0; threadIdx.y < threads_y; ++threadIdx.y) \\
                    for (threadIdx.x = threads_x - 1; threadIdx.x >= 0; --threadIdx.x) name(*given); \\
}
#ifdef SHARES_TAPS
// The threads of a block are threads indeed, so that what they share is written before it is read.
template <typename Parameter> struct Job { void (*kernel)(Parameter); const Parameter *given; int x, y; };
template <typename Parameter> static void *work(void *given) {
    Job<Parameter> *job = (Job<Parameter> *)given;
    threadIdx.x = job->x; threadIdx.y = job->y;
    job->kernel(*job->given);
    return 0;
}
#define RUN_SHARING(name, Parameter) \\
extern "C" void run_##name( \\
    const Parameter *given, int images, int blocks_x, int blocks_y, int threads_x, int threads_y) \\
{ \\
    blockDim.x = threads_x; blockDim.y = threads_y; \\
    pthread_barrier_init(&barrier, 0, threads_x * threads_y); \\
    for (blockIdx.z = 0; blockIdx.z < images; ++blockIdx.z) \\
        for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y) \\
            for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x) { \\
                std::vector<Job<Parameter>> jobs; \\
                for (int y = 0; y < threads_y; ++y) \\
                    for (int x = 0; x < threads_x; ++x) jobs.push_back({&name, given, x, y}); \\
                std::vector<pthread_t> threads(jobs.size()); \\
                for (size_t i = 0; i < jobs.size(); ++i) pthread_create(&threads[i], 0, work<Parameter>, &jobs[i]); \\
                for (pthread_t thread : threads) pthread_join(thread, 0); \\
            } \\
    pthread_barrier_destroy(&barrier); \\
}
RUN_SHARING(letterbox, Letterbox)
RUN_SHARING(letterbox_planes, Planes)
#else
RUN(letterbox, Letterbox)
RUN(letterbox_planes, Planes)
#endif
RUN(candidates, Candidates)
"""
FLAGS = ("-ffp-contract=off", "-shared", "-fPIC")


def compiler() -> str:
    """Return the C++ compiler, or skip the test."""
    found = shutil.which("c++") or shutil.which("g++")
    if found is None:
        pytest.skip("no C++ compiler to run the kernels' source on the processor: apt-get install g++")
    return found


def processor_source() -> str:
    """Return C++ that has each kernel as a function `run_NAME` over its whole grid, the last threads first."""
    return PROLOGUE + kernel_source() + EPILOGUE


@lru_cache
def compiled_kernels(*options: str) -> ctypes.CDLL:
    """Return the compiled library."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        source.write_text(processor_source())
        subprocess.run([compiler(), "-O2", "-Wall", "-Werror", *FLAGS, *options, "-o", library, source], check=True)
        return ctypes.CDLL(str(library))


def run_letterbox(view: View, images: int, values: bytes) -> None:
    """Run the compiled letterbox kernel on memory found by `view`."""
    _run_letterbox(compiled_kernels().run_letterbox, view, images, values)


def run_letterbox_planes(view: View, images: int, values: bytes) -> None:
    """Run the compiled letterbox kernel for planes on memory found by `view`."""
    _run_letterbox(compiled_kernels().run_letterbox_planes, view, images, values)


def _run_letterbox(run: Callable[..., None], view: View, images: int, values: bytes) -> None:
    common = cuda_letterbox.PARAMETERS.size
    source, target, source_step, target_step, *rest = cuda_letterbox.PARAMETERS.unpack(values[:common])
    size = 2 if rest[13] else 4
    addresses = address(view(source, images * source_step)), address(view(target, size * images * target_step))
    given = cuda_letterbox.PARAMETERS.pack(*addresses, source_step, target_step, *rest) + values[common:]
    block, (width, height) = cuda_letterbox.BLOCK, rest[4:6]
    run(given, images, -(-width // block[0]), -(-height // block[1]), *block[:2])


def run_candidates(view: View, images: int, values: bytes) -> None:
    """Run the compiled candidates kernel on memory found by `view`."""
    head, counts, kept, rows, anchors, first, classes, limit, above = cuda_candidates.PARAMETERS.unpack(values)
    sizes = (images * rows * anchors, images, images * limit * (3 + rows - classes))
    places = [address(view(place, 4 * size)) for place, size in zip((head, counts, kept), sizes, strict=True)]
    given = cuda_candidates.PARAMETERS.pack(*places, rows, anchors, first, classes, limit, above)
    block = cuda_candidates.BLOCK
    compiled_kernels().run_candidates(given, images, -(-anchors // block[0]), 1, *block[:2])


def memory_at(address: int, size: int) -> Bytes:
    """Return the process's own memory, as `View`."""
    return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)


def address(memory: Bytes) -> int:
    """Return where memory lies."""
    return int(memory.ctypes.data)


PROCESSOR_KERNELS: Mapping[str, Kernel] = {
    cuda_letterbox.KERNEL_NAME: run_letterbox,
    cuda_letterbox.PLANES_KERNEL_NAME: run_letterbox_planes,
    cuda_candidates.KERNEL_NAME: run_candidates,
}
