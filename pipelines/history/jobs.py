"""Answers one question about the past for the page, in a separate process: one line of JSON in, JSON or MP4 out.

`{"rules": {...}}`: what rules would have raised; `{"recordings": {...}}`: what is recorded; `{"play": {...}}`: a
recording as fragmented MP4 after one line about it. The process dies with its parent, whose socket is its stdin.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, EngineError
from engine.process import die_with

NICE = 10
MAX_JOB_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 500
Job = Mapping[str, Any]


def main() -> None:
    """Answer the question on stdin."""
    os.nice(max(NICE - os.nice(0), 0))  # not in addition to the page's niceness: someone is waiting for the answer
    line = sys.stdin.buffer.readline(MAX_JOB_BYTES)
    with suppress(OSError):  # no socket: started by hand
        die_with(0)
    with suppress(BrokenPipeError):
        try:
            ((kind, job),) = json.loads(line).items()
            _KINDS[kind](job)
        except ConfigError as error:
            _tell({"refused": str(error)})
        except (EngineError, OSError) as error:
            _tell({"broken": str(error)})


def _tell(answer: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _rules(job: Job) -> None:
    """Report the events that rules would have raised, and the number that the run raised, by rule."""
    from engine.events.store.place import store_place
    from engine.events.store.reader import EventFilter, EventReader
    from pipelines.build.scene import scenes_of
    from pipelines.config.file import validated
    from pipelines.history.listing import as_json
    from pipelines.history.replay import compared, replay

    scenes = scenes_of(validated(job["config"], "rules", environment=False))
    begin, end = job["from_utc_ns"], job["to_utc_ns"]
    would, did = [], []
    with EventReader(store_place(job["events"], job["store"])) as reader:
        for name, scene in scenes.items():
            if name in job["sources"]:
                would += replay(reader, name, scene, begin, end)
                did += list(reader.events(EventFilter(name, from_utc_ns=begin, to_utc_ns=end)))
    would.sort(key=lambda event: -event.began_utc_ns)
    names = {rule["name"] for rule in job["config"]["rules"]}
    rules = {name: counts for name, counts in compared(would, did).items() if name in names}
    rules = {name: rules.get(name, {"would": 0, "did": 0}) for name in sorted(names)}
    _tell({"events": [as_json(event) for event in would[:MAX_EVENTS]], "total": len(would), "rules": rules})


def _recordings(job: Job) -> None:
    """Report the recorded pieces of a time span, and the gaps between them."""
    from pipelines.history.recorded import recorded_between

    _tell({"pieces": recorded_between(Path(job["folder"]), job["from_utc_ns"], job["to_utc_ns"])})


def _delete(job: Job) -> None:
    """Plan or carry out the deletion of a span of a source, or of one event."""
    from engine.events.store.place import store_place
    from pipelines.history.deleting import Span, delete, delete_event, planned, planned_event

    place = store_place(job["events"], job["store"])
    if job["event_id"] is not None:
        done = (delete_event if job["yes"] else planned_event)(place, job["event_id"])
    else:
        span = Span(job["source"], job["from_utc_ns"], job["to_utc_ns"])
        done = (delete if job["yes"] else planned)(place, span, [Path(each).parent for each in job["folders"]])
    _tell({"events": done.events, "files": done.files, "bytes": done.bytes, "failed": done.failed})


def _play(job: Job) -> None:
    """Send a span of a recording."""
    from pipelines.history.recorded import play

    play(Path(job["folder"]), job["from_utc_ns"], job["to_utc_ns"], _tell, sys.stdout.buffer)


_KINDS: Mapping[str, Callable[[Job], None]] = {
    "rules": _rules,
    "recordings": _recordings,
    "play": _play,
    "delete": _delete,
}

if __name__ == "__main__":
    main()
