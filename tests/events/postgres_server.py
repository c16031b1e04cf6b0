"""A real PostgreSQL server in a temporary folder; it may not run as root, so root lends it the user `postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
HOW_TO_GET_IT = "needs PostgreSQL: apt-get install postgresql, pip install 'framewire[postgres]'"


def binary(name: str) -> str | None:
    """Return the path of a program of the server; None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join([*map(str, BINARIES), os.environ.get("PATH", "")]))


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server that only this machine's sockets reach; yield its folder."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short
    as_user: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=16MB"
    control = [*as_user, str(binary("pg_ctl")), "-D", str(data), "-w"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    try:
        subprocess.run([*as_user, str(binary("initdb")), "-D", str(data), "-A", "trust", "-U", "me", "-N"], **quiet)
        subprocess.run([*control, "-o", settings, "-l", str(folder / "log"), "start"], **quiet)
        try:
            yield str(folder)
        finally:
            with suppress(subprocess.CalledProcessError):
                subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
