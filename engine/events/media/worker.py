"""The process that reads and writes media files, because FFmpeg and disks can hang in uninterruptible calls.

Protocol, in whole messages: the engine sends `{"log_level": n, "network": bool}` first, then one job at a time:
`{"clip": {...}}`, `{"still": {...}}` or `{"tidy": {...}}`, and waits for its answer, an object under the same key. The
process runs at low priority, in a sandbox, and dies with the engine. Nothing here imports numpy.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.events.media.cut import Clip, Wanted, cut
from engine.events.media.still import StillWanted, still
from engine.process import Messages, die_with
from engine.process_log import LogToEngine
from engine.video.sandbox.confine import confine_files

logger = logging.getLogger(__name__)
NICE = 10


def main() -> None:
    """Serve until the engine hangs up. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    os.nice(NICE)
    with Messages(connection_fd) as connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        first = json.loads(connection.recv_bytes())
        LogToEngine(connection, first["log_level"])
        confine_files(has_network=first["network"])  # recordings contain whatever a camera sent
        while True:
            job = json.loads(connection.recv_bytes())
            connection.send_bytes(json.dumps(answer(job)).encode())


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job and return its answer; a bug ends the job, not the process."""
    (kind,) = job
    try:
        return {kind: _KINDS[kind](job[kind])}
    except (EngineError, OSError) as error:  # a full disk, for example
        return {kind: {"error": str(error)}}
    except Exception as error:
        logger.exception("the media process failed")
        return {kind: {"error": f"{type(error).__name__}: {error}"}}


def _clip(job: Mapping[str, Any]) -> dict[str, Any]:
    wanted = Wanted(Path(job["folder"]), job["start_ns"], job["end_ns"], Path(job["path"]), job["facts"], job["wait"])
    return clip_answer(cut(wanted))


def clip_answer(clip: Clip) -> dict[str, Any]:
    """Return a clip as plain values."""
    return {
        "state": clip.state,
        "reason": clip.reason,
        "paths": [str(path) for path in clip.paths],
        "sizes": clip.sizes,
        "began_ns": clip.began_ns,
        "ended_ns": clip.ended_ns,
        "sync": clip.sync,
        "is_final": clip.is_final,
    }


def _still(job: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(job["path"])
    made = still(StillWanted(Path(job["folder"]), job["utc_ns"], path, job["max_side"], job["facts"]))
    return {"bytes": made.bytes, "utc_ns": made.utc_ns, "reason": made.reason}


def _tidy(job: Mapping[str, Any]) -> dict[str, Any]:
    from engine.events.media.retention import tidy_answer

    return tidy_answer(job)


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"clip": _clip, "still": _still, "tidy": _tidy}
