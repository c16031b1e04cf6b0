"""Metrics from the operating system: child processes, disks and GPUs."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import MissingDependencyError
from engine.optional import require
from engine.process import child_processes
from pipelines.metrics.exposition import Page

LOOK_S = 15.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def add_children(page: Page) -> None:
    """Add the child processes by role and source."""
    labels = "role", "source"
    cpu = page.counter("framewire_child_cpu_seconds_total", "CPU time of the running child processes.", *labels)
    memory = page.gauge("framewire_child_resident_bytes", "Resident memory of child processes.", *labels)
    restarts = page.counter("framewire_child_restarts_total", "Restarts of a child process.", *labels)
    for child in child_processes():
        usage = [usage_of(pid) for pid in child.pids]
        cpu.add(round(sum(cpu_s for cpu_s, _ in usage), 2), child.role, child.name)
        memory.add(sum(resident for _, resident in usage), child.role, child.name)
        restarts.add(child.starts - 1, child.role, child.name)


def usage_of(pid: int) -> tuple[float, int]:
    """Return the CPU seconds and resident bytes of a process; zeros if it has ended, or without `/proc`."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S, int(fields[21]) * _PAGE_BYTES
    return 0.0, 0


class DiskWatch:
    """Measures folders on a separate thread, because a hanging disk must not delay a scrape.

    Args:
        folders: returns the folders by kind of content.
    """

    def __init__(self, folders: Callable[[], Mapping[str, Iterable[str]]]) -> None:
        self._folders = folders
        self._is_over = threading.Event()
        self.bytes_by_kind: dict[str, int] = {}
        self.free_bytes: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="disk watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End soon."""
        self._is_over.set()

    def add_to(self, page: Page) -> None:
        """Add the latest measurements."""
        used = page.gauge("framewire_storage_bytes", "Bytes of the files of each kind.", "kind")
        free = page.gauge("framewire_storage_free_bytes", "Free bytes of the disk that holds each kind.", "kind")
        for kind, size in dict(self.bytes_by_kind).items():
            used.add(size, kind)
        for kind, size in dict(self.free_bytes).items():
            free.add(size, kind)

    def look(self) -> None:
        """Measure once."""
        for kind, folders in self._folders().items():
            listed = list(folders)
            self.bytes_by_kind[kind] = sum(bytes_below(folder) for folder in listed)
            with suppress(OSError):
                if listed:
                    self.free_bytes[kind] = shutil.disk_usage(_existing(Path(listed[0]))).free

    def _run(self) -> None:
        while True:
            self.look()
            if self._is_over.wait(LOOK_S):
                return


def bytes_below(folder: str) -> int:
    """Return the size of all files in a folder and below; 0 if it is missing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists()), path)


class GpuWatch:
    """Reads the load of NVIDIA GPUs, if the package `nvidia-ml-py` and a driver are installed."""

    def __init__(self) -> None:
        self._nvml: Any = None
        with suppress(MissingDependencyError, Exception):
            nvml = require("pynvml", hint="pip install nvidia-ml-py")
            nvml.nvmlInit()
            self._nvml = nvml

    def add_to(self, page: Page) -> None:
        """Add load and memory of each GPU."""
        if self._nvml is None:
            return
        load = page.gauge("framewire_gpu_utilization_ratio", "Share of time during which the GPU was busy.", "gpu")
        used = page.gauge("framewire_gpu_memory_used_bytes", "Memory in use on the GPU.", "gpu")
        for index in range(self._nvml.nvmlDeviceGetCount()):
            with suppress(Exception):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                load.add(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, str(index))
                used.add(self._nvml.nvmlDeviceGetMemoryInfo(handle).used, str(index))
