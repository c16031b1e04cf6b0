"""A ledger in one SQLite file: the default, on the controller's own disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import ConfigError
from pipelines.fleet.ledger.records import Assignment, Change, LedgerError, checked, checked_note

BUSY_S = 1.0
"""The controller's thread waits so long for another program that reads the file, such as a backup."""
VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS assignments (source_id TEXT PRIMARY KEY, engine_id TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class SqliteLedger:
    """A ledger in a file; used by one thread.

    Args:
        path: the file, created if it is missing; `:memory:` stores nothing on disk.

    Raises:
        LedgerError: the file cannot be opened.
        ConfigError: it is not a ledger of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._is_open = False
        with self._explained():
            self._connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            self._is_open = True
            self._prepare()

    def _prepare(self) -> None:
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            self.close()
            raise ConfigError(f"ledger {self._path}: version {found}: expected {VERSION}; use a newer Framewire")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")  # an assigned epoch must survive a power cut
        self._connection.executescript(_TABLES)
        self._connection.execute(f"PRAGMA user_version={VERSION}")

    def read(self) -> dict[str, Assignment]:
        """Return all assignments by source_id."""
        with self._explained():
            rows = self._connection.execute("SELECT source_id, engine_id, epoch FROM assignments").fetchall()
        return {name: Assignment(name, engine_id, epoch) for name, engine_id, epoch in rows}

    def change(self, changes: Sequence[Change]) -> list[bool]:
        """Apply each change that is still valid in one transaction and return those applied."""
        checked(changes)
        with self._transaction():
            return [self._change(*one) for one in changes]

    def _change(self, before: Assignment | None, after: Assignment) -> bool:
        values = (after.engine_id, after.epoch, after.source_id)
        if before is None:
            sql = "INSERT OR IGNORE INTO assignments (engine_id, epoch, source_id) VALUES (?, ?, ?)"
            return self._connection.execute(sql, values).rowcount == 1
        sql = "UPDATE assignments SET engine_id=?, epoch=? WHERE source_id=? AND engine_id=? AND epoch=?"
        return self._connection.execute(sql, (*values, before.engine_id, before.epoch)).rowcount == 1

    def note(self, name: str) -> str | None:
        """Return the text stored under this name; None if there is none."""
        with self._explained():
            row = self._connection.execute("SELECT value FROM notes WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, name: str, before: str | None, after: str | None) -> bool:
        """Replace the text `before` with `after`, and return whether `before` was still stored."""
        checked_note(after)
        with self._transaction():
            if self.note(name) != before:
                return False
            if after is None:
                self._connection.execute("DELETE FROM notes WHERE name=?", (name,))
            else:
                self._connection.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, after))
            return True

    def close(self) -> None:
        """Close the file; safe to call again."""
        if self._is_open:
            self._is_open = False
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a failed commit may have ended it
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"ledger {self._path}: {error}: give a file that this user can write and no other program uses"
            ) from error
