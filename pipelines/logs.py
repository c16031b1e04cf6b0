"""Log records for machines and people: as JSON, without secrets, and rate-limited per cause."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone

from engine.redaction import printable, redact

JSON_VARIABLE = "FRAMEWIRE_LOG_JSON"
"""Tells child processes that every line on stderr is JSON."""
BURST = 10
WINDOW_S = 60.0
MAX_CAUSES = 1000
ANY_CLIENT = {"cause": "any client"}
"""`extra` of a record whose first argument strangers choose, so that they cannot make each one a cause of its own."""
_MORE = "repeated"


class RateLimit(logging.Filter):
    """Passes at most `burst` records of one cause per `window_s`; the next one states how many were suppressed.

    A cause is a logger, a template, and the first argument if it is text, usually the name of a source, or the record's
    `cause` if it has one. Debug records are not limited. Memory is bounded: if there are too many causes, the oldest
    are forgotten.

    Args:
        burst: records per window.
        window_s: length of a window.
        clock: for tests.
    """

    def __init__(
        self, burst: int = BURST, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst, self._window_s, self._clock = burst, window_s, clock
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to show a record."""
        if record.levelno <= logging.DEBUG:
            return True
        key, now = _cause_of(record), self._clock()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= self._window_s:
            left_out = count - self._burst
            if left_out > 0:
                setattr(record, _MORE, left_out)
            since, count = now, 0
            self._seen.pop(key, None)
        if key not in self._seen and len(self._seen) >= MAX_CAUSES:
            self._seen.pop(next(iter(self._seen)))
        self._seen[key] = since, count + 1
        return count < self._burst


def _cause_of(record: logging.LogRecord) -> tuple[str, str, str]:
    first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
    first = getattr(record, "cause", first)
    return record.name, str(record.msg)[:200], first[:200] if isinstance(first, str) else ""


class SafeFormatter(logging.Formatter):
    """Formats records, including tracebacks, without secrets and terminal control sequences."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable(redact(super().format(record))) + _left_out(record)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: `time`, `level`, `logger`, `message`, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(redact(record.getMessage())) + _left_out(record),
        }
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(fields)


def writes_json() -> bool:
    """Return whether the environment asks for JSON on stderr, as `--log-json` does for child processes."""
    return os.environ.get(JSON_VARIABLE, "").lower() in ("1", "true", "yes", "on")


def json_line(level: str, message: str) -> str:
    """Return a line as `JsonFormatter` would write it, for text that is not a log record."""
    record = logging.makeLogRecord({"levelname": level.upper(), "name": "framewire", "msg": message})
    return JsonFormatter().format(record)


def _left_out(record: logging.LogRecord) -> str:
    count = getattr(record, _MORE, 0)
    return f" ({count} more like this were left out)" if count else ""
