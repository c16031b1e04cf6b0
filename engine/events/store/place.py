"""Locates and opens the store, keeps a second engine out, sets a damaged file aside, and migrates old versions."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from engine.events.store.database import (
    BusyStoreError,
    DamagedStoreError,
    Database,
    NewerStoreError,
    PostgresDatabase,
    SqliteDatabase,
    StoreError,
    is_postgres,
)
from engine.events.store.schema import MIGRATIONS
from engine.paths import FILE_MODE, make_folder
from engine.redaction import redact

logger = logging.getLogger(__name__)
FILE = "events.sqlite"
LOCK = "events.lock"
REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "glusterfs", "afs", "lustre")
MOUNTS = Path("/proc/self/mountinfo")
_BESIDE = ("", "-wal", "-shm", "-journal")


class StorePlace:
    """A folder with a SQLite file, or a PostgreSQL server.

    Args:
        folder: the folder of events; it holds the media even if the rows are on a server.
        store: address of the server; empty: a file in the folder.
        mounts: the kernel's list of mounts, for tests.
        migrations: for tests.
    """

    def __init__(
        self,
        folder: str | Path,
        store: str = "",
        *,
        mounts: Path = MOUNTS,
        migrations: Sequence[Sequence[str]] = MIGRATIONS,
    ) -> None:
        self.folder = Path(folder)
        self.url = store
        self.file = self.folder / FILE
        self._mounts = mounts
        self._migrations = migrations
        self._lock: IO[bytes] | None = None

    def __str__(self) -> str:
        return redact(self.url) if self.url else str(self.file)

    @property
    def is_server(self) -> bool:
        """Whether the rows are on a server."""
        return bool(self.url)

    @property
    def is_new(self) -> bool:
        """Whether there is no database yet; a server counts as existing."""
        return not self.url and not self.file.exists()

    def open(self, engine_id: str) -> Database:
        """Open the store for an engine, which is then the only one of that name here, and migrate it to this version.

        Raises:
            StoreError: it cannot be opened, or another engine uses it.
        """
        if self.url:
            return self._open_server(engine_id)
        self._make_folder()
        self._keep_others_out()
        try:
            return self._open_file()
        except BaseException:
            self.release()
            raise

    def open_to_edit(self) -> Database:
        """Open an existing store for an edit by a user, even while an engine is running. Raises `StoreError`."""
        if self.url:
            return self._checked(PostgresDatabase(self.url))
        if not self.file.is_file():
            raise StoreError(f"{self.file} does not exist: give the folder that events.folder names")
        return self._checked(SqliteDatabase(self.file, is_remote=self.file_system().startswith(REMOTE)))

    def open_to_read(self) -> Database:
        """Open the store for a reader. Raises `StoreError` if it does not exist."""
        if self.url:
            return self._checked(PostgresDatabase(self.url, read_only=True))
        if not self.file.is_file():
            raise StoreError(f"{self.file} does not exist: give the folder that events.folder names")
        return self._checked(SqliteDatabase(self.file, read_only=True))

    def release(self) -> None:
        """Let another engine use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def set_aside(self) -> Path:
        """Move a damaged file out of the way, and return its new name."""
        aside = self.file.with_name(f"{FILE}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        number = 1
        while aside.exists():
            aside = aside.with_name(f"{aside.name.split('+')[0]}+{number}")
            number += 1
        for suffix in _BESIDE:
            part = self.file.with_name(self.file.name + suffix)
            if part.exists():
                os.replace(part, aside.with_name(aside.name + suffix))
        return aside

    def file_system(self) -> str:
        """Return the type of the file system that the folder is on; empty if unknown."""
        best, found = "", ""
        try:
            folder, lines = os.path.realpath(self.folder), self._mounts.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        for line in lines:
            before, _, after = line.partition(" - ")
            mount = before.split(" ")[4].replace("\\040", " ") if len(before.split(" ")) > 4 else ""
            is_above = mount == "/" or folder == mount or folder.startswith(f"{mount}/")
            if mount and is_above and len(mount) >= len(best):
                best, found = mount, after.split(" ")[0]
        return found

    def _make_folder(self) -> None:
        try:
            make_folder(self.folder)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return BusyStoreError(f"events.folder {self.folder}: {error.strerror}: free some space")
        return StoreError(f"events.folder {self.folder}: {error.strerror}: choose one with write access")

    def _keep_others_out(self) -> None:
        """Hold a lock on the folder; continue without one if the file system has no locks."""
        self.release()  # the folder may have been deleted with the lock
        try:
            lock = os.fdopen(os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE), "a+b")
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise StoreError(
                f"events.folder {self.folder} is in use by another engine: give this one its own folder, or keep "
                "the events of both on a server (events.store: postgresql://…)"
            ) from error
        except OSError:
            logger.warning("%s: this file system has no locks: let only one engine use the folder", self.folder)
        self._lock = lock

    def _open_file(self) -> Database:
        kind = self.file_system()
        if kind.startswith(REMOTE):
            logger.warning(
                "%s is on a network file system (%s): writing is slower there, and readers may wait; a local disk or "
                "a server (events.store) is better",
                self.folder,
                kind,
            )
        try:
            return self._opened_file(is_remote=kind.startswith(REMOTE))
        except DamagedStoreError as error:
            aside = self.set_aside()
            logger.error("%s: set aside as %s; a new one is built from the media files", error, aside.name)
            return self._opened_file(is_remote=kind.startswith(REMOTE))

    def _opened_file(self, *, is_remote: bool) -> Database:
        with suppress(OSError):  # SQLite reports better what is wrong with the file
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, FILE_MODE))  # its companions get the same mode
        database = SqliteDatabase(self.file, is_remote=is_remote)
        try:
            if not _ended_in_order(database):
                database.check()
            self._migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def _open_server(self, engine_id: str) -> Database:
        database = PostgresDatabase(self.url)
        try:
            if not database.lock(engine_id):
                raise StoreError(
                    f"{self}: another engine named {engine_id} writes there: give this one another name "
                    "(pipeline.engine_id)"
                )
            self._migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def _migrate(self, database: Database) -> None:
        version = self._version(database)
        if version == len(self._migrations):
            return
        if version and not self.url:
            copy = self.file.with_name(f"{FILE}.version-{version}")
            copy.unlink(missing_ok=True)
            database.execute("VACUUM INTO :copy", {"copy": str(copy)})
        with database.transaction(durable=True):
            if self.url:
                database.execute("SELECT pg_advisory_xact_lock(4660)")
            version = self._version(database)
            for migration in self._migrations[version:]:
                for statement in migration:
                    database.execute(statement.replace("{blob}", database.blob))
            database.execute(
                "INSERT INTO meta (name, value) VALUES ('version', :version) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                {"version": str(len(self._migrations))},
            )

    def _version(self, database: Database) -> int:
        if not database.has_table("meta"):
            return 0
        found = database.execute("SELECT value FROM meta WHERE name = 'version'")
        version = int(found[0][0]) if found else 0
        if version > len(self._migrations):
            raise NewerStoreError(
                f"{self} has version {version}, but this program only supports {len(self._migrations)}: update"
            )
        return version

    def _checked(self, database: Database) -> Database:
        """Return a reader's connection if the store is of this version."""
        try:
            version = self._version(database)
            if version != len(self._migrations):
                raise StoreError(f"{self} has version {version}: start the engine once to migrate it")
        except BaseException:
            database.close()
            raise
        return database


def _ended_in_order(database: Database) -> bool:
    if not database.has_table("writer"):
        return True
    return not database.execute("SELECT 1 FROM writer WHERE is_running = 1")


def store_place(folder: str | Path | None, store: str | None) -> StorePlace:
    """Return the place of a configuration's store.

    Raises:
        StoreError: the store is neither a folder nor the address of a PostgreSQL server.
    """
    if store and not is_postgres(store):
        raise StoreError(f"events.store {redact(store)}: expected postgresql://user:password@host/database")
    if not folder:
        raise StoreError("events.folder is missing: name the folder that keeps events, images and clips")
    return StorePlace(folder, store or "")
