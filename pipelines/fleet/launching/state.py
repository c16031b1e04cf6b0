"""The folder in which a fleet keeps its ledger, and the cards and logs of what runs."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ConfigError
from pipelines.fleet.config import FleetConfig


def state_folder(config: FleetConfig) -> Path:
    """Return the folder of the fleet's state, creating it if necessary. Raises `ConfigError`."""
    folder = Path(config.state).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state: {folder} cannot be created: {error.strerror}: give a folder of this user") from error
    return folder


def processes_folder(config: FleetConfig) -> Path:
    """Return the folder of cards and logs, created if it is missing. Raises `ConfigError`."""
    folder = state_folder(config) / "processes"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
