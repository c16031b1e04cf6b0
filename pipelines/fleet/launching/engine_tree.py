"""The configuration of one engine of a fleet."""

from __future__ import annotations

from typing import Any

from pipelines.fleet.config import FleetConfig


def engine_tree(config: FleetConfig, name: str, control: str, model: str | None) -> dict[str, Any]:
    """Return the configuration of one engine as plain values."""
    tree: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value for key, value in config.engine.items()
    }
    tree["sources"] = []
    tree["control"] = {"address": control}
    tree["pipeline"] = {**tree.get("pipeline", {}), "engine_id": name}
    if config.collector.collect != "none":
        collect = config.collector.collect.replace("//*:", "//127.0.0.1:")
        tree["publish"] = {**tree.get("publish", {}), "address": "none", "connect": [collect]}
    if model is not None:
        tree["detector"] = {**tree.get("detector", {}), "model": model}
    return tree
