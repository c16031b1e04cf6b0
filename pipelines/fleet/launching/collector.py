"""The fleet's proxy as a process on the controller's machine: engines connect to it, and readers subscribe there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.clock import Clock
from engine.transport.address import is_loopback
from pipelines.fleet.config import FleetConfig
from pipelines.fleet.launching.process import KeptProcess

logger = logging.getLogger(__name__)
NAME = "collector"


class Collector:
    """Keeps the proxy running, if the fleet has one; it outlives the controller.

    Args:
        config: the fleet.
        folder: of cards and logs.
        clock: for the pauses between starts.
    """

    def __init__(self, config: FleetConfig, folder: Path, clock: Clock) -> None:
        self._config = config
        self.process = KeptProcess(NAME, folder, clock) if config.collector.collect != "none" else None

    def keep(self) -> None:
        """Start the collector if it is not running."""
        process, places = self.process, self._config.collector
        if process is None or process.is_running():
            return
        if process.pid:
            logger.error("the collector has ended: %s", process.last_words())
            process.note_end()
        if process.is_due():
            words = ["proxy", "--collect", places.collect, "--publish", places.publish]
            if is_encrypted(self._config):
                words += [
                    "--keys",
                    str(self._config.ray.keys),
                    "--allowed-engine",
                    public(self._config.ray.engine_keys),
                ]
            process.start(words, {})


def is_encrypted(config: FleetConfig) -> bool:
    """Return whether engines reach the collector over a network, so that both sides need keys."""
    collect = config.collector.collect
    return config.launcher == "ray" and urlsplit(collect).scheme == "tcp" and not is_loopback(collect)


def publishing(config: FleetConfig, host: str = "127.0.0.1") -> dict[str, Any]:
    """Return the keys of `publish` with which engines reach the collector; empty if there is none.

    Args:
        config: the fleet.
        host: where they reach the controller's machine, if the collector binds all of its addresses.
    """
    if config.collector.collect == "none":
        return {}
    keys = {"address": "none", "connect": [config.collector.collect.replace("//*:", f"//{host}:")]}
    if is_encrypted(config):
        return {**keys, "connect_key": public(config.ray.keys), "keys": config.ray.engine_keys}
    return keys


def public(keys: str | None) -> str:
    """Return the name of the file with the public half of a key pair."""
    return str(keys).removesuffix("_secret")
