"""ONNX Runtime on the CPU: runs any `.onnx`, everywhere.

The session uses every core for one inference, so the thread that calls `result` computes a `Pending` while
the submitting thread prepares the next batch. This module starts no threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.base import BackendOptions, TensorSpec, check_feeds, image_spec
from engine.backends.onnx_resize import resized_onnx
from engine.backends.pixels import HostImages
from engine.backends.resize import SizeChange
from engine.backends.slots import Slots
from engine.errors import ConfigError, EngineError, ModelError
from engine.optional import require

DTYPE_BY_TYPE: dict[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeBackend:
    """Runs an ONNX file with ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, path: Path, options: BackendOptions | None = None) -> None:
        self._path = Path(path)
        self._options = options or BackendOptions()
        self._session: Any = None
        self._slots: Slots[HostImages] | None = None
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.depth = self._options.depth or 2

    @property
    def precision(self) -> str:
        """The precision of the file: ONNX Runtime's CPU provider does not convert."""
        return "as stored"

    def open(self) -> None:
        """Load the model. Raises `ModelError`."""
        if self._session is not None:
            return
        runtime = require("onnxruntime")
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = self._options.threads or 0
        # spinning between inferences costs everything else 10 to 33 % more CPU time
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = runtime.InferenceSession(self._model(), settings, providers=["CPUExecutionProvider"])
        except EngineError:
            raise
        except Exception as error:  # the runtime raises a dozen classes of its own, all meaning a bad model
            raise ModelError(f"{self._path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        self._adopt(session)

    def _model(self) -> str | bytes:
        """Return the file, or its content at another image size. Raises `FixedSizeError`."""
        image, exported_hw = self._options.image, self._options.exported_hw
        if image is None or exported_hw is None or not self._options.is_resized:
            return str(self._path)
        return resized_onnx(self._path, SizeChange(exported_hw, image.size_hw))

    def _adopt(self, session: Any) -> None:
        model_inputs = _specs(session.get_inputs(), "input", self._path)
        self.outputs = _specs(session.get_outputs(), "output", self._path)
        image = self._options.image
        first = model_inputs[0]
        self.inputs = (image_spec(first.name, image, first.shape[0]), *model_inputs[1:]) if image else model_inputs
        self._slots = Slots([HostImages(first, self._options.image) for _ in range(self.depth)])
        self._session = session

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return uninitialised memory of this shape."""
        return np.empty(tuple(shape), dtype)

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> OnnxRuntimePending:
        """Keep the feeds; `result` runs the inference. Raises `ConfigError` as `Backend.submit`."""
        if self._slots is None:
            raise ConfigError("the backend is closed: call open() first")
        check_feeds(self.inputs, feeds)
        return OnnxRuntimePending(self, self._slots.take(), feeds)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Run an inference now, on this thread, on (b, ...) tensors as the model defines them.

        Raises:
            ModelError: the inference failed.
            ConfigError: the backend is closed.
        """
        session = self._session
        if session is None:
            raise ConfigError("the backend was closed before the result was taken")
        try:
            return tuple(session.run(None, dict(feeds)))
        except Exception as error:  # the runtime raises a dozen classes of its own
            raise ModelError(f"{self._path}: inference failed: {_first_line(error)}") from error

    def give_back(self, slot: HostImages) -> None:
        """Make a slot free again."""
        if self._slots is not None:
            self._slots.give(slot)

    def close(self) -> None:
        """Free the session."""
        self._session = None
        self._slots = None


class OnnxRuntimePending:
    """An inference that runs when `result` is called."""

    def __init__(self, backend: OnnxRuntimeBackend, slot: HostImages, feeds: Mapping[str, NDArray[Any]]) -> None:
        self._backend = backend
        self._slot: HostImages | None = slot
        self._feeds = feeds
        self._outputs: tuple[NDArray[Any], ...] | None = None

    def result(self) -> tuple[NDArray[Any], ...]:
        """Infer, and return the (b, ...) outputs. Raises `ModelError`, or `ConfigError` after `release`."""
        if self._slot is None:
            raise ConfigError("the result has already been released")
        if self._outputs is None:
            self._outputs = self._backend.run(self._slot.model_feeds(self._feeds))
        return self._outputs

    def release(self) -> None:
        """Give the slot back."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._backend.give_back(slot)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _specs(nodes: Sequence[Any], kind: str, path: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for index, node in enumerate(nodes):
        if node.type not in DTYPE_BY_TYPE:
            raise ModelError(f"{path}: {kind} {node.name} has type {node.type}: expected a tensor of numbers")
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
        specs.append(TensorSpec(node.name or f"{kind}{index}", shape, DTYPE_BY_TYPE[node.type]))
    if not specs:
        raise ModelError(f"{path}: the model has no {kind}")
    return tuple(specs)
