"""Loads a model file in a child process first: if it crashes, hangs or eats memory there, the engine is unharmed.

A model file is untrusted input, and the libraries that load it are native code: OpenVINO crashes its process on some
damaged ONNX files. The child loads the file exactly as the engine would, runs it once on zeros, and reports the result.
A file that passed is remembered by the hash of its content, its weights and its options, so that it is tried once per
machine. Files of the package itself are not tried.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import resource
import signal
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends.base import Backend, BackendOptions
from engine.backends.files.base import read_model_file
from engine.errors import EngineError, ModelError
from engine.paths import user_cache
from engine.process import MAX_MESSAGE_BYTES, Child, Messages, die_with

logger = logging.getLogger(__name__)
TRIAL_S = 120.0
"""A model that takes longer to load is considered hung."""
MEMORY_BYTES, MEMORY_PER_BYTE = 4_000_000_000, 16
"""Maximum memory of the child, and the addition for each byte of the file."""
_ASSETS = Path(__file__).resolve().parents[1] / "assets"
_READ_BYTES = 1 << 20
_NICENESS = 5
_passed: set[tuple[Any, ...]] = set()


class Trial:
    """One file being tried by a child; `poll` never waits.

    Args:
        name: of the backend.
        path: the model file.
        options: how the backend loads it.

    Attributes:
        failure: why it must not be loaded; None if it may, or if that is not known yet.
    """

    def __init__(self, name: str, path: Path, options: BackendOptions) -> None:
        self._what = (name, path, options)
        self.failure: str | None = None
        self._child: Child | None = None
        self._deadline = time.monotonic() + TRIAL_S
        if _is_known(*self._what):
            return
        try:
            self._child = Child("engine.backends.trial")
        except OSError as error:
            logger.warning("%s is loaded without a trial: no process can be started (%s)", path, error)
            return
        with suppress(OSError):
            self._child.connection.send_bytes(pickle.dumps(self._what))

    def poll(self, wait_s: float = 0.0) -> bool:
        """Return whether the trial is over, waiting at most `wait_s`."""
        if self._child is None:
            return True
        left_s = self._deadline - time.monotonic()
        try:
            if self._child.connection.poll(max(min(wait_s, left_s), 0.0)):
                self._end(json.loads(self._child.connection.recv_bytes())["failure"])
            elif left_s <= 0:
                self._end(f"it has not loaded within {TRIAL_S:.0f} s in a separate process")
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            code = self._child.end(1.0)
            self._child = None
            self.failure = f"it crashes the process that loads it ({_how(code)}): the file is damaged or malicious"
        return self._child is None

    def close(self) -> None:
        """End the child if it is still running; harmless when repeated."""
        if self._child is not None:
            self._child.end(0.0)
            self._child = None

    def _end(self, failure: Any) -> None:
        self.close()
        self.failure = None if failure is None else str(failure)[:1000]
        if self.failure is None:
            _remember(*self._what)


def why_not_tried(name: str, path: Path, options: BackendOptions) -> str | None:
    """Return why a model file must not be loaded on a backend, or None if it may; waits for the trial."""
    trial = Trial(name, path, options)
    try:
        while not trial.poll(wait_s=1.0):
            pass
    finally:
        trial.close()
    return trial.failure


def try_model(backend: Backend, path: Path, options: BackendOptions) -> None:
    """Let a child load a model file before this process does. Raises `ModelError`: it must not be loaded."""
    if (reason := why_not_tried(backend.name, path, options)) is not None:
        raise ModelError(f"{path}: {backend.name}: {reason}")


def _how(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _is_known(name: str, path: Path, options: BackendOptions) -> bool:
    """Return whether a file need not be tried: ours, passed before, or for a runtime with its own checks."""
    if name == "tensorrt" or _ASSETS in path.resolve().parents:
        return True
    key = (name, options, *_stamps(path))
    if key in _passed:
        return True
    with suppress(OSError, RuntimeError):
        if _mark(name, path, options).is_file():
            _passed.add(key)
            return True
    return False


def _remember(name: str, path: Path, options: BackendOptions) -> None:
    _passed.add((name, options, *_stamps(path)))
    with suppress(OSError, RuntimeError):
        mark = _mark(name, path, options)
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch(mode=0o600)


def _stamps(path: Path) -> list[tuple[int, int, int]]:
    """Return a value that changes with the content of a model's files."""
    facts = [place.stat() for place in _files(path)]
    return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in facts]


def _files(path: Path) -> list[Path]:
    """Return the model file and its weights."""
    try:
        return [path, *read_model_file(path).weight_files]
    except EngineError:
        return [path]


def _mark(name: str, path: Path, options: BackendOptions) -> Path:
    """Return the file in the user's cache folder that records that this content has passed."""
    digest = hashlib.sha256(repr((name, _version(name), options)).encode())
    for place in _files(path):
        with place.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return user_cache() / "models-tried" / digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> None:
    """Try one model. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    os.nice(_NICENESS)
    logging.getLogger().addHandler(logging.NullHandler())
    with Messages(connection_fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        name, path, options = pickle.loads(connection.recv_bytes())  # from the engine, which started this process
        limit = MEMORY_BYTES + MEMORY_PER_BYTE * sum(place.stat().st_size for place in _files(path))
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        answer = json.dumps({"failure": _failure(name, path, options)}).encode()
        connection.send_bytes(answer[:MAX_MESSAGE_BYTES])


def _failure(name: str, path: Path, options: BackendOptions) -> str | None:
    """Return why a file does not load, or None if it does."""
    from engine.backends.select import create_backend

    try:
        backend = create_backend(name, path, options)
        backend.open()
    except MemoryError:
        return "it takes more memory than its size explains"
    except EngineError as error:
        return str(error).removeprefix(f"{path}: ")
    with suppress(Exception):  # an inference on zeros may fail, but must not end the process
        feeds = {spec.name: np.zeros([size or 1 for size in spec.shape], spec.dtype) for spec in backend.inputs}
        backend.submit(feeds).result()
    return None
