"""One connection to the store, on SQLite or PostgreSQL, with the same statements (`:name` or `?`) for both."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.errors import SinkError
from engine.optional import require
from engine.redaction import hide_address, redact

BUSY_S = 5.0
CACHE_KB = 8192
POSTGRES_SCHEMES = ("postgresql://", "postgres://")
_PARAMETER = re.compile(r":([a-z_]+)\b")
_IO_ERROR = 10
_LEAST_FREE_BYTES = 64 * 1024
_CORRUPT_CODES = (11, 26)  # SQLITE_CORRUPT, SQLITE_NOTADB
Parameters = Mapping[str, Any]
Row = Sequence[Any]


class StoreError(SinkError):
    """The store cannot be opened, read or written; the message says what to do."""


class DamagedStoreError(StoreError):
    """The file is no longer a database."""


class BusyStoreError(StoreError):
    """The file cannot be used for now: another program holds it, as a backup does, or the disk is full."""


class RejectedError(StoreError):
    """A statement or its values can never succeed, so there is no point in retrying."""


class NewerStoreError(StoreError):
    """The store was made by a newer version of the program."""


def is_full(place: str | Path) -> bool:
    """Return whether the disk of a file or folder has no room for a few pages."""
    try:
        disk = os.statvfs(Path(place).parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES


class Database(ABC):
    """A connection; any thread may use it, one at a time."""

    blob: str
    """Type of a column of bytes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @abstractmethod
    def execute(self, statement: str, parameters: Parameters | None = None) -> list[Row]:
        """Run one statement and return its rows. Raises `StoreError`."""

    @abstractmethod
    def execute_many(self, statement: str, parameters: Sequence[Parameters] | Sequence[Row]) -> int:
        """Run one statement for each set of parameters, by name or in order; return the number of rows changed.

        Raises `StoreError`.
        """

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Commit everything inside at once, or nothing.

        Args:
            durable: return only when a power cut cannot undo it.
        """
        with self._lock:
            self.begin(durable=durable)
            try:
                yield
            except BaseException:
                with suppress(StoreError):
                    self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")

    @abstractmethod
    def begin(self, *, durable: bool) -> None:
        """Begin a transaction."""

    @abstractmethod
    def has_table(self, name: str) -> bool:
        """Return whether a table exists."""

    def is_there(self) -> bool:
        """Return whether the store still exists."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Close the connection; harmless when repeated."""


