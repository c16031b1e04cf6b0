"""Keeps two processes from writing the same file: one would replace or mix the frames of the other."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

NEW_FILE_MODE = 0o666  # less the umask, as for any file that a program creates


def claim(path: Path, *also: Path) -> int:
    """Open a file for writing, creating it if necessary, and lock it until the descriptor is closed.

    The lock stays with the file when it is renamed. Pipes, devices and file systems without locks are not locked.

    Args:
        path: the file; its content stays.
        also: files that must not be locked by anyone else; they need not exist.

    Raises:
        OSError: `EBUSY` if another writer has claimed one of them.
    """
    for other in also:
        with suppress(FileNotFoundError, PermissionError, IsADirectoryError):
            handle = os.open(other, os.O_RDONLY | os.O_NONBLOCK)
            try:
                _lock(handle)
            finally:
                os.close(handle)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, NEW_FILE_MODE)
    try:
        _lock(handle)
    except OSError:
        os.close(handle)
        raise
    return handle


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "another run is writing it") from error
    except OSError:  # this file system has no locks
        return
