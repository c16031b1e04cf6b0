"""MkDocs hook that generates pages of the documentation site from the code whenever the site is built.

- `reference/configuration.md`: every configuration key, from the pydantic models.
- `reference/cli.md`: every command and option, from the Typer application.
- `reference/messages.md`: every field of every message, from the JSON schemas (`docs_messages.py`).
- `reference/api/*.md`: every name in `engine.__all__`, one page per package of `engine`, from the docstrings.
- `how-to/examples.md`: the scripts in `examples/` with their source.
- `changelog.md`, `contributing.md`, `security.md`, `code-of-conduct.md`: the files at the root of the checkout.

`mkdocs.yml` names this file under `hooks`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import engine
from engine.tracking.registry import TRACKERS, tracker_parameters
from pipelines.cli import app
from pipelines.config.models import Config
from tools.docs.docs_messages import messages_page

CHECKOUT = Path(__file__).resolve().parents[2]
API_TITLE = "Python API"
NO_EXAMPLES = ("conftest", "test_examples")
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
BOUNDS = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the navigation entry of the API index with one entry per generated API page."""
    index = "reference/api/index.md"
    pages: list[Any] = [index]
    pages += [{room: f"reference/api/{room}.md"} for room in sorted(_rooms())]
    for section in config.nav or []:
        entries = next(iter(section.values()))
        if isinstance(entries, list):
            entries[:] = [{API_TITLE: pages} if entry == {API_TITLE: index} else entry for entry in entries]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in `docs/`."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the Markdown of every generated page by its path in the site."""
    api = {f"reference/api/{room}.md": _room_page(room, names) for room, names in _rooms().items()}
    return {
        "reference/configuration.md": configuration_page(),
        "reference/cli.md": cli_page(),
        "reference/messages.md": messages_page(),
        "reference/api/index.md": _api_index(),
        **api,
        "how-to/examples.md": examples_page(),
        **{page: _root_page(name) for name, page in ROOT_PAGES.items()},
    }


