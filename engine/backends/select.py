"""The table of backends, and which one runs a model file.

Each backend is a row in `BACKENDS`. Its module is imported only when it is chosen.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

from engine.backends.base import Backend, BackendOptions
from engine.backends.files.onnx import read_onnx
from engine.backends.resize import FixedSizeError, SizeChange
from engine.errors import ConfigError, MissingDependencyError, ModelError
from engine.optional import install, require_attribute
from engine.paths import is_remote_model
from engine.registry import Registry, is_reference


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """Where a backend is defined and what it can run.

    Attributes:
        target: `module:Class`, constructed as `Class(path, BackendOptions)`.
        packages: distributions, one of which must be importable; empty if `probe` decides alone.
        suffixes: model files it runs.
        install: what to do if it is missing.
        probe: `module:function`, called with the path; returns why the backend cannot run here, or None.
        reason: why `auto` prefers it to the rows below it.
        resize: `module:function`, called with the path and a `SizeChange`; raises `FixedSizeError` if the graph cannot
            take that. None: the backend runs a model at one size only.
        has_windows: whether it also runs on windows of a frame, which pays where the cost of an inference is its area.
    """

    target: str
    packages: tuple[str, ...]
    suffixes: tuple[str, ...]
    install: str
    probe: str | None = None
    reason: str = ""
    resize: str | None = None
    has_windows: bool = True


REMOTE = "kserve"
BACKENDS: Mapping[str, BackendEntry] = MappingProxyType(
    {  # in the order in which `auto` tries them
        "tensorrt": BackendEntry(
            target="engine.backends.tensorrt.backend:TensorRtBackend",
            packages=("tensorrt", "tensorrt_rtx"),
            suffixes=(".plan", ".engine", ".onnx"),
            install=f"{install('tensorrt')} (CUDA toolkit) or {install('rtx')} on a machine with an NVIDIA GPU",
            probe="engine.backends.tensorrt.backend:why_not",
            reason="the fastest on an NVIDIA GPU",
            resize="engine.backends.onnx_resize:resized_onnx",  # a plan per size is built from that
            has_windows=False,
        ),
        "openvino": BackendEntry(
            target="engine.backends.openvino:OpenVinoBackend",
            packages=("openvino",),
            suffixes=(".xml", ".onnx", ".tflite"),
            install="pip install openvino",
            reason="the fastest on an x86-64 CPU",
            resize="engine.backends.openvino:check_size",
        ),
        "onnxruntime": BackendEntry(
            target="engine.backends.onnxruntime:OnnxRuntimeBackend",
            packages=("onnxruntime",),
            suffixes=(".onnx",),
            install="pip install onnxruntime",
            reason="runs ONNX on every CPU",
            resize="engine.backends.onnx_resize:resized_onnx",
        ),
        REMOTE: BackendEntry(
            target="engine.backends.remote.backend:KServeBackend",
            packages=("http",),
            suffixes=(),
            install="part of Python",
            reason="the model is on a server",
        ),
    }
)

REGISTRY = Registry("backend", {name: entry.target for name, entry in BACKENDS.items()})
"""Backends from other packages: entry points that name a `BackendEntry`."""


DYNAMIC_QUANTISATION = ("ConvInteger", "MatMulInteger")
"""ONNX operators on integers whose scales are found while the model runs."""


def all_backends() -> Iterator[tuple[str, BackendEntry]]:
    """Yield all backends in the order in which `auto` tries them; those of other packages come last."""
    yield from BACKENDS.items()
    for name in REGISTRY.names():  # reads the metadata of all packages
        if name not in BACKENDS and isinstance(entry := REGISTRY.load(name), BackendEntry):
            yield name, entry


def select_backend(path: Path, name: str = "auto", *, without: Collection[str] = ()) -> tuple[str, str]:
    """Return the name of the backend to run `path` with, and one line saying why.

    Args:
        path: the model file itself (for an IR folder, its `.xml`).
        name: a name of `BACKENDS`, or `auto` for the first that can run the file here.
        without: backends that `auto` leaves out.

    Raises:
        ConfigError: the name is unknown, the backend does not run such files, or no backend can run the file here.
    """
    if is_remote_model(path):
        return _select_remote(path, name, without)
    suffix = path.suffix.lower()
    if name != "auto":
        entry = _entry(name)
        if suffix not in entry.suffixes:
            fitting = [other for other, row in all_backends() if suffix in row.suffixes]
            raise ConfigError(f"backend {name} does not run {path.name}: use {' or '.join(fitting) or 'another file'}")
        return name, "requested"
    obstacles: list[str] = []
    slow: tuple[str, str] | None = None
    for candidate, entry in all_backends():
        if suffix not in entry.suffixes or candidate in without:
            continue
        obstacle = why_not(candidate, path)
        if obstacle is not None:
            obstacles.append(f"{candidate} is not usable: {obstacle}")
        elif slow is None and (drawback := why_slow(candidate, path)) is not None:
            slow = candidate, drawback
            obstacles.append(f"{candidate} {drawback}")
        else:
            return candidate, "; ".join([entry.reason, *obstacles])
    if slow is not None:
        return slow
    if not obstacles:
        known = sorted({known for _, row in all_backends() for known in row.suffixes})
        raise ConfigError(f"{path}: no backend runs {suffix or 'such'} files: expected one of {', '.join(known)}")
    raise ConfigError(f"{path}: {'; '.join(obstacles)}")


def _select_remote(path: Path, name: str, without: Collection[str]) -> tuple[str, str]:
    if name not in ("auto", REMOTE):
        raise ConfigError(f"backend {name} does not run {path}: a model on a server needs {REMOTE}, or auto")
    if REMOTE in without:
        raise ConfigError(f"{path}: only {REMOTE} runs a model on a server")
    return REMOTE, BACKENDS[REMOTE].reason


def create_backend(name: str, path: Path, options: BackendOptions) -> Backend:
    """Return the backend `name` for a model file; its `open` loads the model.

    Raises:
        ConfigError: the name is unknown.
        MissingDependencyError: its package is not installed.
    """
    entry = _entry(name)
    backend_class = cast(Callable[[Path, BackendOptions], Backend], require_attribute(entry.target))
    return backend_class(path, options)


def why_slow(name: str, path: Path) -> str | None:
    """Return why backend `name` runs a model slowly that another one could run, or None."""
    if name != "openvino" or path.suffix.lower() != ".onnx" or not path.is_file():
        return None
    try:
        operators = read_onnx(path).operators
    except (ModelError, OSError):
        return None  # loading the file reports what is wrong with it
    if not any(operator in operators for operator in DYNAMIC_QUANTISATION):
        return None
    return "computes dynamic quantisation in FP32 and converts around each layer (1.5 times the time of ONNX Runtime)"


def why_not(name: str, path: Path | None = None) -> str | None:
    """Return why backend `name` cannot run here, with the remedy, or None if it can."""
    entry = _entry(name)
    if path is not None and path.suffix.lower() not in entry.suffixes:
        return f"does not run {path.suffix} files"
    if not any(importlib.util.find_spec(package) for package in entry.packages):
        return f"not installed ({entry.install})"
    if entry.probe is None:
        return None
    try:
        probe = cast(Callable[[Path | None], str | None], require_attribute(entry.probe))
        return probe(path)
    except ImportError as error:
        return f"{error} ({entry.install})"


def can_resize(name: str) -> bool:
    """Return whether a backend can run models of a fixed size at other sizes."""
    return _entry(name).resize is not None


def has_windows(name: str) -> bool:
    """Return whether a backend can, and should, run models on windows of a frame."""
    entry = _entry(name)
    return entry.resize is not None and entry.has_windows


def why_not_size(name: str, path: Path, change: SizeChange) -> str | None:
    """Return why a backend that is usable here cannot run a model of fixed size at another one, or None if it can."""
    resize = _entry(name).resize
    if resize is None:
        return "runs a model at one size"
    try:
        cast(Callable[[Path, SizeChange], object], require_attribute(resize))(path, change)
    except (FixedSizeError, MissingDependencyError) as error:
        return str(error)
    return None


def _entry(name: str) -> BackendEntry:
    """Return the row of a backend: built-in, from another package, or `module:attribute`."""
    if not (name in BACKENDS or is_reference(name) or name in REGISTRY.names()):
        raise ConfigError(
            f'unknown backend "{name}": expected auto, {", ".join(REGISTRY.names())}, or module:attribute'
        )
    entry = BACKENDS.get(name) or REGISTRY.load(name)
    if not isinstance(entry, BackendEntry):
        raise ConfigError(f"backend {name} is a {type(entry).__name__}: expected a BackendEntry")
    return entry
