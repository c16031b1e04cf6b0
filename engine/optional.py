"""Loading of heavy or optional packages, at the moment they are needed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import MissingDependencyError

TELEMETRY = ("openvino_telemetry",)
"""Packages that send usage data when another package imports them. Every importer has a stub to fall back on."""


def require(module: str, *, extra: str | None = None, hint: str | None = None) -> Any:
    """Return the imported `module`.

    Args:
        module: dotted name, for example `"tensorrt"`.
        extra: the extra of this distribution that brings it, for the error's remedy.
        hint: what to do instead, where no extra brings it.

    Raises:
        MissingDependencyError: the package is absent, or present and not importable here.
    """
    try:
        with _without(TELEMETRY):
            return importlib.import_module(module)
    except ImportError as error:
        remedy = hint or (f'pip install "framewire[{extra}]"' if extra else f"pip install {module.split('.')[0]}")
        raise MissingDependencyError(f"{module} cannot be imported ({error}): {remedy}") from error


@contextmanager
def _without(packages: tuple[str, ...]) -> Iterator[None]:
    """Make `packages` unimportable for a while, so that no import sends usage data or writes a client id."""
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
