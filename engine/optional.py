"""Importing heavy or optional packages when they are first needed."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import MissingDependencyError

TELEMETRY = ("openvino_telemetry",)
"""Packages that send usage data when another package imports them. Every importer falls back to a stub."""
SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Environment variables that stop packages from sending usage data.

ONNX Runtime 1.32 sends it to its makers and stores a device id.
"""


def require(module: str, *, extra: str | None = None, hint: str | None = None) -> Any:
    """Return the imported `module`.

    Args:
        module: dotted name, for example `"tensorrt"`.
        extra: the extra of this distribution that installs it, for the error's remedy.
        hint: what to do instead, if no extra installs it.

    Raises:
        MissingDependencyError: the package is missing, or cannot be imported here.
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    try:
        with _without_telemetry:
            return importlib.import_module(module)
    except ImportError as error:
        remedy = hint or (install(extra) if extra else f"pip install {module.split('.')[0]}")
        raise MissingDependencyError(f"{module} cannot be imported ({error}): {remedy}") from error


def require_attribute(reference: str) -> Any:
    """Return the object that `module:attribute` names, importing its module. Raises `MissingDependencyError`.

    >>> require_attribute("math:tau") > 6
    True
    """
    module, _, attribute = reference.partition(":")
    return getattr(require(module), attribute)


def install(*extras: str) -> str:
    """Return the command that installs extras: by name, or in a checkout from its folder.

    >>> install("rtx").startswith("pip install ")
    True
    """
    place = "." if (Path(__file__).parents[1] / "pyproject.toml").is_file() else "framewire"
    return f'pip install "{place}[{",".join(extras)}]"'


class _Without:
    """Makes packages unimportable while any thread is in it, so that no import sends usage data or writes a client id.

    Threads import at the same time: only the last one to leave makes the packages importable again.
    """

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._lock = threading.Lock()
        self._inside = 0
        self._before: dict[str, ModuleType | None] = {}

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = {name: sys.modules.get(name) for name in self._packages}
                sys.modules.update(dict.fromkeys(self._packages))  # type: ignore[arg-type]  # None makes `import` raise
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            for name, package in self._before.items():
                if package is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = package


_without_telemetry = _Without(TELEMETRY)
