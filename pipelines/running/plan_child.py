"""The process that builds a plan while another backend runs: it can be killed, and it dies with the engine.

Protocol, on a stream of JSON messages: the engine sends a request; the process sends `{"done": 0.4, "phase": "..."}`
for progress, and `{"built": path}` or `{"failed": reason}` at its end.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.backends.tensorrt.build_plan import BuildOptions
from engine.backends.tensorrt.find_plan import MissingPlan
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.errors import EngineError
from engine.process import Messages, die_with

OOM_SCORE = 800
NICENESS = 5
"""Priority, so that the serving backend comes first."""


def request_from_missing(missing: MissingPlan) -> str:
    """Return the request as text."""
    return json.dumps(
        {"model": str(missing.model), "folder": str(missing.folder), "options": asdict(missing.options), "reason": ""}
    )


def missing_from_request(text: str) -> MissingPlan:
    """Return the request for the plan to build."""
    fields = json.loads(text)
    options = fields["options"]
    options["batch"] = tuple(options["batch"])
    options["size_hw"] = None if options["size_hw"] is None else tuple(options["size_hw"])
    return MissingPlan(Path(fields["model"]), BuildOptions(**options), Path(fields["folder"]), fields["reason"])


def main() -> None:
    """Build the requested plan and report the result. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    os.nice(NICENESS)
    _be_first_to_go()
    logging.getLogger().addHandler(logging.NullHandler())  # the engine receives everything important
    with Messages(connection_fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        missing = missing_from_request(connection.recv_bytes().decode())
        tell(connection, **build(missing, connection))


def _be_first_to_go() -> None:
    """Make the kernel kill this process before the engine if memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def build(missing: MissingPlan, connection: Messages) -> dict[str, str]:
    """Build the plan, report progress and return the outcome."""

    def report(share: float, phase: str) -> None:
        tell(connection, done=round(share, 3), phase=phase)

    try:
        built, _reason = PlanCache(missing.folder).get_or_build(missing.model, missing.options, report=report)
    except (EngineError, OSError) as error:
        return {"failed": str(error)}
    return {"built": str(built.path)}


def tell(connection: Messages, **fields: Any) -> None:
    """Send one message."""
    connection.send_bytes(json.dumps(fields).encode())
