"""Opens the ledger and the launcher that a fleet is configured with, and the links to its engines."""

from __future__ import annotations

from urllib.parse import urlsplit

from engine.clock import Clock
from engine.errors import ConfigError
from pipelines.fleet.config import FleetConfig
from pipelines.fleet.launching.launcher import Launcher
from pipelines.fleet.launching.local import LocalLauncher
from pipelines.fleet.launching.state import state_folder
from pipelines.fleet.ledger.records import Ledger
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.running.control_links import ControlLinks

LEDGER_S = 2.0
"""How long the controller waits for the ledger at most; meanwhile it renews no leases."""


def open_ledger(config: FleetConfig) -> Ledger:
    """Return the ledger of a fleet. Raises `LedgerError` if it cannot be opened."""
    if config.ledger == "sqlite":
        return SqliteLedger(state_folder(config) / "ledger.db")
    from pipelines.fleet.ledger.nats import NatsLedger

    place = urlsplit(config.ledger)
    answer_s = min(LEDGER_S, config.lease.seconds / 4)
    return NatsLedger(f"{place.scheme}://{place.netloc}", place.path.strip("/"), answer_s)


def open_launcher(config: FleetConfig, clock: Clock) -> Launcher:
    """Return the launcher of a fleet. Raises `ConfigError`."""
    if config.launcher == "local":
        return LocalLauncher(config, clock)
    from pipelines.fleet.launching.aside import AsideLauncher
    from pipelines.fleet.launching.ray import RayLauncher

    _keys_of(config)
    return AsideLauncher(RayLauncher(config, clock))


def open_links(config: FleetConfig, clock: Clock) -> ControlLinks:
    """Return links that can reach the engines of a fleet. Raises `ConfigError` if keys are missing."""
    if config.launcher == "local":
        return ControlLinks(clock)
    from engine.transport.keys import load_key_pair

    mine, engines = _keys_of(config)
    return ControlLinks(clock, server_key=load_key_pair(engines).public, keys=load_key_pair(mine))


def _keys_of(config: FleetConfig) -> tuple[str, str]:
    if config.ray.keys is None or config.ray.engine_keys is None:
        raise ConfigError("ray.keys and ray.engine_keys are missing: make both with framewire keys")
    return config.ray.keys, config.ray.engine_keys
