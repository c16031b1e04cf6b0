"""The address where the controller of a fleet answers."""

from __future__ import annotations

from pipelines.running.control_access import runtime_folder


def address_of(name: str) -> str:
    """Return the address of the controller of this user's fleet on this machine."""
    return f"ipc://{runtime_folder()}/fleet-{name}.sock"
