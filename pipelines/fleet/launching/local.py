"""Engines as local processes, without Ray, as most tests use them. They outlive the controller."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

from engine.clock import Clock
from engine.errors import ConfigError
from pipelines.fleet.config import FleetConfig, NodeConfig
from pipelines.fleet.launching.collector import Collector
from pipelines.fleet.launching.engine_tree import engine_tree
from pipelines.fleet.launching.launcher import Ended, Joined
from pipelines.fleet.launching.process import KeptProcess
from pipelines.fleet.launching.state import processes_folder
from pipelines.fleet.placement.facts import Machine
from pipelines.running.control_access import runtime_folder

logger = logging.getLogger(__name__)
END_S = 5.0
MAX_SOCKET_BYTES = 100


class LocalLauncher:
    """Keeps one engine running for each node, and the collector.

    Args:
        config: the fleet.
        clock: for the pauses between starts.

    Raises:
        ConfigError: the state folder cannot be used.
    """

    def __init__(self, config: FleetConfig, clock: Clock) -> None:
        self._config = config
        self._model: str | None = None
        self._folder = processes_folder(config)
        self._sockets = _socket_folder(self._folder)
        self._nodes = {node.name: node for node in config.nodes}
        self._engines = {name: KeptProcess(name, self._folder, clock) for name in self._nodes}
        self._known: dict[str, str] = {}
        self._collector = Collector(config, self._folder, clock)
        for tree in sorted(self._folder.glob("*.engine.json")):
            if (name := tree.name.removesuffix(".engine.json")) not in self._nodes:  # removed from the configuration
                KeptProcess(name, self._folder, clock).end(END_S)
                tree.unlink(missing_ok=True)

    def poll(self) -> list[Joined | Ended]:
        """Start whatever is due and return the changes since the last call."""
        news: list[Joined | Ended] = []
        self._collector.keep()
        for name, process in self._engines.items():
            if process.is_running():
                if self._known.get(name) != process.process:
                    self._known[name] = process.process
                    news.append(self._joined(name, process))
                continue
            if self._known.pop(name, None) is not None:
                process.note_end()
                why = process.last_words()
                logger.error("engine %s has ended: %s", name, why or f"see {process.log}")
                news.append(Ended(name, True, why))
            if process.is_due():
                self._start(name, process)
        return news

    def _joined(self, name: str, process: KeptProcess) -> Joined:
        return Joined(machine_of(self._nodes[name], len(self._nodes)), self._address(name), process.process)

    def _start(self, name: str, process: KeptProcess) -> None:
        file = self._folder / f"{name}.engine.json"
        tree = engine_tree(self._config, name, self._address(name), self._model)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(tree, out)
        process.start(["run", str(file)], {"model": self._model})

    def _address(self, name: str) -> str:
        return f"ipc://{self._sockets}/{name}.sock"

    def set_model(self, model: str | None) -> None:
        """Start engines with this model from now on."""
        self._model = model

    def want(self, machines: int) -> str:
        """State that nodes must be added or removed by hand."""
        present = len(self._nodes)
        return "" if machines == present else f"nodes in the configuration: {present}, desired: {machines}"

    def give_back(self, engine_id: str) -> None:
        """Do nothing: this machine stays."""

    def pid_of(self, engine_id: str) -> int:
        """Return the process id of an engine, 0 if it is not running."""
        return self._engines[engine_id].pid

    def close(self, *, leave: bool) -> None:
        """End all engines and the collector, or leave them running."""
        if leave:
            return
        processes = [*self._engines.values(), *filter(None, [self._collector.process])]
        for process in processes:
            process.signal(15)
        for process in processes:
            process.end(END_S)
        shutil.rmtree(self._sockets, ignore_errors=True)


def _socket_folder(folder: Path) -> str:
    """Return a short folder for sockets that is the same after a restart: their paths are limited."""
    name = f"fleet-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}"
    for parent in (runtime_folder(), Path(tempfile.gettempdir())):
        place = parent / name
        if len(os.fsencode(str(place))) + 70 <= MAX_SOCKET_BYTES + 30:
            place.mkdir(mode=0o700, exist_ok=True)
            if place.stat().st_uid != os.getuid():
                raise ConfigError(f"{place} belongs to another user: remove it, or set XDG_RUNTIME_DIR")
            return str(place)
    raise ConfigError("the path of the runtime folder is too long for sockets: set XDG_RUNTIME_DIR to a shorter one")


def machine_of(node: NodeConfig, share: int) -> Machine:
    """Return the capacity of a node: as configured, or its share of this machine."""
    cores = node.cores if node.cores is not None else len(os.sched_getaffinity(0)) / share
    return Machine(node.name, cores, node.gpus or 0.0, node.site, dict(node.labels))
