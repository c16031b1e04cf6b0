"""Closing CUDA, also after the GPU was lost and on another thread: with stand-ins for the packages' objects."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from engine.backends.cuda.bindings import CudaBindings
from engine.backends.cuda.pycuda import PyCuda
from engine.errors import ModelError


class Driver:
    """Calls of the driver, in order; those in `lost` fail as on a lost GPU."""

    def __init__(self, *lost: str) -> None:
        self.calls: list[str] = []
        self.lost = lost

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object) -> tuple[int]:
            self.calls.append(name)
            return (719 if name in self.lost else 0,)

        return call

    @staticmethod
    def CUresult(code: int) -> SimpleNamespace:
        return SimpleNamespace(name="CUDA_ERROR_LAUNCH_FAILED")


def bindings(driver: Driver) -> CudaBindings:
    api = CudaBindings.__new__(CudaBindings)
    api._driver, api._device, api._context, api._modules = driver, 0, object(), ["one", "two"]
    return api


@pytest.mark.parametrize(
    ("lost", "calls"),
    [
        pytest.param((), ["cuCtxPushCurrent", "cuModuleUnload", "cuModuleUnload", "cuCtxPopCurrent"], id="well"),
        pytest.param(
            ("cuModuleUnload", "cuDevicePrimaryCtxRelease"),
            ["cuCtxPushCurrent", "cuModuleUnload", "cuModuleUnload", "cuCtxPopCurrent"],
            id="nothing can be freed",
        ),
        pytest.param(("cuCtxPushCurrent",), ["cuCtxPushCurrent"], id="no context"),
    ],
)
def test_bindings_release_the_context_whatever_else_fails(
    lost: tuple[str, ...], calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(*lost)
    api = bindings(driver)
    with caplog.at_level(logging.DEBUG):
        api.close()
        api.close()
    assert driver.calls == [*calls, "cuDevicePrimaryCtxRelease"]
    assert ("719" in caplog.text) == bool(lost)


class Context:
    """A context of pycuda: `detach` pushes it, but only on the thread that made it, and leaves it there."""

    def __init__(self, stack: list[Any], *, is_other_thread: bool, is_lost: bool = False) -> None:
        self.stack, self.is_other_thread, self.is_lost = stack, is_other_thread, is_lost
        self.is_detached = False

    def push(self) -> None:
        if self.is_lost:
            raise RuntimeError("cuCtxPushCurrent failed: unspecified launch failure")
        self.stack.append(self)

    def detach(self) -> None:
        self.is_detached = True
        if not self.is_other_thread:
            self.stack.append(self)


def pycuda(stack: list[Any], context: Context) -> PyCuda:
    api = PyCuda.__new__(PyCuda)
    errors = {"Error": RuntimeError, "MemoryError": MemoryError}
    api._cuda = SimpleNamespace(Context=SimpleNamespace(pop=stack.pop), **errors)
    api._graphs = SimpleNamespace(current_context=lambda: id(stack[-1]) if stack else 0, pop_context=stack.pop)  # type: ignore[assignment]
    api._context, api._objects, api._kernels = context, {}, {}
    return api


@pytest.mark.parametrize("is_other_thread", [False, True], ids=["own thread", "another thread"])
@pytest.mark.parametrize("is_lost", [False, True], ids=["well", "lost"])
def test_pycuda_leaves_the_contexts_of_others_where_they_are(is_other_thread: bool, is_lost: bool) -> None:
    stack: list[Any] = ["the context of another library"]
    context = Context(stack, is_other_thread=is_other_thread, is_lost=is_lost)
    api = pycuda(stack, context)
    api.close()
    api.close()
    assert stack == ["the context of another library"]
    assert context.is_detached


def test_pycuda_waits_without_spinning() -> None:
    made: list[int] = []
    api = pycuda([], Context([], is_other_thread=False))
    api._cuda.event_flags = SimpleNamespace(DISABLE_TIMING=2, BLOCKING_SYNC=1)
    api._cuda.Event = lambda flags: made.append(flags) or object()
    api.create_event()
    assert made == [3]


def test_bindings_wait_without_spinning() -> None:
    given: list[object] = []
    api = bindings(Driver())
    api._number = int
    api._driver = SimpleNamespace(cuEventCreate=lambda flags: given.append(flags) or (0, 7))
    assert api.create_event() == 7
    assert given == [3]


def test_a_failed_call_is_an_error_with_the_drivers_name_for_it() -> None:
    with pytest.raises(ModelError, match=r"cuEventCreate failed: CUDA_ERROR_LAUNCH_FAILED \(719\)"):
        bindings(Driver("cuEventCreate"))._call("cuEventCreate", 3)
