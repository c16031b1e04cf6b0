"""`framewire ctl`: change a running engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import client_keys, named_source

if TYPE_CHECKING:
    pass


def ctl(
    command: Annotated[str, typer.Argument(help="status, add, remove, pause, resume, snooze, set or stop")],
    argument: Annotated[str | None, typer.Argument(help="add: [NAME=]URI; set: KEY; otherwise the NAME")] = None,
    value: Annotated[str | None, typer.Argument(help="set: the value, as YAML; snooze: 30m, 2h or off")] = None,
    address: Annotated[str | None, typer.Option(help="Control address; optional if only one run is active")] = None,
    server_key: Annotated[str | None, typer.Option(help="File NAME.key of a run that encrypts")] = None,
    keys: Annotated[str | None, typer.Option(help="Your file NAME.key_secret, whose public key the run lists")] = None,
) -> None:
    """Change a running engine (cameras, thresholds, classes, the model) or show its state."""
    from pipelines.history.times import span_s
    from pipelines.running.control import ask
    from pipelines.running.control_access import find_run

    request: dict[str, Any] = {"command": command}
    if command == "add" and argument is not None:
        request["source"] = named_source(argument)
    elif command == "set" and argument is not None:
        request |= {"key": argument, "value": _value_from_yaml(argument, value or "null")}
    elif command == "snooze" and argument is not None:
        request |= {"source_id": argument, "for_s": 0 if value == "off" else span_s(value or "1h", "snooze")}
    elif argument is not None:
        request["source_id"] = argument
    console.result_json(ask(address or find_run().address, request, **client_keys(server_key, keys)))


def _value_from_yaml(key: str, text: str) -> Any:
    """Return a value for a request. Raises `ConfigError` if it is not YAML, or cannot be written as JSON."""
    from engine.plain_yaml.reading import parsed_yaml

    value = parsed_yaml(text, f"set {key}: the value {text}")
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"set {key}: the value {text} cannot be sent ({error}): quote it to send a text") from error
    return value
