"""Sends log lines of child processes to the engine, so that they appear in its log with its levels and handlers."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

PACKAGE = "engine"
FAULTS = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, AssertionError)
"""Errors that only a bug or a missing package raises, so the next attempt would fail in the same way."""
_MAX_CHARS = 4000


def current_level() -> int:
    """Return the lowest level that the engine logs, to pass it to a child."""
    return logging.getLogger(PACKAGE).getEffectiveLevel()


class Sends(Protocol):
    """A connection that sends messages."""

    def send_bytes(self, message: bytes) -> None:
        """Send a message."""


class LogToEngine(logging.Handler):
    """Sends each record as the message `{"log": [level, logger, text]}`.

    Args:
        connection: to the engine.
        level: lowest level to send.
    """

    def __init__(self, connection: Sends, level: int) -> None:
        super().__init__(level)
        self._connection = connection
        logger = logging.getLogger(PACKAGE)
        logger.handlers, logger.propagate = [self], False
        logger.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; drop it if that fails, because the engine has exited."""
        text = self.format(record)[:_MAX_CHARS]
        with suppress(OSError, ValueError):
            self._connection.send_bytes(json.dumps({"log": [record.levelno, record.name, text]}).encode())


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record of a child: its level, the name of its logger, and its text."""

    level: int
    logger: str
    text: str


def log_line_from(message: dict[str, Any]) -> LogLine:
    """Return the record in `{"log": [level, logger, text]}`, without control characters.

    Raises:
        ValueError: our children never send such a record.
    """
    match message:
        case {"log": [int(level), str(name), str(text)]} if 0 <= level <= logging.CRITICAL and len(message) == 1:
            is_ours = name.split(".")[0] == PACKAGE and len(name) <= _MAX_CHARS
            if is_ours and len(text) <= _MAX_CHARS:
                safe = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
                return LogLine(level, name, safe)
    raise ValueError("a record that is not a level, a logger of the engine and a text")


def take_log(message: dict[str, Any], who: str) -> bool:
    """Log a child's message if it is a log record, and return whether it was.

    Args:
        message: the child's message.
        who: prefix of the text, for example the source; may be empty.
    """
    if "log" not in message:
        return False
    with suppress(ValueError):
        line = log_line_from(message)
        logging.getLogger(line.logger).log(line.level, "%s%s", f"{who}: " if who else "", line.text)
    return True
