"""Memory, descriptors, threads and children of a process and its descendants."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MB = 1_000_000
RING = "framewire-frames"


@dataclass(frozen=True)
class Usage:
    """What a process tree holds.

    Attributes:
        private_mb: private memory, over all processes.
        shared_mb: shared memory that its descriptors keep alive, mapped or not; RSS does not show all of it.
        descriptors: open files of the root process.
        threads: of the root process.
        children: processes below it, zombies included.
    """

    private_mb: float
    shared_mb: float
    descriptors: int
    threads: int
    children: int

    @property
    def memory_mb(self) -> float:
        """All memory that would be free without these processes."""
        return self.private_mb + self.shared_mb


def usage(pid: int) -> Usage:
    """Return what the process `pid` and its descendants hold now."""
    root = psutil.Process(pid)
    children = root.children(recursive=True)
    pids = [pid, *(child.pid for child in children)]
    return Usage(
        sum(map(_private_bytes, pids)) / MB,
        sum(_shared_bytes(pids).values()) / MB,
        root.num_fds(),
        root.num_threads(),
        len(children),
    )


def _private_bytes(pid: int) -> int:
    total_kb = 0
    with suppress(OSError):  # it has ended meanwhile
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total_kb += int(line.split()[1])
    return total_kb * 1024


def _shared_bytes(pids: list[int]) -> dict[int, int]:
    """Return the bytes of every ring of frames by its inode: both sides hold the same one."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            for fd in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if RING in os.readlink(fd.path):
                        facts = os.stat(fd.path)
                        found[facts.st_ino] = facts.st_blocks * 512
    return found
