"""Opens the ledger that a fleet is configured with."""

from __future__ import annotations

from urllib.parse import urlsplit

from pipelines.fleet.config import FleetConfig
from pipelines.fleet.launching.state import state_folder
from pipelines.fleet.ledger.records import Ledger
from pipelines.fleet.ledger.sqlite import SqliteLedger


def open_ledger(config: FleetConfig) -> Ledger:
    """Return the ledger of a fleet."""
    if config.ledger == "sqlite":
        return SqliteLedger(state_folder(config) / "ledger.db")
    from pipelines.fleet.ledger.nats import NatsLedger

    place = urlsplit(config.ledger)
    return NatsLedger(f"{place.scheme}://{place.netloc}", place.path.strip("/"))
