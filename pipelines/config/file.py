"""Reads a configuration: YAML, environment variables, `--set` overrides, validation and helpful errors.

`${NAME}` is replaced by an environment variable to keep passwords out of files; `${NAME:-text}` has a default.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.errors import ConfigError
from engine.plain_yaml.reading import parsed_yaml, read_bytes
from engine.redaction import hide_setting, keep_readable, printable, redact
from pipelines.config.hints import expected_number, suggestion, why_no_configuration
from pipelines.config.models import Config
from pipelines.config.versions import upgraded

PRESETS = (Path(__file__).parents[1] / "presets", Path(__file__).parents[2] / "configs")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
EXTENSION = "x-"
MAX_TEXT_CHARS = 8192
READABLE = frozenset(("source_id", "name", "folder", "model"))  # never secret, even if a password is the same word
MAX_SHOWN_CHARS = 200
MAX_PROBLEMS = 20
_UNQUOTED = {
    "True": 'expected text: write "true" in quotes',
    "False": 'expected text: write "false" in quotes',
    "None": 'expected text: write "null" or "~" in quotes, or leave the key out',
}


def load_config(
    path: str | None, overrides: dict[str, Any], settings: Sequence[str] = (), *, may_be_empty: bool = True
) -> Config:
    """Return the validated configuration of a file or preset, with overrides.

    Args:
        path: YAML file, name of a preset (`webcam`), or None for the defaults.
        overrides: values by dotted key, from command-line options; they override the file.
        settings: `a.b=value` texts of `--set`, parsed as YAML; they override everything.
        may_be_empty: whether a file without any key means the defaults.

    Raises:
        ConfigError: names the file, the key, what was found and what was expected.
    """
    tree = _read(path) if path is not None else {}
    if not (tree or may_be_empty):
        raise ConfigError(f"configuration {path} is empty: for a run without cameras, write sources: []")
    for key, value in overrides.items():
        assign(tree, key, value)
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, for example --set detector.score_threshold=0.4")
        hide_setting(key, text)
        assign(tree, key, parsed_yaml(text, f"--set {key}: the value"))
    return validated(tree, path or "options")


def validated(tree: dict[str, Any], origin: str, *, environment: bool = True) -> Config:
    """Return the configuration described by a tree of plain values.

    Args:
        tree: plain values.
        origin: prefix of each message.
        environment: whether `${NAME}` is replaced; a request from a socket must not read variables of this process.

    Raises:
        ConfigError: lists the mistakes with their keys, after `origin`.
    """
    plain = _expand(tree) if environment else tree
    _take_in("", plain)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from error


def plain_tree(path: str) -> dict[str, Any]:
    """Return the plain values of another YAML file of ours, with `${NAME}` replaced and its secrets registered.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or contains a text that no configuration may contain.
    """
    try:
        text = read_bytes(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"configuration {path} cannot be read ({error}): give a YAML file") from error
    tree = parsed_yaml(text, f"configuration {path}")
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration {path} holds a {type(tree).__name__}: expected keys with values")
    plain = _expand({key: value for key, value in tree.items() if not str(key).startswith(EXTENSION)})
    _take_in("", plain)
    return dict(plain)


def explained(error: ValidationError, origin: str, root: type[BaseModel]) -> str:
    """Return one line per problem of a section that is not part of `Config`."""
    return _explain(error, origin, root)


def preset_names() -> list[str]:
    """Return the names of the configurations that come with the package."""
    return sorted({file.stem for folder in PRESETS for file in folder.glob("*.yaml")})


def _read(path: str) -> dict[str, Any]:
    if "://" in path:
        raise ConfigError(f"{redact(path)} is a source, not a configuration: give it as --source {redact(path)}")
    file = Path(path)
    if not file.is_file():
        presets = [folder / f"{path}.yaml" for folder in PRESETS]
        file = next((preset for preset in presets if preset.is_file()), file)
    other = why_no_configuration(str(file))
    if other is not None:
        option = "--model" if other == "a model" else "--source"
        raise ConfigError(f"{path} is {other}, not a configuration: give it as {option} {path}")
    try:
        text = read_bytes(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"configuration {path} cannot be read ({error}): give a YAML file or one of {', '.join(preset_names())}"
        ) from error
    tree = parsed_yaml(text, f"configuration {path}")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"configuration {path} holds a {type(tree).__name__}: expected keys such as sources, detector"
        )
    return upgraded({key: value for key, value in tree.items() if not str(key).startswith(EXTENSION)}, path)


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, creating missing tables (`sources.0.realtime`). Raises `ConfigError`."""
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        if isinstance(node, list):
            node = _item(node, part, key)
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {key}: {part} is a value, it has no keys")
    if isinstance(node, list):
        _item(node, last, key)
        node[int(last)] = value
    else:
        node[last] = value


