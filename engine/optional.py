"""Importing heavy or optional packages when they are first needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import MissingDependencyError

TELEMETRY = ("openvino_telemetry",)
"""Packages that send usage data when another package imports them. Every importer falls back to a stub."""
SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Variables by which packages leave out usage data. ONNX Runtime 1.32 sends it to its makers, and keeps a device id."""


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
        with _without(TELEMETRY):
            return importlib.import_module(module)
    except ImportError as error:
        remedy = hint or (f'pip install "framewire[{extra}]"' if extra else f"pip install {module.split('.')[0]}")
        raise MissingDependencyError(f"{module} cannot be imported ({error}): {remedy}") from error


@contextmanager
def _without(packages: tuple[str, ...]) -> Iterator[None]:
    """Make `packages` unimportable inside the block, so that no import sends usage data or writes a client id."""
    before = {name: sys.modules.get(name) for name in packages}
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]  # None makes `import` raise
    try:
        yield
    finally:
        for name, package in before.items():
            if package is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = package