def _root_page(name: str) -> str:
    """Return a file from the checkout's root, with its links changed for the site."""
    text = (CHECKOUT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for other, page in ROOT_PAGES.items():
        text = text.replace(f"]({other})", f"]({page})")
    return text


EXAMPLES = (
    "# Examples\n\nPrograms of at most 40 lines that run on the embedded clip in seconds; tests run them all. "
    "Run them from a checkout: `python examples/minimal.py`. `examples/notebook.ipynb` is the same for "
    'Jupyter (`pip install "framewire[examples]"` brings pandas and matplotlib).\n'
)


def examples_page() -> str:
    """Return the page that shows every script in `examples/`."""
    scripts = [path for path in sorted((CHECKOUT / "examples").glob("*.py")) if path.stem not in NO_EXAMPLES]
    return EXAMPLES + "".join(_example(path) for path in scripts)


def _example(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    title = text.removeprefix('"""').partition(": python")[0]
    return f"\n## `{path.name}`\n\n{title}.\n\n```python\n{text}```\n"


# -- configuration -----------------------------------------------------------------------------------------------------


def configuration_page() -> str:
    """Return the page that lists every configuration key with its type, default, bounds and meaning."""
    head = (
        "# Configuration keys\n\n"
        "Every key of a configuration file, generated from the models that validate it. Durations are in seconds. "
        "`framewire check FILE` validates a file without running it, and `configs/reference.yaml` is the same list as "
        "YAML.\n\n"
        "- Unknown and repeated keys are rejected; keys that begin with `x-` are ignored and can hold anchors.\n"
        "- `${NAME}` in any text is replaced with the environment variable `NAME`, `${NAME:-text}` has a default.\n"
        "- `true` in place of a section means its defaults (`record: true`).\n"
        "- On the command line, `--set sources.0.transport=udp` sets one key; it overrides the file.\n"
    )
    return head + "\n".join(_section(Config, "")) + "\n" + _tracker_tables()


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    """Yield the heading and table of a model, then those of the models inside it."""
    inner = {name: model_in(field.annotation) for name, field in model.model_fields.items()}
    if path:
        yield f"\n## `{path}`\n\n{inspect.getdoc(model)}\n"
    yield "\n| key | type | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        yield _row(name, field, _path_of(path, name, field) if inner[name] else None)
    for name, field in model.model_fields.items():
        if child := inner[name]:
            yield from _section(child, _path_of(path, name, field))


def _path_of(parent: str, name: str, field: FieldInfo) -> str:
    return f"{parent}.{name}".lstrip(".") + _container_suffix(field.annotation)


def _container_suffix(annotation: Any) -> str:
    """Return the suffix of a key that holds many sections: `[]` for a list, `.NAME` for a mapping."""
    for option in _options(annotation):
        if typing.get_origin(option) is list:
            return "[]"
        if typing.get_origin(option) is dict:
            return ".NAME"
    return ""


def _row(name: str, field: FieldInfo, section: str | None) -> str:
    kind = f"[section](#{_anchor(section)})" if section else _code(_type(field.annotation)) + _bounds(field)
    return f"| `{name}` | {kind} | {_default(field, section)} | {_cell(field.description or '')} |"


def _anchor(path: str) -> str:
    return re.sub(r"[^a-z0-9_]", "", path.lower())


def _cell(text: str) -> str:
    """Return text escaped for a table."""
    return text.replace("<", "&lt;").replace("|", "&#124;")


def _code(text: str) -> str:
    """Return code for a table, where backticks do not protect a bar."""
    return f"<code>{_cell(text)}</code>"


def _default(field: FieldInfo, section: str | None) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if section and value is not None:
        return ""
    return _code(_as_yaml(value))


def _as_yaml(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _bounds(field: FieldInfo) -> str:
    signs = [
        f"{sign}{getattr(rule, key)}" for rule in field.metadata for key, sign in BOUNDS.items() if hasattr(rule, key)
    ]
    return f" {', '.join(signs)}" if signs else ""


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself, without the additions of `Annotated`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(option for member in typing.get_args(annotation) for option in _options(member))
    return (annotation,)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section class of a field that holds one section, an optional one, or many."""
    for option in _options(annotation):
        for candidate in (option, *typing.get_args(option)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                return candidate
    return None


def _type(annotation: Any) -> str:
    return " | ".join(_type_name(option) for option in _options(annotation))


def _type_name(option: Any) -> str:
    if option is type(None):
        return "null"
    arguments = typing.get_args(option)
    if typing.get_origin(option) is typing.Literal:
        return " | ".join(str(name) for name in arguments)
    if not arguments:
        return getattr(option, "__name__", str(option))
    inner = ", ".join(_type(argument) for argument in arguments)
    return f"{typing.get_origin(option).__name__}[{inner}]"


def _tracker_tables() -> str:
    tables = [_tracker_table(name) for name in TRACKERS]
    return "\n## Tracker parameters\n\nKeys of `tracker.parameters`, by `tracker.type`.\n" + "\n".join(tables)


def _tracker_table(name: str) -> str:
    rows = [
        f"| `{parameter.name}` | {_code(_as_yaml(parameter.default))} | {_cell(parameter.description)} |"
        for parameter in tracker_parameters(name)
    ]
    head = f"\n### `{name}`\n\n"
    if not rows:
        return head + "No parameters.\n"
    return head + "| parameter | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


# -- command line ------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page that lists every command with its arguments and options."""
    command = typer.main.get_command(app)
    head = (
        "# Command line\n\nEvery verb of `framewire`, generated from the program. `framewire VERB --help` prints the "
        "same.\n\nExit codes: 0 done, 1 the run failed, 2 bad configuration or arguments, 130 interrupted.\n"
    )
    return head + "\n".join(_verbs(command, "framewire"))


def _verbs(command: Any, path: str) -> Iterator[str]:
    children: dict[str, Any] = getattr(command, "commands", {})
    if not children:
        yield _verb(command, path)
    for name, child in children.items():
        yield from _verbs(child, f"{path} {name}")


def _verb(command: Any, path: str) -> str:
    rows = [_parameter(parameter) for parameter in command.params]
    table = "| argument | meaning |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    return f"\n## `{path}`\n\n{inspect.cleandoc(command.help or '')}\n\n{table}"


def _parameter(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    spellings = [(parameter.name or "").upper()] if is_argument else [*parameter.opts, *parameter.secondary_opts]
    names = " ".join(f"`{spelling}`" for spelling in spellings)
    return f"| {names} | {_cell(getattr(parameter, 'help', None) or '')} |"


# -- Python API --------------------------------------------------------------------------------------------------------


def _rooms() -> dict[str, list[str]]:
    """Return the public names grouped by their package in `engine`."""
    rooms: dict[str, list[str]] = defaultdict(list)
    for name in engine.__all__:
        rooms[_home(name).split(".")[1]].append(name)
    return rooms


def _home(name: str) -> str:
    return str(getattr(engine, name).__module__)


def _api_index() -> str:
    rows = [
        f"| [`{name}`]({room}.md#{_home(name)}.{name}) | {_cell(_summary(getattr(engine, name)))} |"
        for room, names in sorted(_rooms().items())
        for name in names
    ]
    head = (
        "# Python API\n\nEverything that `from engine import …` offers. These names are a contract: names are added, "
        "never renamed. Other modules may change between versions.\n\n| name | what it is |\n|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _summary(value: type | Callable[..., Any]) -> str:
    return (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")


def _room_page(room: str, names: list[str]) -> str:
    doc = inspect.getdoc(importlib.import_module(f"engine.{room}")) or ""
    entries = "\n\n".join(f"::: {_home(name)}.{name}" for name in names)
    return f"# {room}\n\n{doc.partition(chr(10) * 2)[0]}\n\n{entries}\n"
