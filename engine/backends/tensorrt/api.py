"""One interface to TensorRT and TensorRT-RTX, whichever is installed: one logger, one type table, features by name.

Both libraries have nearly the same Python API. Differences between 10.3, 10.13, 11.4 and RTX 1.7 are detected by
whether a name exists, never by version. The GPU is probed before either library is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from engine.backends.base import TensorSpec
from engine.backends.cuda.probe import CudaProbe
from engine.errors import ConfigError, MissingDependencyError, ModelError
from engine.optional import install, require

logger = logging.getLogger(__name__)

Library = Literal["tensorrt", "tensorrt_rtx"]
LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
INSTALL = f"{install('tensorrt')} (or {install('rtx')}, which needs no CUDA toolkit); on a Jetson use its own"
NAMES: Mapping[str, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
CUDA_MAJORS = (11, 12, 13, 14)
"""CUDA versions that NVIDIA's package names carry; a package runs on every driver for that version or a later one."""

REFUSED_VERSIONS = ("10.2.",)
"""10.2 miscompiles strongly typed networks; 10.3 and later are supported."""

RTX_OLDEST = (8, 0)
"""TensorRT-RTX runs on sm_75 too, but only plans built for sm_75 alone; ours are for every newer GPU."""

DTYPE_BY_TYPE = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


@dataclass
class Messages:
    """The library's latest log messages, for error texts."""

    recent: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    def take(self) -> str:
        """Return the errors since the last call as one text without repetitions, and clear them."""
        lines = list(dict.fromkeys(self.recent))
        self.recent.clear()
        return "; ".join(lines)[:800] or "it gave no reason"


@dataclass(frozen=True)
class TensorRt:
    """The library in use.

    Attributes:
        module: the imported package.
        library: which one it is.
        version: as the library reports it.
        logger: the only logger of this process.
        messages: what that logger received.
    """

    module: Any
    library: Library
    version: str
    logger: Any
    messages: Messages

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX, which compiles for the present GPU when it loads a plan."""
        return self.library == "tensorrt_rtx"

    def make(self, kind: Callable[[Any], Any]) -> Any:
        """Return a new `Builder` or `Runtime`. Raises `ModelError` if the library cannot create one."""
        self.messages.take()
        try:
            return kind(self.logger)
        except TypeError as error:  # pybind11 raises it for a null pointer
            name = getattr(kind, "__name__", "part")
            raise ModelError(f"{self} cannot make a {name} ({error}): {self.messages.take()}") from error

    def __str__(self) -> str:
        return f"{NAMES[self.library]} {self.version}"


def installed_libraries() -> tuple[Library, ...]:
    """Return which of the two libraries are installed, without importing them."""
    return tuple(name for name in LIBRARIES if importlib.util.find_spec(name) is not None)


def installed_version(library: Library) -> str | None:
    """Return the version in a library's package metadata, without importing it; None if there is none."""
    names = (library, *(f"{library}_cu{major}_bindings" for major in CUDA_MAJORS))
    return next((version for name in names if (version := _package_version(name)) is not None), None)


def _needed_cuda(library: Library) -> int | None:
    """Return the CUDA major version that a library was built for, from its package names; a Jetson's do not say."""
    return next((major for major in CUDA_MAJORS if _package_version(f"{library}_cu{major}_bindings")), None)


def _package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def why_not_library(probe: CudaProbe, library: Library) -> str | None:
    """Return why `library` cannot run plans on the GPUs of `probe`, with the remedy, or None. Does not import it."""
    if probe.reason is not None:
        return probe.reason
    name, needed = NAMES[library], _needed_cuda(library)
    if needed is not None and probe.driver_version is not None and probe.driver_version < (needed, 0):
        found = ".".join(map(str, probe.driver_version))
        return f"{name} for CUDA {needed} needs a newer driver than this one for CUDA {found}: update the NVIDIA driver"
    version = installed_version(library)
    if version is not None and version.startswith(REFUSED_VERSIONS):
        return f"{name} {version} is known to build wrong plans: install 10.3 or later"
    if library == "tensorrt_rtx" and probe.gpus[0].compute_capability < RTX_OLDEST:
        oldest = "sm_{}{}".format(*RTX_OLDEST)
        return f"TensorRT-RTX needs a GPU of {oldest} or newer, this is {probe.gpus[0]}: install tensorrt"
    return None


def library_to_run(probe: CudaProbe) -> Library | None:
    """Return the installed library that runs on the GPUs of `probe`, preferably TensorRT; None if neither does."""
    return next((name for name in installed_libraries() if why_not_library(probe, name) is None), None)


def load_tensorrt(library: Library | None = None) -> TensorRt:
    """Return the named library, or the installed one, preferably TensorRT.

    Raises:
        MissingDependencyError: it is not installed, or does not load.
        ConfigError: this version does not work.
    """
    installed = installed_libraries()
    chosen = library or (installed[0] if installed else None)
    if chosen is None:
        raise MissingDependencyError(f"TensorRT is not installed: {INSTALL}")
    module = require(chosen, extra="rtx" if chosen == "tensorrt_rtx" else "tensorrt")
    version = str(module.__version__)
    if version.startswith(REFUSED_VERSIONS):
        raise ConfigError(f"TensorRT {version} is known to build wrong plans: install 10.3 or later")
    log, messages = _process_logger(chosen)
    return TensorRt(module, chosen, version, log, messages)


