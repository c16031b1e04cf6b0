"""What every `CudaApi` must do; for one package, run `python -m tests.backends.cuda.cuda_contract pycuda IMAGE`."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.backends.base import ClassScores, ImageInput
from engine.backends.cuda import candidates as cuda_candidates
from engine.backends.cuda.candidates import CandidateLayout
from engine.backends.cuda.driver import CudaApi
from engine.backends.cuda.letterbox import BLOCK, WholeFrame, grid, parameters
from engine.backends.cuda.probe import probe_cuda
from engine.backends.pixels import Normaliser
from engine.errors import ModelError

IMAGE = ImageInput((24, 40))


def check(api: CudaApi, kernel_image: bytes) -> None:
    """Use everything of `api` once, and compare the results. Raises `AssertionError`."""
    with api.current():
        check_copies(api)
        check_kernel_and_graph(api, kernel_image)
        check_candidates(api, kernel_image)
        check_memory(api)
    check_wait_on_another_thread(api)
    api.close()
    api.close()


def check_copies(api: CudaApi) -> None:
    """To the GPU and back, from pinned and from plain memory."""
    stream, event = api.create_stream(), api.create_event()
    sent = api.pinned((3, 1000), np.int32)
    back = api.pinned((3, 1000), np.int32)
    address = api.allocate(sent.array.nbytes)
    for source in (sent.array, np.empty((3, 1000), np.int32)):
        source[...] = np.arange(3000).reshape(3, 1000)
        back.array[...] = -1
        api.copy_to_gpu(address, source, stream)
        api.copy_to_host(back.array[:2], address, stream)
        api.record(event, stream)
        api.wait(event)
        np.testing.assert_array_equal(back.array[:2], source[:2])
        assert (back.array[2] == -1).all()
    mapped = api.pinned((16,), np.uint8, mapped=True)
    assert mapped.device_address
    assert sent.device_address is None
    for pinned in (sent, back, mapped):
        api.free_pinned(pinned)
    api.free(address)
    api.free_event(event)
    api.free_stream(stream)


def check_kernel_and_graph(api: CudaApi, kernel_image: bytes) -> None:
    """The letterbox kernel, launched and replayed as a graph."""
    kernel = api.load_kernel(kernel_image, "letterbox")
    batch = np.random.default_rng(1).integers(0, 256, (3, 24, 40, 3), dtype=np.uint8)
    pinned = api.pinned((3, 3, 24, 40), np.float32)  # a recorded copy goes to page-locked memory, as in the engine
    found, expected = pinned.array, np.zeros((3, 3, 24, 40), np.float32)
    Normaliser(IMAGE).write(batch, expected)
    stream = api.create_stream()
    source, target = api.allocate(batch.nbytes), api.allocate(found.nbytes)
    values = parameters(IMAGE, WholeFrame((40, 24)), source, target)

    def step() -> None:
        api.launch(kernel, grid(IMAGE, 3), BLOCK, values, stream)
        api.copy_to_host(found, target, stream)

    api.copy_to_gpu(source, batch, stream)
    step()
    api.synchronize(stream)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    api.begin_capture(stream)
    step()
    graph = api.end_capture(stream)
    changed = np.ascontiguousarray(batch[:, ::-1])
    Normaliser(IMAGE).write(changed, expected)
    api.copy_to_gpu(source, changed, stream)
    api.launch_graph(graph, stream)
    api.synchronize(stream)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    api.free_graph(graph)
    api.free_pinned(pinned)
    for address in (source, target):
        api.free(address)
    api.free_stream(stream)


def check_candidates(api: CudaApi, kernel_image: bytes) -> None:
    """The candidates kernel, compared with the same computation on the host."""
    rng = np.random.default_rng(3)
    head = rng.random((2, 25, 2000), np.float32) ** 400
    head[:, :4] = rng.random((2, 4, 2000))
    layout = CandidateLayout(ClassScores(4, 20), 25, 2000, images=3)
    words = np.zeros(layout.words(3), np.int32)
    kernel = api.load_kernel(kernel_image, cuda_candidates.KERNEL_NAME)
    stream = api.create_stream()
    source, target = api.allocate(head.nbytes), api.allocate(words.nbytes)
    api.copy_to_gpu(source, head, stream)
    api.copy_to_gpu(target, words, stream)
    values = layout.parameters(source, target, 0.5)
    api.launch(kernel, layout.grid(2), cuda_candidates.BLOCK, values, stream)
    api.copy_to_host(words, target, stream)
    api.synchronize(stream)
    found = layout.ordered(words, 2)
    assert found is not None
    assert found.shape[2] > 50
    np.testing.assert_array_equal(found, layout.merged(head, 0.5))
    for address in (source, target):
        api.free(address)
    api.free_stream(stream)


def check_memory(api: CudaApi) -> None:
    """Free memory, and a request for too much of it."""
    free, total = api.memory()
    address = api.allocate(1 << 24)
    if not api.gpu.is_integrated:  # there, the free memory is that of the whole machine
        assert api.memory()[0] <= free - (1 << 24)
    api.free(address)
    assert 0 < free <= total
    with pytest.raises(ModelError, match="is used up"):
        api.allocate(total * 2)


def check_wait_on_another_thread(api: CudaApi) -> None:
    """Wait for a result on a thread without its own context."""
    with api.current():
        stream, event = api.create_stream(), api.create_event()
        address = api.allocate(4)
        value = np.int32([7])
        back = np.zeros(1, np.int32)
        api.copy_to_gpu(address, value, stream)
        api.copy_to_host(back, address, stream)
        api.record(event, stream)
    seen: list[int] = []

    def wait() -> None:
        with api.current():
            api.wait(event)
        seen.append(int(back[0]))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert seen == [7]
    with api.current():
        api.free(address)
        api.free_event(event)
        api.free_stream(stream)


def open_package(package: str) -> CudaApi:
    """Return the API of one package on the first GPU."""
    gpu = probe_cuda().gpus[0]
    if package == "pycuda":
        from engine.backends.cuda.pycuda import PyCuda

        return PyCuda(gpu)
    from engine.backends.cuda.bindings import CudaBindings

    return CudaBindings(gpu)


def main(package: str, image: str) -> None:
    """Check one package on the fake driver, and that nothing is left behind."""
    check(open_package(package), Path(image).read_bytes())
    driver = ctypes.CDLL("libcuda.so.1")
    assert driver.fake_live() == 0, f"{driver.fake_live()} things were not given back"
    assert driver.fake_depth() == 0, "a context was left current on this thread"
    assert driver.fake_event_flags() == 3, "a waiting thread would spin: CU_EVENT_BLOCKING_SYNC | _DISABLE_TIMING"
    print("all of the contract holds")


if __name__ == "__main__":
    main(*sys.argv[1:])
