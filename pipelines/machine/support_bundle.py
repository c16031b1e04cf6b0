"""Collects the information needed for support into one archive, without secrets or pixels."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import EngineError, SinkError
from engine.paths import how_to_write
from engine.redaction import redact, redact_tree

MAX_LOG_BYTES = 1_000_000
MAX_PAGE_BYTES = 4_000_000
COMMAND_S = 20.0
LOG_LINES = 5000
FOLDER = "framewire-support"
README = """\
This archive was written by `framewire support-bundle`. Passwords, tokens and addresses' user names are removed.
It has no images and no messages of the stream. Names of cameras, zones and files remain: read it before you send it.
"""


def write_bundle(
    path: Path, *, config: str | None, address: str | None, log: Path | None, service: str
) -> dict[str, int]:
    """Write the archive, readable only by this user, and return the size of each file in it.

    Args:
        path: of the `.tar.gz`; must not exist.
        config: configuration file of the run, if there is one.
        address: `HOST:PORT` of the run's metrics, if it serves any.
        log: a log file, of which the end is included.
        service: name of the systemd service whose journal is included.

    Raises:
        SinkError: the archive cannot be written.
    """
    parts: dict[str, Callable[[], str]] = {
        "README.txt": lambda: README,
        "versions.txt": versions,
        "system.json": lambda: as_json(system()),
        "doctor.json": lambda: as_json(doctor()),
        "journal.txt": lambda: journal(service),
    }
    if config is not None:
        parts["config.json"] = lambda: as_json(configuration(config))
    if log is not None:
        parts["log.txt"] = lambda: end_of(log)
    if address is not None:
        for page in ("healthz", "metrics"):
            parts[f"{page}.txt"] = lambda page=page: answer_of(address, page)  # type: ignore[misc]
    found = {name: redact(_told(part)) for name, part in parts.items()}
    try:
        _write(path, found)
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}: {how_to_write(error)} (--out)") from error
    return {name: len(text) for name, text in found.items()}


def _told(part: Callable[[], str]) -> str:
    """Return a part, or why it is missing: a bundle is written because something is broken."""
    try:
        return part()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}\n"


def _write(path: Path, found: dict[str, str]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in found.items():
                body = text.encode("utf-8", "backslashreplace")
                entry = tarfile.TarInfo(f"{FOLDER}/{name}")
                entry.size, entry.mtime, entry.mode = len(body), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(body))


def as_json(value: Any) -> str:
    """Return plain values as readable JSON without secrets."""
    return json.dumps(redact_tree(value), indent=1, ensure_ascii=True, default=str) + "\n"


def versions() -> str:
    """Return the installed packages, one per line."""
    found = {(dist.metadata["Name"] or "?", dist.version) for dist in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found, key=lambda pair: pair[0].lower()))


def system() -> dict[str, Any]:
    """Return facts about the machine."""
    usage = shutil.disk_usage(".")
    facts = {
        "platform": platform.platform(),
        "python": sys.version,
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": os.getloadavg(),
        "disk_free_bytes": usage.free,
        "variables": sorted(name for name in os.environ if name.startswith(("FRAMEWIRE", "OPENVINO", "ORT_", "CUDA"))),
    }
    for name in ("/proc/meminfo", "/proc/cpuinfo", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io"):
        with suppress(OSError):
            facts[name] = Path(name).read_text(errors="replace")[:4000].splitlines()
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max"):
        with suppress(OSError):
            facts[path] = Path(path).read_text().strip()
    return facts


def doctor() -> list[dict[str, Any]]:
    """Return the findings of `framewire doctor`."""
    from pipelines.doctor import examine

    return [asdict(finding) for finding in examine()]


def configuration(path: str) -> dict[str, Any]:
    """Return the configuration with its defaults, or why it is invalid."""
    from pipelines.config.file import load_config

    try:
        config = load_config(path, {})
    except EngineError as error:
        return {"file": path, "error": str(error)}
    return {"file": path, "given": sorted(config.model_fields_set), **config.model_dump(mode="json")}


def journal(service: str) -> str:
    """Return the end of a service's journal; empty without systemd."""
    if shutil.which("journalctl") is None:
        return "journalctl is not installed\n"
    words = ["journalctl", "--no-pager", "--unit", service, "--lines", str(LOG_LINES), "--output", "short-iso"]
    done = subprocess.run(words, capture_output=True, timeout=COMMAND_S, check=False)
    return (done.stdout or done.stderr)[-MAX_LOG_BYTES:].decode("utf-8", "replace")


def end_of(log: Path) -> str:
    """Return the last megabyte of a file."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - MAX_LOG_BYTES, 0))
        return file.read(MAX_LOG_BYTES).decode("utf-8", "replace")


def answer_of(address: str, page: str) -> str:
    """Return a page of a run's metrics server, whatever its status."""
    from pipelines.metrics.ask import fetch

    status, text = fetch(address, f"/{page}", timeout_s=COMMAND_S, max_bytes=MAX_PAGE_BYTES)
    return text if status in (200, 503) else f"status {status}: {text}"
