"""Distributes sources to workers, and defines what a run with several workers cannot do."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.identity import default_engine_id
from engine.sinks.jsonl import STDOUT
from engine.sinks.video import VideoWriter
from pipelines.build.sources import named_sources
from pipelines.config.models import Config

ONLY_ONE = {
    "publish.events": "further addresses belong to one engine",
    "publish.latest": "further addresses belong to one engine",
    "publish.snapshot": "further addresses belong to one engine",
    "publish.media": "further addresses belong to one engine",
    "output.grid": "one process sees only its own sources",
    "output.show": "a window belongs to one engine",
    "output.sinks": "a custom output belongs to one engine",
    "events.folder": "the event log has one writer",
    "analytics.state": "a file has one writer",
    "control.watch": "changes of the file are not distributed to workers yet",
}
"""Keys that require a run with one worker, and why."""


def check_workers(config: Config) -> None:
    """Raise `ConfigError` if a run has several workers and uses something that only one can do."""
    if config.pipeline.workers == 1:
        return
    if not config.sources and not config.publish.connect:
        raise ConfigError(
            "pipeline.workers: there are no sources to distribute: name the sources, or leave workers out"
        )
    if config.publish.connect and config.publish.keys is not None and config.web.address != "none":
        raise ConfigError("publish.keys: an engine that connects to a collector with keys has no page: leave web out")
    for key, why in ONLY_ONE.items():
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if value not in (None, "none", False) and value != []:
            raise ConfigError(f"{key} does not work with pipeline.workers: {config.pipeline.workers}: {why}")
    if config.output.jsonl == STDOUT:
        raise ConfigError(
            "output.jsonl: lines of several processes would mix on stdout: give a file, or leave workers out"
        )
    if config.output.save is not None:
        names = [VideoWriter(config.output.save, per_source=True).path_for(name) for name, _ in named_sources(config)]
        if len(set(names)) < len(names):
            raise ConfigError("output.save: two sources would share a file: rename one, or leave workers out")


def worker_configs(config: Config, folder: str) -> list[Config]:
    """Return one configuration per worker: its share of the sources, and its own sockets in a private folder.

    There are never more workers than sources, unless a fleet assigns these later. Sources are distributed in turn, so
    that sources listed next to each other, which are often alike, end up in different processes.
    """
    sources = [source.model_copy(update={"source_id": name}) for name, source in named_sources(config)]
    count = worker_count(config)
    has_page = config.web.address != "none"
    has_stream = has_page or config.publish.bound != "none"
    name = engine_name(config)
    return [
        config.model_copy(
            update={
                "sources": sources[number::count],
                "pipeline": config.pipeline.model_copy(update={"workers": 1, "engine_id": f"{name}.{number + 1}"}),
                "publish": config.publish.model_copy(
                    update={
                        "address": stream_address(folder, number) if has_stream else "none",
                        "media": media_address(folder, number) if has_page else None,
                        "snapshot": snapshot_address(folder, number) if has_page else None,
                        "keys": config.publish.keys if config.publish.connect else None,
                        "allowed_keys": None,
                    }
                ),
                "control": config.control.model_copy(
                    update={
                        "address": "none" if config.control.address == "none" else control_address(folder, number),
                        "keys": None,
                        "allowed_keys": None,
                    }
                ),
                "web": config.web.model_copy(update={"address": "none", "metrics": "none"}),
                "metrics": config.metrics.model_copy(update={"address": "none"}),
            }
        )
        for number in range(count)
    ]


def engine_name(config: Config) -> str:
    """Return the name of the whole engine."""
    return config.pipeline.engine_id or default_engine_id([config.publish.bound])


def stream_address(folder: str, number: int) -> str:
    """Return the address where a worker publishes."""
    return f"ipc://{folder}/stream-{number}"


def control_address(folder: str, number: int) -> str:
    """Return the control address of a worker."""
    return f"ipc://{folder}/control-{number}"


def media_address(folder: str, number: int) -> str:
    """Return the address where a worker offers live images to the page."""
    return f"ipc://{folder}/media-{number}"


def snapshot_address(folder: str, number: int) -> str:
    """Return the address where a worker answers the page with its current state."""
    return f"ipc://{folder}/snapshot-{number}"


def worker_count(config: Config) -> int:
    """Return how many workers to run: never more than there are sources, unless a fleet assigns these later."""
    return min(config.pipeline.workers, len(config.sources)) if config.sources else config.pipeline.workers
