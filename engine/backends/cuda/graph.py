"""CUDA driver calls that pycuda does not wrap: graphs and the current context. Streams are plain handles."""

from __future__ import annotations

import ctypes
from typing import Any

from engine.backends.cuda.probe import DRIVER_LIBRARY, describe_error
from engine.errors import ModelError

CAPTURE_MODE_THREAD_LOCAL = 1
"""Calls from other threads do not disturb the capture."""


class DriverCalls:
    """CUDA graphs and the thread's context stack. The context must be current."""

    def __init__(self, library: str = DRIVER_LIBRARY) -> None:
        self._driver: Any = ctypes.CDLL(library)

    def begin_capture(self, stream: int) -> None:
        """Record what follows on `stream`."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), CAPTURE_MODE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Return the recorded graph, ready to launch. Raises `ModelError` if something cannot be recorded."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        if not graph.value:
            raise ModelError("the CUDA graph came out empty: something in it cannot be recorded")
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        """Run a graph on `stream`."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free(self, graph: int) -> None:
        """Free a graph."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def current_context(self) -> int:
        """Return the handle of this thread's current context, or 0 if there is none."""
        context = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        return int(context.value or 0)

    def pop_context(self) -> None:
        """Take the current context off this thread's stack."""
        self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            raise ModelError(f"{function} failed: {describe_error(self._driver, code)}")
