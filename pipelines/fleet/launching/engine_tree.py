"""The configuration of one engine of a fleet."""

from __future__ import annotations

from typing import Any

from pipelines.fleet.config import FleetConfig
from pipelines.fleet.launching.collector import publishing


def engine_tree(
    config: FleetConfig, name: str, control: str, model: str | None, host: str = "127.0.0.1"
) -> dict[str, Any]:
    """Return the configuration of one engine as plain values; `host` is where it reaches the controller's machine."""
    tree: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value for key, value in config.engine.items()
    }
    tree["sources"] = []
    tree["control"] = {"address": control}
    tree["pipeline"] = {**tree.get("pipeline", {}), "engine_id": name}
    if found := publishing(config, host):
        tree["publish"] = {**tree.get("publish", {}), **found}
    if model is not None:
        tree["detector"] = {**tree.get("detector", {}), "model": model}
    return tree
