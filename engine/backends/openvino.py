"""OpenVINO on the CPU: the fastest backend on x86-64, for `.onnx`, IR (`.xml`) and `.tflite`.

Three things pay off (measured, docs/detection.md): several parallel requests of one thread each instead of one request
over all cores; uint8 images with the normalisation inside the graph; and computing the best class score there.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.base import BackendOptions, ClassScores, ImageInput, TensorSpec, check_feeds, image_spec
from engine.backends.choose_device import check_openvino_device
from engine.backends.compiled_models import compiled_models
from engine.backends.linked import real_files
from engine.backends.openvino_resize import operator_set, resize
from engine.backends.resize import FixedSizeError, SizeChange
from engine.backends.slots import Slots
from engine.errors import ConfigError, ModelError
from engine.optional import require

EXACT_CLASSES = 256
"""Class numbers above this are not exact in bf16 arithmetic."""
BROKEN = (RuntimeError, ValueError, OverflowError, MemoryError)
"""What OpenVINO raises for a bad file, including for names that are not text and numbers that are not sizes."""
SETTLE_MS = 10_000
"""How long to wait for a result that is no longer wanted."""
INSTALL_HINT = "pip install openvino, or choose --backend onnxruntime"

_core: Any = None
_core_lock = threading.Lock()


def shared_core() -> Any:
    """Return the one `openvino.Core` of this process; it stays loaded until the process ends.

    The CPU plugin gives the thread that loads it its own signal stack, and only that thread can take it back. If
    another thread unloads the plugin, the stack is freed while still in use, and the next Ctrl-C causes a segmentation
    fault.
    """
    global _core
    with _core_lock:
        if _core is None:
            _core = require("openvino", hint=INSTALL_HINT).Core()
        return _core


def why_not_device(device: str) -> str | None:
    """Return why OpenVINO cannot run on a device here, with the remedy, or None if it can."""
    try:
        check_openvino_device(device, shared_core().available_devices)
    except ConfigError as error:
        return str(error)
    return None


class OpenVinoBackend:
    """Runs a model with OpenVINO, on the CPU unless another device is chosen."""

    name = "openvino"

    def __init__(self, path: Path, options: BackendOptions | None = None) -> None:
        self._path = Path(path)
        self._options = options or BackendOptions()
        self._slots: Slots[_Request] | None = None
        self._compiled: Any = None
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.depth = self._options.depth or 1
        self.precision = "unknown until open"
        self.device = "cpu"

    def open(self) -> None:
        """Load and compile the model. Raises `ModelError`."""
        if self._compiled is not None:
            return
        openvino = require("openvino", hint=INSTALL_HINT)
        try:
            self._compile(openvino)
        except ConfigError:  # a ValueError too, but its message says enough
            raise
        except BROKEN as error:
            raise ModelError(f"{self._path}: OpenVINO cannot load it: {_reason(error)}") from error

    def _compile(self, openvino: Any) -> None:
        core = shared_core()
        with real_files(self._path) as path:
            model = _with_float_outputs(openvino, core.read_model(str(path)))
        specs = _specs(model.inputs, "input")
        outputs = _specs(model.outputs, "output")
        if not specs or not outputs:
            raise ModelError(f"{self._path}: the model has {len(specs)} inputs and {len(outputs)} outputs")
        if self._options.image is not None:
            _fix_sizes(openvino, model, specs[0], self._options)
            outputs = _specs(model.outputs, "output")
            specs = (image_spec(specs[0].name, self._options.image, _shape(model.inputs[0])[0]), *specs[1:])
            model = _with_image_input(openvino, model, self._options.image)
        if self._options.class_scores is not None:
            model = _with_best_class(openvino, model, self._options.class_scores)
            outputs = _specs(model.outputs, "output")
        device = check_openvino_device(self._options.device or "CPU", core.available_devices)
        compiled = core.compile_model(model, device, self._settings(device))
        self.inputs, self.outputs = specs, outputs
        if device != "CPU":
            self.device = ", ".join(compiled.get_property("EXECUTION_DEVICES")).lower()
        self.precision = _precision(compiled)
        self.depth = self._options.depth or _default_depth(compiled, self._options)
        self._slots = Slots([_Request(openvino, compiled, outputs) for _ in range(self.depth)])
        self._compiled = compiled

    def _settings(self, device: str) -> dict[str, Any]:
        """Return the settings: a GPU or NPU computes in its own precision unless one is asked for."""
        settings: dict[str, Any] = {"PERFORMANCE_HINT": self._options.performance.upper()}
        if self._options.precision or device == "CPU":
            settings["INFERENCE_PRECISION_HINT"] = self._options.precision or "f32"
        if self._options.threads and device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = self._options.threads
        if cache := self._options.cache_dir or compiled_models():
            settings["CACHE_DIR"] = str(cache)
        return settings

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return uninitialised memory of this shape."""
        return np.empty(tuple(shape), dtype)

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> OpenVinoPending:
        """Start an inference; the arrays are read in place. Raises `ConfigError` as `Backend.submit`."""
        if self._slots is None:
            raise ConfigError("the backend is closed: call open() first")
        request = self._slots.take()
        try:
            request.start(self.inputs, feeds)
        except BaseException:
            self._slots.give(request)
            raise
        return OpenVinoPending(request, self._slots, self._path)

    def close(self) -> None:
        """Free the model after the requests in flight have ended."""
        self._slots = None
        self._compiled = None


