"""Loading of heavy or optional packages, at the moment they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from engine.errors import MissingDependencyError


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
        return importlib.import_module(module)
    except ImportError as error:
        remedy = hint or (f'pip install "framewire[{extra}]"' if extra else f"pip install {module.split('.')[0]}")
        raise MissingDependencyError(f"{module} cannot be imported ({error}): {remedy}") from error
