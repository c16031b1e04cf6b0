"""The process that builds a plan while another backend serves: it can be killed, and it dies with the engine.

Started by `plan_rebuild.py` with a request as JSON and the descriptor of its lifeline; tells its progress and its end
on stdout, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.backends.plan_build import BuildOptions
from engine.backends.plan_cache import PlanCache
from engine.backends.tensorrt_file import MissingPlan
from engine.errors import EngineError
from engine.sources.child import die_with

NICENESS = 5
"""What serves meanwhile comes first."""


def request_from_missing(missing: MissingPlan) -> str:
    """Return the request as text."""
    return json.dumps(
        {"model": str(missing.model), "folder": str(missing.folder), "options": asdict(missing.options), "reason": ""}
    )


def missing_from_request(text: str) -> MissingPlan:
    """Return what is to be built."""
    fields = json.loads(text)
    options = fields["options"]
    options["batch"] = tuple(options["batch"])
    options["size_hw"] = None if options["size_hw"] is None else tuple(options["size_hw"])
    return MissingPlan(Path(fields["model"]), BuildOptions(**options), Path(fields["folder"]), fields["reason"])


def main(request: str, lifeline_fd: str) -> None:
    """Build, and tell how it went."""
    die_with(int(lifeline_fd))
    os.nice(NICENESS)
    missing = missing_from_request(request)
    try:
        built, _reason = PlanCache(missing.folder).get_or_build(missing.model, missing.options, report=_report)
    except (EngineError, OSError) as error:
        _tell(failed=str(error))
        return
    _tell(built=str(built.path))


def _report(share: float, phase: str) -> None:
    _tell(done=round(share, 3), phase=phase)


def _tell(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
