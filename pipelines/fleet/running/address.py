"""Where the controller of a fleet answers."""

from __future__ import annotations

from pipelines.running.control_access import runtime_folder


def address_of(name: str) -> str:
    """Return where the controller of a fleet of this user and machine answers."""
    return f"ipc://{runtime_folder()}/fleet-{name}.sock"
