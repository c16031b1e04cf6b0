"""Parts by name: the built-in ones, those of installed packages, and `module:attribute`.

A package offers a part through an entry point, in the group `framewire.` plus the kind:

    [project.entry-points."framewire.trackers"]
    mine = "my_package.tracking:MyTracker"

Then `tracker.type: mine` finds it; `tracker.type: my_package.tracking:MyTracker` works without an entry point. A
built-in name cannot be replaced. Modules are imported when a part is chosen, never before.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from engine.errors import ConfigError, EngineError
from engine.optional import require_attribute

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

_REFERENCE = re.compile(r"(?<![\w.])[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_reference(text: object) -> bool:
    """Return whether a text is `module:attribute`.

    >>> is_reference("my.module:make"), is_reference("yolo11n.onnx"), is_reference("rtsp://camera/1")
    (True, False, False)
    """
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> EntryPoints:
    """Return the entry points of the packages on a search path: their metadata is read once for all kinds of parts."""
    from importlib.metadata import entry_points  # takes 10 ms, and built-in names do not need it

    return cast("EntryPoints", entry_points())  # of a similar type before Python 3.12


@dataclass(frozen=True, slots=True)
class Registry:
    """All parts of one kind.

    Attributes:
        kind: their name in messages: `tracker`.
        builtin: `module:attribute` by name.
    """

    kind: str
    builtin: Mapping[str, str]

    @property
    def group(self) -> str:
        """Group of the entry points."""
        return f"framewire.{self.kind}s"

    def names(self) -> list[str]:
        """Return the names of the built-in parts and of those that installed packages offer."""
        return [*self.builtin, *(point.name for point in self._points() if point.name not in self.builtin)]

    def load(self, name: str) -> Any:
        """Return the class, function or object of a name.

        Raises:
            ConfigError: an unknown name, or code that cannot be imported.
            MissingDependencyError: a built-in part whose package is not installed.
        """
        if name in self.builtin:
            return require_attribute(self.builtin[name])
        if is_reference(name):
            return self._imported(name, name)
        for point in self._points():
            if point.name == name:
                return self._imported(name, point.value)
        raise ConfigError(f"unknown {self.kind} {name!r}: {self._remedy(name)}")

    def make(self, name: str, parameters: Mapping[str, Any], *, protocol: type | None = None) -> Any:
        """Call the class or function of this name with these parameters and return the result.

        Args:
            name: as for `load`.
            parameters: keyword arguments.
            protocol: a runtime-checkable protocol that the result must have.

        Raises:
            ConfigError: as `load`, an unknown parameter, or a result that lacks a member; it names them.
        """
        factory = self.load(name)
        if not callable(factory):
            raise ConfigError(f"{self.kind} {name} is a {type(factory).__name__}: expected a class or a function")
        check_parameters(f"{self.kind} {name}", factory, parameters)
        try:
            made = factory(**parameters)
        except EngineError:
            raise
        except Exception as error:
            raise ConfigError(f"{self.kind} {name} cannot be made: {type(error).__name__}: {error}") from error
        if protocol is not None:
            check_members(f"{self.kind} {name}", made, protocol)
        return made

    def _points(self) -> list[EntryPoint]:
        return sorted(_installed(tuple(sys.path)).select(group=self.group), key=lambda point: point.name)

    def _imported(self, name: str, reference: str) -> Any:
        module, _, attribute = reference.partition(":")
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:
            raise ConfigError(
                f"{self.kind} {name}: module {module} cannot be imported ({type(error).__name__}: {error}): "
                "install its package, or put its folder on PYTHONPATH"
            ) from error
        for part in attribute.split("."):
            if not hasattr(found, part):
                close = difflib.get_close_matches(part, dir(found), n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(f"{self.kind} {name}: {module} has no {attribute}{hint}")
            found = getattr(found, part)
        return found

    def _remedy(self, name: str) -> str:
        names = self.names()
        if not names:
            return "expected module:attribute, because no installed package offers one by name"
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"expected one of {', '.join(names)}, or module:attribute{hint}"


def check_parameters(what: str, factory: Any, parameters: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for parameters that a class or function does not take or lacks, listing the valid ones."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # built in C: it reports the error itself
        return
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    unknown = [key for key in parameters if key not in signature.parameters]
    if unknown and not takes_any:
        expected = ", ".join(signature.parameters) or "none at all"
        raise ConfigError(f"{what} has no parameter {', '.join(unknown)}: expected some of {expected}")
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise ConfigError(f"{what}: {error}: give it under parameters") from error
    for name, value in parameters.items():
        if name in signature.parameters:
            _check_number(f"{what}: {name}", signature.parameters[name].annotation, value)


def _check_number(what: str, annotation: object, value: object) -> None:
    """Raise `ConfigError` if a parameter is annotated as a number, and is given a text, a switch or no number."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    kinds = {kind.strip() for kind in text.split("|")}
    if not kinds & {"int", "float"} or kinds - {"int", "float", "None"} or (value is None and "None" in kinds):
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{what} is {value!r}: expected a number, without quotes")
    if math.isnan(value):
        raise ConfigError(f"{what} is nan: expected a number")


def check_members(what: str, made: object, protocol: type) -> None:
    """Raise `ConfigError` unless an object has the members of a protocol; the missing ones are listed."""
    wanted = [name for name in dir(protocol) if not name.startswith("_")]
    wanted += [name for name in ("__iter__",) if name in vars(protocol)]
    missing = [name for name in wanted if not hasattr(made, name)]
    if missing:
        raise ConfigError(
            f"{what} made a {type(made).__name__} without {', '.join(missing)}: see engine.{protocol.__name__}"
        )