def _precision(compiled: Any) -> str:
    try:
        return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    except RuntimeError:  # not a property of this device
        return "as the device computes"


class _Request:
    """An infer request that reuses the tensors around its feeds and results.

    An inference evicts the caches, so each call into OpenVINO after it is slow: creating the tensors only once saves
    0.3 ms per inference (vtest, yolo11n INT8, 2 cores).
    """

    def __init__(self, openvino: Any, compiled: Any, outputs: Sequence[TensorSpec]) -> None:
        self._openvino = openvino
        self._native = compiled.create_infer_request()
        self._fed: dict[str, NDArray[Any]] = {}
        self._results: tuple[NDArray[Any], ...] | None = None
        ports = list(zip(compiled.outputs, outputs, strict=True))
        if all(port.partial_shape.is_static and port.element_type == openvino.Type(spec.dtype) for port, spec in ports):
            self._results = tuple(np.empty(tuple(port.shape), spec.dtype) for port, spec in ports)
            for index, array in enumerate(self._results):
                self._native.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))

    def start(self, inputs: Sequence[TensorSpec], feeds: Mapping[str, NDArray[Any]]) -> None:
        """Start an inference; the arrays are read in place. Raises `ConfigError` if they do not fit."""
        if (
            not self._fed
            or len(feeds) != len(self._fed)
            or any(feeds.get(name) is not array for name, array in self._fed.items())
        ):
            check_feeds(inputs, feeds)
            self._fed = {}
            arrays = {spec.name: np.ascontiguousarray(feeds[spec.name]) for spec in inputs}
            for index, array in enumerate(arrays.values()):
                self._native.set_input_tensor(index, self._openvino.Tensor(array, shared_memory=True))
            self._fed = arrays
        self._native.start_async()

    def wait(self) -> tuple[NDArray[Any], ...]:
        """Wait, and return views of the outputs."""
        self._native.wait()
        if self._results is not None:
            return self._results
        return tuple(tensor.data for tensor in self._native.output_tensors)

    def settle(self) -> None:
        """Wait until the inference has ended, whether it succeeded or not."""
        self._native.wait_for(SETTLE_MS)


class OpenVinoPending:
    """An inference in flight, on its own request."""

    def __init__(self, request: _Request, slots: Slots[_Request], path: Path) -> None:
        self._request: _Request | None = request
        self._slots = slots
        self._path = path
        self._has_ended = False

    def result(self) -> tuple[NDArray[Any], ...]:
        """Wait, and return views of the (b, ...) outputs. Raises `ModelError`, or `ConfigError` after `release`."""
        if self._request is None:
            raise ConfigError("the result has already been released")
        try:
            outputs = self._request.wait()
        except RuntimeError as error:
            raise ModelError(f"{self._path}: inference failed: {_reason(error)}") from error
        self._has_ended = True
        return outputs

    def release(self) -> None:
        """Wait until the request is idle and give it back."""
        request, self._request = self._request, None
        if request is not None:
            if not self._has_ended:
                request.settle()
            self._slots.give(request)


def check_size(path: Path, change: SizeChange) -> None:
    """Raise `FixedSizeError` unless the graph of a model can take images of another size."""
    openvino = require("openvino", hint=INSTALL_HINT)
    try:
        with real_files(path) as file:
            model = shared_core().read_model(str(file))
        shape = model.inputs[0].partial_shape
        if shape[0].is_dynamic:
            model.reshape({0: openvino.PartialShape([1, *list(shape)[1:]])})
        resize(openvino, model, change)
    except BROKEN as error:
        raise FixedSizeError(f"{path}: OpenVINO cannot read it: {_reason(error)}") from error