def _item(node: list[Any], part: str, key: str) -> Any:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"--set {key}: {part} is not an index into a list of {len(node)}: count from 0")
    return node[int(part)]


def _expand(value: Any) -> Any:
    """Replace `${NAME}` in every text with the environment variable."""
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def refuse_variables(value: Any) -> None:
    """Raise `ConfigError` for `${NAME}` in a request: its sender could read this process's environment."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            refuse_variables(item)
    elif isinstance(value, str) and _VARIABLE.search(value):
        raise ConfigError("${NAME} is not replaced in requests: write it into the configuration file of the run")


def _take_in(name: str, value: Any) -> None:
    """Check the texts of a tree and register its secrets, before any message can show them. Raises `ConfigError`."""
    if isinstance(value, dict):
        for key, item in value.items():
            keep_readable(str(key))
            _take_in(str(key), item)
    elif isinstance(value, list):
        for item in value:
            _take_in(name, item)
    elif isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS or "\0" in value or (not value.isprintable() and _is_unwritable(name, value)):
            found = printable(value, 80)
            raise ConfigError(f"{printable(name, 80)}: {found!r} is too long, or contains an invalid character")
        if name in READABLE and "://" not in value:
            keep_readable(value)
        hide_setting(name, value)


def _is_unwritable(name: str, text: str) -> bool:
    """Return whether a text cannot be written to any output; file names of sources need not be UTF-8."""
    try:
        text.encode(errors="surrogateescape" if name == "uri" else "strict")
    except UnicodeEncodeError:  # half of a surrogate pair, such as \\ud800
        return True
    return False


def _variable(match: re.Match[str]) -> str:
    name, default = match.groups()
    if default is not None:
        hide_setting(name, os.environ.get(name) or default)
        return os.environ.get(name) or default
    if name not in os.environ:
        raise ConfigError(f"the configuration uses ${{{name}}}, and the environment has no {name}: export it")
    hide_setting(name, os.environ[name])
    return os.environ[name]


def _explain(error: ValidationError, origin: str, root: type[BaseModel] = Config) -> str:
    """Return one line per problem: its place, its cause and the nearest known key."""
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems[:MAX_PROBLEMS]:
        where = printable(".".join(str(part) for part in problem["loc"]), MAX_SHOWN_CHARS)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key{suggestion(root, problem['loc'])}")
        else:
            found = "" if problem["type"] == "missing" or not where else f" (found {_shown(problem['input'])})"
            message = _UNQUOTED.get(repr(problem["input"]), "") if problem["type"] == "string_type" else ""
            if problem["type"] == "finite_number":
                message = expected_number(root, problem["loc"])
            message = message or problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}{found}" if where else message)
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"{len(problems) - MAX_PROBLEMS} more mistakes")
    return f"{origin}: " + f"\n{origin}: ".join(lines)


def _shown(value: Any) -> str:
    """Return a value for quoting in a message: short and without secrets."""
    text = redact(reprlib.repr(value) if not isinstance(value, str) else repr(value[:MAX_TEXT_CHARS]))
    return printable(text, MAX_SHOWN_CHARS)
