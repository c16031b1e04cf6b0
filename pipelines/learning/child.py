"""Runs work that needs torch in a separate process, which can be killed, dies with its parent, and alone loads torch.

The parent sends one request as JSON; the child answers with progress messages and ends with a result or an error.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError
from engine.process import MAX_MESSAGE_BYTES, Child, Messages, die_with

TASKS: Mapping[str, str] = {
    "attack": "pipelines.learning.testing.attack:attack_here",
    "efficientnet": "pipelines.learning.train.pretrained:export_here",
    "train": "pipelines.learning.train.work:train_here",
}
"""Function by task; each takes the request and a function that reports progress, and returns the result."""
END_S = 5.0
MOST_THREADS = 4
KINDS = {kind.__name__: kind for kind in (ConfigError, MissingDependencyError, ModelError)}
Fields = dict[str, Any]
Tell = Callable[[Fields], None]


class LearningError(EngineError):
    """The work in the child process failed; the message says why."""


def run_in_child(task: str, request: Mapping[str, Any], tell: Tell | None = None) -> Fields:
    """Run a task in a child process and return its result. Ctrl-C and any other exception end the child.

    Args:
        task: a key of `TASKS`.
        request: JSON values.
        tell: receives each progress message.

    Raises:
        ConfigError: raised by the task, as are the next two.
        MissingDependencyError: a package is missing.
        ModelError: a model cannot be used.
        LearningError: the task failed otherwise, or its process was killed.
    """
    child = Child("pipelines.learning.child")
    code: int | None = None
    try:
        child.say(json.dumps({"task": task, "request": dict(request)}).encode())
        result = _listen(child.connection, tell)
    except EngineError:  # the child has answered, and ends on its own
        child.end(END_S)
        raise
    except BaseException:
        child.end(0.0)
        raise
    code = child.end(END_S if result is not None else 0.5)
    if result is None:
        reason = "it was killed, probably because memory ran out" if code == -9 else f"it ended with code {code}"
        raise LearningError(f"the process for {task} gave no result: {reason}")
    return result


def _listen(connection: Messages, tell: Tell | None) -> Fields | None:
    """Return the result, None if the process ended without one."""
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return None
        if "result" in message:
            return dict(message["result"])
        if "error" in message:
            raise KINDS.get(message["kind"], LearningError)(message["error"])
        if tell is not None:
            tell(message)


def main() -> None:
    """Run the requested task. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    logging.getLogger().addHandler(logging.NullHandler())
    with Messages(connection_fd) as connection, suppress(BrokenPipeError, ConnectionResetError):
        asked = json.loads(connection.recv_bytes())

        def tell(fields: Fields) -> None:
            connection.send_bytes(json.dumps(fields).encode())

        tell(_outcome(asked["task"], asked["request"], tell))
    os._exit(0)  # destructors of native libraries have nothing to save, and may hang


def _outcome(task: str, request: Fields, tell: Tell) -> Fields:
    module, _, function = TASKS[task].partition(":")
    try:
        return {"result": getattr(importlib.import_module(module), function)(request, tell)}
    except EngineError as error:
        return {"error": str(error)[: MAX_MESSAGE_BYTES // 8], "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001 - any other error goes to the parent, with its place
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
        return {"error": text[: MAX_MESSAGE_BYTES // 8], "kind": "LearningError"}


def threads() -> int:
    """Return how many threads torch uses: `OMP_NUM_THREADS`, otherwise as many as there are cores, at most 4."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else min(MOST_THREADS, len(os.sched_getaffinity(0)))


def torch_for_training() -> Any:
    """Return torch on `threads()` threads, which sleep while they wait for each other.

    Spinning threads, torch's default, take three times the CPU time on a busy machine, and 20 times as long.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    from engine.optional import require

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is loaded
    torch = require("torch", extra="train")
    torch.set_num_threads(threads())
    return torch
