"""Log lines of child processes, sent to the engine so that they appear in its log, with its levels and handlers."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

PACKAGE = "engine"
FAULTS = (TypeError, AttributeError, NameError, ImportError, NotImplementedError, AssertionError)
"""What only a mistake in the code or a package that is missing raises: the next attempt fails in the same way."""
_MAX_CHARS = 4000


def current_level() -> int:
    """Return the level from which the engine's log takes records, to be given to a child."""
    return logging.getLogger(PACKAGE).getEffectiveLevel()


class LogToEngine(logging.Handler):
    """Sends each record as the message `{"log": [level, logger, text]}`.

    Args:
        connection: to the engine.
        level: lowest level that is sent.
    """

    def __init__(self, connection: Connection, level: int) -> None:
        super().__init__(level)
        self._connection = connection
        logger = logging.getLogger(PACKAGE)
        logger.handlers, logger.propagate = [self], False
        logger.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; one that cannot be sent is dropped, as the engine has gone then."""
        text = self.format(record)[:_MAX_CHARS]
        with suppress(OSError, ValueError):
            self._connection.send_bytes(json.dumps({"log": [record.levelno, record.name, text]}).encode())


def take_log(message: dict[str, Any], who: str) -> bool:
    """Log what a child has sent, and return whether the message was a record.

    Args:
        message: as the child sent it.
        who: named before the text, the source for example; may be empty.
    """
    if "log" not in message:
        return False
    level, name, text = message["log"]
    logging.getLogger(str(name)).log(int(level), "%s%s", f"{who}: " if who else "", text)
    return True