class SqliteDatabase(Database):
    """A connection to a file.

    Args:
        path: the file; created if it does not exist, unless `read_only`.
        read_only: whether it may only read.
        is_remote: the file is on a network file system, where the write-ahead log does not work.
    """

    blob = "BLOB"

    def __init__(self, path: Path, *, read_only: bool = False, is_remote: bool = False) -> None:
        super().__init__()
        self._path = path
        self._is_durable = False
        self._inode: int | None = None
        uri = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._explained(error) from error
        with suppress(OSError):
            self._inode = path.stat().st_ino
        self.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        if read_only:
            self.execute("PRAGMA query_only = 1")
        else:
            self.execute(f"PRAGMA journal_mode = {'TRUNCATE' if is_remote else 'WAL'}")
            self.execute("PRAGMA synchronous = NORMAL")

    def _explained(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", None)  # Python 3.11
        text = str(error)
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError):
            return RejectedError(f"{self._path}: {text}")
        if (code is not None and code & 0xFF in _CORRUPT_CODES) or "malformed" in text or "not a database" in text:
            return DamagedStoreError(f"{self._path} is damaged ({text})")
        if text == "database is locked":
            return BusyStoreError(f"{self._path}: {text}: another program holds it: stop that program, or wait")
        if text == "database or disk is full" or (
            code is not None and code & 0xFF == _IO_ERROR and is_full(self._path)
        ):
            return BusyStoreError(f"{self._path}: database or disk is full: free some space")
        remedy = {
            "unable to open database file": "choose a folder that exists, with write access",
            "attempt to write a readonly database": "give this user write access",
        }.get(text, "see the system log for the reason")
        return StoreError(f"{self._path}: {text}: {remedy}")

    def execute(self, statement: str, parameters: Parameters | None = None) -> list[Row]:
        """Run one statement and return its rows."""
        with self._lock:
            try:
                return self._connection.execute(statement, dict(parameters or {})).fetchall()
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def execute_many(self, statement: str, parameters: Sequence[Parameters] | Sequence[Row]) -> int:
        """Run one statement for each set of parameters."""
        with self._lock:
            try:
                return self._connection.executemany(statement, parameters).rowcount
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def begin(self, *, durable: bool) -> None:
        """Begin a transaction that writes."""
        if durable != self._is_durable:
            self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable
        self.execute("BEGIN IMMEDIATE")

    def has_table(self, name: str) -> bool:
        """Return whether a table exists."""
        return bool(self.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name", {"name": name}))

    def is_there(self) -> bool:
        """Return whether the file is still the one that was opened; rows written to a deleted file would be lost."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def check(self) -> None:
        """Raise `DamagedStoreError` if the file is damaged."""
        found = self.execute("PRAGMA quick_check(1)")
        if found[0][0] != "ok":
            raise DamagedStoreError(f"{self._path} is damaged ({found[0][0]})")

    def count_steps(self, every: int, count: Any) -> None:
        """Call `count` after every n steps of a statement; None stops that.

        For tests of how the cost of a query grows.
        """
        self._connection.set_progress_handler(count, every)

    def close(self) -> None:
        """Close the connection."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()


class PostgresDatabase(Database):
    """A connection to a PostgreSQL server.

    Args:
        url: `postgresql://user:password@host/database`.
        read_only: whether it may only read.
    """

    blob = "BYTEA"

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        super().__init__()
        hide_address(url)
        self._url = redact(url)
        self._psycopg = require("psycopg", extra="postgres")
        with self._errors():
            self._connection = self._psycopg.connect(url, autocommit=True, connect_timeout=5, **_KEEPALIVES)
            self._connection.read_only = read_only
        self.execute("SET client_min_messages = warning")
        self.execute("SET statement_timeout = '60s'")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            text = " ".join(str(error).split())
            if isinstance(
                error, self._psycopg.IntegrityError | self._psycopg.DataError | self._psycopg.ProgrammingError
            ):
                raise RejectedError(f"{self._url}: {redact(text)}") from error
            raise StoreError(f"{self._url}: {redact(text)}: check the server and the address") from error

    def execute(self, statement: str, parameters: Parameters | None = None) -> list[Row]:
        """Run one statement and return its rows."""
        with self._lock, self._errors():
            cursor = self._connection.execute(_percent(statement), parameters)
            return list(cursor.fetchall()) if cursor.description is not None else []

    def execute_many(self, statement: str, parameters: Sequence[Parameters] | Sequence[Row]) -> int:
        """Run one statement for each set of parameters."""
        with self._lock, self._errors(), self._connection.cursor() as cursor:
            cursor.executemany(_percent(statement), parameters)
            return int(cursor.rowcount)

    def begin(self, *, durable: bool) -> None:
        """Begin a transaction; one that need not be durable does not wait for the server's disk."""
        self.execute("BEGIN")
        if not durable:
            self.execute("SET LOCAL synchronous_commit = off")

    def has_table(self, name: str) -> bool:
        """Return whether a table exists in the current schema."""
        return self.execute("SELECT to_regclass(:name) IS NOT NULL", {"name": name})[0][0] is True

    def lock(self, name: str) -> bool:
        """Take a lock that lasts as long as the connection; return whether no one else holds it."""
        found = self.execute("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))", {"name": f"framewire {name}"})
        return found[0][0] is True

    def close(self) -> None:
        """Close the connection."""
        with suppress(self._psycopg.Error):
            self._connection.close()


_KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "framewire",
}


def _percent(statement: str) -> str:
    """Return a statement with the parameters as psycopg wants them.

    >>> _percent("SELECT 1 WHERE name = :name"), _percent("VALUES (?, ?)")
    ('SELECT 1 WHERE name = %(name)s', 'VALUES (%s, %s)')
    """
    return _PARAMETER.sub(r"%(\1)s", statement).replace("?", "%s")


def is_postgres(store: str) -> bool:
    """Return whether a store is the address of a PostgreSQL server."""
    return store.startswith(POSTGRES_SCHEMES)
