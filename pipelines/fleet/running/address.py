"""The address where the controller of a fleet answers."""

from __future__ import annotations

import socket
from pathlib import Path

from engine.errors import ConfigError
from pipelines.running.control_access import runtime_folder

USUAL = "fleet"
PREFIX, SUFFIX = "fleet-", ".sock"


def address_of(name: str) -> str:
    """Return the address of the controller of this user's fleet on this machine."""
    return f"ipc://{runtime_folder()}/{PREFIX}{name}{SUFFIX}"


def running_fleet(name: str | None) -> str:
    """Return the address of a fleet that runs on this machine; without a name, of the only one, or of `fleet`.

    Raises:
        ConfigError: it does not run here, or several do.
    """
    files = sorted(runtime_folder().glob(f"{PREFIX}*{SUFFIX}"))
    names = [file.name.removeprefix(PREFIX).removesuffix(SUFFIX) for file in files if _is_open(file)]
    chosen = name or (names[0] if len(names) == 1 else USUAL)
    if chosen in names:
        return address_of(chosen)
    if name is None and names:
        raise ConfigError(f"several fleets run here: give --name, one of: {', '.join(names)}")
    running = f"those that do: {', '.join(names)}" if names else "start one with framewire fleet up"
    raise ConfigError(f"no fleet{f' {name}' if name else ''} runs here: {running}, or give --to")


def _is_open(file: Path) -> bool:
    """Return whether a process listens at a socket file; one that was killed leaves its file behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(file))
        except OSError:
            return False
    return True
