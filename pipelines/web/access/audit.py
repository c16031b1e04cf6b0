"""The audit log: who watched, changed or deleted what. The file is append-only and bounded."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.clock import SYSTEM_CLOCK, Clock
from engine.redaction import redact_tree

logger = logging.getLogger(__name__)
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_DETAIL_BYTES = 16 * 1024
MAX_KEPT = 1000
FILE_MODE = 0o600
OLDER = ".1"


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the audit.

    Attributes:
        utc_ns: time of the action.
        name: of the user or token; `local` where no login is needed.
        role: what they may do.
        client: the client's address.
        action: what they did, such as `places` or `login`.
        what: the object of the action.
        detail: the new values, if they are small.
    """

    utc_ns: int
    name: str
    role: str
    client: str
    action: str
    what: str = ""
    detail: Any = None


class Audit:
    """Writes entries to a file, and reads them. May be used from any thread.

    When the file is full, it is renamed to FILE.1, replacing an earlier one.

    Args:
        path: the file, made with mode 0600; None: the newest entries are kept in memory.
        clock: time.
        max_bytes: of one file.
    """

    def __init__(self, path: str | Path | None, clock: Clock = SYSTEM_CLOCK, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path = None if path is None else Path(path)
        self._clock, self._max_bytes = clock, max_bytes
        self._lock = threading.Lock()
        self._kept: deque[AuditEntry] = deque(maxlen=MAX_KEPT)

    def write(self, name: str, role: str, client: str, action: str, what: str = "", detail: Any = None) -> None:
        """Append an entry; if the file cannot be written, that is only logged."""
        detail = None if detail is None else redact_tree(detail)
        if detail is not None and len(msgspec.json.encode(detail)) > MAX_DETAIL_BYTES:
            detail = "too large to be stored here"
        entry = AuditEntry(self._clock.utc_ns(), name, role, client, action, what[:300], detail)
        with self._lock:
            self._kept.append(entry)
            if self.path is None:
                return
            try:
                self._append(self.path, msgspec.json.encode(entry) + b"\n")
            except OSError as error:
                logger.error("the audit cannot be written to %s: %s", self.path, error.strerror)

    def _append(self, path: Path, line: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        try:
            if os.fstat(handle).st_size + len(line) > self._max_bytes:
                os.replace(path, path.with_name(path.name + OLDER))
                os.close(handle)
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
            os.write(handle, line)  # one call, so that lines of several processes do not mix
        finally:
            os.close(handle)

    def read(self, limit: int = 100, before_utc_ns: int | None = None) -> list[AuditEntry]:
        """Return the newest entries before a time, newest first; lines that are damaged are left out."""
        found: list[AuditEntry] = []
        for entry in self._newest_first():
            if before_utc_ns is None or entry.utc_ns < before_utc_ns:
                found.append(entry)
                if len(found) >= limit:
                    break
        return found

    def _newest_first(self) -> Iterator[AuditEntry]:
        if self.path is None:
            with self._lock:
                yield from list(reversed(self._kept))
            return
        for path in (self.path, self.path.with_name(self.path.name + OLDER)):
            try:
                lines = path.read_bytes().splitlines()
            except OSError:
                continue
            for line in reversed(lines):
                try:
                    yield msgspec.json.decode(line, type=AuditEntry)
                except msgspec.MsgspecError:
                    continue