@lru_cache(maxsize=len(LIBRARIES))
def _process_logger(library: Library) -> tuple[Any, Messages]:
    """Return the process's only logger: the library keeps a pointer to the first one for the life of the process."""
    module = require(library)
    messages = Messages()
    level_by_severity = {
        module.ILogger.INTERNAL_ERROR: logging.ERROR,
        module.ILogger.ERROR: logging.ERROR,
        module.ILogger.WARNING: logging.WARNING,
        module.ILogger.INFO: logging.DEBUG,
        module.ILogger.VERBOSE: logging.DEBUG,
    }

    class ProcessLogger(module.ILogger):  # type: ignore[misc, name-defined]
        """Hands the library's messages to `logging` and keeps its errors."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Take one message."""
            level = level_by_severity.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                messages.recent.append(message.strip())
                level = logging.DEBUG  # the caller raises it as an error
            logger.log(level, "%s", message)

    return ProcessLogger(), messages


def dtype_name(tensor_type: Any) -> str:
    """Return numpy's name for a TensorRT data type, or TensorRT's own in lower case if numpy has none."""
    return DTYPE_BY_TYPE.get(tensor_type.name, str(tensor_type.name).lower())


def tensor_spec(name: str, shape: Any, tensor_type: Any) -> TensorSpec:
    """Return the spec of a tensor; TensorRT writes -1 for a dynamic size."""
    return TensorSpec(name, tuple(None if size < 0 else int(size) for size in shape), dtype_name(tensor_type))


def engine_specs(trt: TensorRt, engine: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of a deserialized engine."""
    specs: dict[bool, list[TensorSpec]] = {True: [], False: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.module.TensorIOMode.INPUT
        specs[is_input].append(tensor_spec(name, engine.get_tensor_shape(name), engine.get_tensor_dtype(name)))
    return tuple(specs[True]), tuple(specs[False])


def parse_onnx(trt: TensorRt, network: Any, content: bytes, path: str) -> None:
    """Parse an ONNX model into `network`.

    Args:
        trt: the library.
        network: an empty network definition.
        content: the model.
        path: the file it came from, for its external weights and for messages.

    Raises:
        ModelError: it is not a model, or uses operators that this library lacks, which are listed with their counts.
    """
    parser = trt.module.OnnxParser(network, trt.logger)
    if parser.parse(content, path):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    nodes = [error for error in errors if error.code().name in ("UNSUPPORTED_NODE", "INVALID_NODE")]
    operators = Counter(error.node_operator() for error in nodes)
    if operators:
        listed = ", ".join(f"{name or 'a node'} ({count} times)" for name, count in operators.most_common(6))
        raise ModelError(f"{path}: {trt} does not support {listed}")
    reasons = [f"{error.code().name}: {error.desc()}" for error in errors] or [trt.messages.take()]
    raise ModelError(f"{path}: {trt} cannot read it ({'; '.join(reasons)[:400]}): export it again")


def make_progress_monitor(trt: TensorRt, report: Callable[[float, str], None]) -> Any | None:
    """Return a progress monitor that calls `report(fraction, phase)`, or None if the library has none.

    If `report` raises (on Ctrl-C, for example), the build is cancelled and `monitor.failure` holds the exception.
    """
    if not hasattr(trt.module, "IProgressMonitor"):
        return None

    class Monitor(trt.module.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Turns nested phases into one fraction."""

        def __init__(self) -> None:
            trt.module.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._tree = PhaseTree()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Note a phase."""
            self._tree.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """Note its end."""
            self._tree.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Record a step; return False to cancel the build."""
            self._tree.step(phase_name, step)
            if self.failure is None:
                try:
                    report(self._tree.fraction, phase_name)
                except BaseException as error:  # noqa: BLE001 it must not travel through C++; raised after the build
                    self.failure = error
            return self.failure is None

    return Monitor()


class PhaseTree:
    """Turns the nested phases that TensorRT reports from any of its threads into one fraction that never decreases.

    >>> tree = PhaseTree()
    >>> tree.start("build", None, 4); tree.step("build", 0); tree.start("tactics", "build", 2); tree.step("tactics", 0)
    >>> tree.fraction
    0.375
    """

    def __init__(self) -> None:
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._furthest = 0.0
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of `steps` steps inside `parent`."""
        with self._lock:
            self._phases[name] = parent, max(steps, 1), 0

    def step(self, name: str, step: int) -> None:
        """Complete step number `step`, counted from 0."""
        with self._lock:
            if name in self._phases:
                parent, steps, _done = self._phases[name]
                self._phases[name] = parent, steps, min(step + 1, steps)

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            if name in self._phases:
                parent, _steps, _done = self._phases.pop(name)
                if parent is None:
                    self._furthest = 1.0

    @property
    def fraction(self) -> float:
        """Fraction of the whole that is done, 0 to 1."""
        with self._lock:
            roots = [name for name, (parent, _, _) in self._phases.items() if parent not in self._phases]
            self._furthest = max([self._furthest, *(self._of(name, 0) for name in roots)])
            return self._furthest

    def _of(self, name: str, depth: int) -> float:
        _parent, steps, done = self._phases[name]
        if depth > len(self._phases):
            return 0.0
        inner = max(
            (self._of(child, depth + 1) for child, phase in self._phases.items() if phase[0] == name), default=0
        )
        return min((done + inner) / steps, 1.0)