def _with_float_outputs(openvino: Any, model: Any) -> Any:
    """Return the model with the outputs that it rounds to bytes taken before their rounding."""
    before = [_before_rounding(port) for port in model.outputs]
    if all(source is None for source in before):
        return model
    rounded = [port.get_node().input_value(0) for port in model.outputs]
    outputs = [source or as_is for source, as_is in zip(before, rounded, strict=True)]
    return openvino.Model(outputs, model.get_parameters(), model.get_name())


def _before_rounding(port: Any) -> Any:
    """Return the float value behind an output of bytes (FakeQuantize, then Convert), or None for other outputs."""
    convert = port.get_node().input_value(0).get_node()
    if convert.get_type_name() != "Convert" or convert.get_output_element_type(0).is_real():
        return None
    quantize = convert.input_value(0).get_node()
    return quantize.input_value(0) if quantize.get_type_name() == "FakeQuantize" else None


def _fix_sizes(openvino: Any, model: Any, first: TensorSpec, options: BackendOptions) -> None:
    """Fix the dynamic sizes of the model: a static graph runs faster and takes less memory.

    If another image size is wanted than the file fixes, the graph is changed to take it. Raises `FixedSizeError`.
    """
    image, exported_hw = options.image, options.exported_hw
    if image is None:
        return
    if None in first.shape:
        rows, columns = exported_hw or image.size_hw
        sizes = (3, rows, columns) if image.layout == "nchw" else (rows, columns, 3)
        batch = first.shape[0] or (1 if options.max_batch == 1 else openvino.Dimension(1, options.max_batch))
        model.reshape({0: openvino.PartialShape([batch, *sizes])})
    if exported_hw is not None and options.is_resized:
        resize(openvino, model, SizeChange(exported_hw, image.size_hw))


def _with_image_input(openvino: Any, model: Any, image: ImageInput) -> Any:
    from openvino.preprocess import ColorFormat, PrePostProcessor

    steps = PrePostProcessor(model)
    first = steps.input(0)
    first.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    first.tensor().set_color_format(ColorFormat.BGR)
    first.model().set_layout(openvino.Layout(image.layout.upper()))
    pixels = first.preprocess().convert_element_type(openvino.Type.f32)
    if image.color == "rgb":
        pixels = pixels.convert_color(ColorFormat.RGB)
    if not model.inputs[0].element_type.is_real():  # a model that takes bytes does its own arithmetic
        return steps.build()
    if any(image.mean):
        pixels = pixels.mean(list(image.mean))
    if any(value != 1.0 for value in image.std):
        pixels.scale(list(image.std))
    return steps.build()


def _with_best_class(openvino: Any, model: Any, scores: ClassScores) -> Any:
    """Return the model with its class scores reduced to two rows, or unchanged if its first output has another form."""
    ops = operator_set()
    first = model.outputs[0]
    shape = _shape(first)
    rows = shape[1] if len(shape) == 3 else None
    if rows is None or first.element_type != openvino.Type.f32 or scores.count > EXACT_CLASSES:
        return model
    source = first.node.input_value(0)
    lengths = [scores.first, scores.count, rows - scores.first - scores.count]
    before, classes, *after = ops.variadic_split(source, 1, [length for length in lengths if length]).outputs()
    best = ops.topk(classes, 1, 1, "max", "value", index_element_type="i32")
    merged = ops.concat([before, best.output(0), ops.convert(best.output(1), "f32"), *after], 1).output(0)
    merged.set_names(first.get_names())
    results = [ops.result(merged), *(port.node for port in model.outputs[1:])]
    return openvino.Model(results, model.get_parameters(), model.get_friendly_name())


def _default_depth(compiled: Any, options: BackendOptions) -> int:
    """Return the requests that keep all cores busy.

    For throughput, this is one more than OpenVINO has streams: the extra one waits in OpenVINO's queue while another
        result is decoded and the next frame is prepared. On 2 cores this gives 75 fps instead of 54 to 63 with one per
        stream (vtest,
    yolo11n INT8).
    """
    if options.performance == "latency":
        return 1
    return int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 1


def _specs(ports: Sequence[Any], kind: str) -> tuple[TensorSpec, ...]:
    specs = []
    for index, port in enumerate(ports):
        name = min(port.get_names(), default=f"{kind}{index}")
        specs.append(TensorSpec(name, _shape(port), np.dtype(port.element_type.to_dtype()).name))
    return tuple(specs)


def _shape(port: Any) -> tuple[int | None, ...]:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if size.is_dynamic else int(size.get_length()) for size in shape)


def _reason(error: BaseException) -> str:
    """Return the line of an OpenVINO error that states the problem; the others name OpenVINO's source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", 'Check "', "While"))]
    return (telling or lines or [type(error).__name__])[-1][:300]
