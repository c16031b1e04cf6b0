"""Engines on the machines of a Ray cluster: one actor for each machine keeps one engine process running there.

Ray restarts the actors, and reports which machines exist. It provides no fencing, so its report that a machine is dead
proves nothing: leases and epochs decide. Actors are detached, so they outlive the controller.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any
from zlib import crc32

from engine.clock import SYSTEM_CLOCK, Clock
from engine.errors import ConfigError
from engine.optional import require
from pipelines.fleet.config import FleetConfig, NodeConfig
from pipelines.fleet.launching.collector import Collector, is_encrypted, public
from pipelines.fleet.launching.engine_tree import engine_tree
from pipelines.fleet.launching.launcher import Ended, Joined
from pipelines.fleet.launching.process import KeptProcess, born, this_machine
from pipelines.fleet.launching.state import processes_folder
from pipelines.fleet.placement.facts import Machine
from pipelines.running.control_access import runtime_folder

logger = logging.getLogger(__name__)
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_PROMPT_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
SCOPE = "framewire_engine"
"""Custom resource by which a machine offers to run an engine; if no machine has it, all machines do."""
IN_USE = 0.001
"""An actor takes this much of it: a machine of which nothing is used is idle to Ray's autoscaler, and may be ended."""
CALL_S = 10.0
END_S = 5.0
LABEL = "framewire"
PORTS = 400


class EngineKeeper:
    """Runs in an actor on a machine of the cluster: keeps one engine running and reports where it listens.

    Args:
        fleet: name of the fleet.
        name: of the engine.
        tree: configuration of the engine; `control.address` gets a free port.
        port: first port to try.
        host: address of this machine in the cluster.
        model: file that replaces the one of the configuration.
    """

    def __init__(self, fleet: str, name: str, tree: dict[str, Any], port: int, host: str, model: str | None) -> None:
        self._name, self._tree, self._host, self._model = name, tree, host, model
        folder = runtime_folder() / f"ray-{fleet}-{name}"  # stays the same when the actor restarts
        folder.mkdir(mode=0o700, exist_ok=True)
        self._file = folder / "engine.json"
        self._process = KeptProcess(name, folder, SYSTEM_CLOCK)
        self._was_running = self._process.is_running()
        self._first, self._port = port, int(self._process.facts().get("port", 0)) if self._was_running else 0

    def look(self) -> dict[str, Any]:
        """Start the engine if it is not running, and return its address, its process and how many cores it may use."""
        if not self._process.is_running():
            if self._was_running:
                self._process.note_end()
                self._was_running = False
            if self._process.is_due():
                self._start()
        running = self._process.is_running()
        return {
            "address": f"tcp://{self._host}:{self._port}",
            "process": self._process.process if running else "",
            "machine": this_machine(),
            "cores": len(os.sched_getaffinity(0)),
            "why": "" if running else self._process.last_words(),
        }

    def _start(self) -> None:
        offset = crc32(self._name.encode()) % (PORTS // 2)  # so that engines on one machine try different ports
        self._port = _free_port(self._host, self._first + offset)
        control = {**self._tree["control"], "address": f"tcp://{self._host}:{self._port}"}
        tree = {**self._tree, "control": control}
        if self._model is not None:
            tree["detector"] = {**tree.get("detector", {}), "model": self._model}
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(tree, out)
        self._process.start(["run", str(self._file)], {"port": self._port})
        self._was_running = True

    def set_model(self, model: str | None) -> None:
        """Start the engine with this model from now on."""
        self._model = model

    def configure(self, tree: dict[str, Any], model: str | None) -> None:
        """Start the engine with this configuration from now on: an actor outlives the controller that made it."""
        self._tree, self._model = tree, model

    def end(self) -> None:
        """End the engine."""
        self._process.end(END_S)


class RayLauncher:
    """Keeps an `EngineKeeper` on every machine of the cluster, and the collector on this one.

    Ray reports late that a machine has died. The end of a process on this machine is detected here, at once and
    reliably.

    Args:
        config: the fleet.
        clock: for the pauses between starts of the collector; Ray has its own.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: the cluster does not exist.
    """

    def __init__(self, config: FleetConfig, clock: Clock) -> None:
        for name, value in QUIET.items():
            os.environ[name] = value
        self._ray = require("ray", extra="fleet")
        self._config = config
        self._model: str | None = None
        self._by_name = {node.name: node for node in config.nodes}
        self._actors: dict[str, Any] = {}
        self._looks: dict[str, Any] = {}
        self._known: dict[str, str] = {}
        self._here: set[str] = set()
        self._given_back: set[str] = set()
        self._ended: list[Joined | Ended] = []
        self._collector = Collector(config, processes_folder(config), clock)
        self._nodes: dict[str, dict[str, Any]] = {}
        self._keeper = self._ray.remote(EngineKeeper)
        try:
            self._ray.init(
                address=config.ray.address,
                namespace=config.ray.namespace,
                log_to_driver=False,
                ignore_reinit_error=True,
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"ray.address {config.ray.address}: {error}: start a cluster first (ray start --head), or use "
                "launcher: local on a single machine"
            ) from error
        self._host = str(self._ray.util.get_node_ip_address())

    def poll(self) -> list[Joined | Ended]:
        """Start whatever is due and return the changes since the last call; never waits for a machine."""
        self._collector.keep()
        news, self._ended = [*self._ended, *self._ended_here()], []
        self._nodes = {self._name(node): node for node in self._ray.nodes() if node["Alive"] and self._offers(node)}
        for name in [name for name in self._actors if name not in self._nodes]:
            self._drop(name)
            logger.warning("Ray reports the machine of %s as dead", name)
            news.append(Ended(name, False, "Ray reports its machine as dead"))
        self._given_back &= self._nodes.keys()
        for name, node in self._nodes.items():
            if name in self._given_back:
                continue
            if name not in self._actors:
                self._actors[name] = self._actor(name, node)
                news.append(Joined(self._machine(name, 1), "", ""))  # so that cameras wait for it
            if name not in self._looks:
                self._looks[name] = self._actors[name].look.remote()
        ready, _ = self._ray.wait(list(self._looks.values()), num_returns=max(len(self._looks), 1), timeout=0)
        for name in [name for name, look in self._looks.items() if look in ready]:
            news += self._seen(name, self._looks.pop(name))
        return news

    def _ended_here(self) -> list[Joined | Ended]:
        """Return which engines of this machine have ended, according to the kernel, with or without their keepers."""
        ended = [name for name in self._here if not _runs(self._known.get(name, ""))]
        for name in ended:
            self._here.discard(name)
            self._known.pop(name, None)
            logger.error("engine %s has ended", name)
        return [Ended(name, True, "its process has ended") for name in ended]

    def _seen(self, name: str, look: Any) -> list[Joined | Ended]:
        try:
            facts = self._ray.get(look, timeout=CALL_S)
        except self._ray.exceptions.RayError as error:
            self._drop(name)
            logger.error("the actor of %s: %s", name, str(error).splitlines()[0])
            return [Ended(name, False, "Ray reports its actor as dead")]
        before = self._known.get(name)
        news: list[Joined | Ended] = []
        if before is not None and facts["process"] != before:
            del self._known[name]  # its keeper saw the process end, on the same machine
            news.append(Ended(name, True, facts["why"]))
        is_here = facts["machine"] == this_machine() != ""
        if facts["process"] and name not in self._known and (_runs(facts["process"]) or not is_here):
            self._known[name] = facts["process"]
            (self._here.add if is_here else self._here.discard)(name)
            news.append(Joined(self._machine(name, facts["cores"]), facts["address"], facts["process"]))
        return news

    def _drop(self, name: str) -> None:
        self._actors.pop(name, None)
        self._looks.pop(name, None)
        if name not in self._here:
            self._known.pop(name, None)

    def _offers(self, node: dict[str, Any]) -> bool:
        """Return whether a machine may run an engine: a head without cores only runs Ray's own processes."""
        nodes = [each for each in self._ray.nodes() if each["Alive"]]
        is_limited = any(SCOPE in each["Resources"] for each in nodes)
        return SCOPE in node["Resources"] if is_limited else node["Resources"].get("CPU", 0.0) > 0

    def _name(self, node: dict[str, Any]) -> str:
        """Return the engine's name: the machine's label `framewire`, or a name derived from its id."""
        label = (node.get("Labels") or {}).get(LABEL)
        return label if label else f"node-{node['NodeID'][:8]}"

    def _machine(self, name: str, cores: int) -> Machine:
        node = self._nodes.get(name, {})
        resources, labels = node.get("Resources", {}), dict(node.get("Labels") or {})
        told = self._by_name.get(name, NodeConfig(name=name))
        return Machine(
            name,
            told.cores or float(resources.get("CPU", cores)),
            told.gpus if told.gpus is not None else float(resources.get("GPU", 0)),
            told.site or labels.get("site", ""),
            labels | told.labels,
        )

    def _actor(self, name: str, node: dict[str, Any]) -> Any:
        """Return the keeper on a machine: the one already running there, or a new one."""
        full = f"{self._config.name}-{name}-{node['NodeID'][:8]}"
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options = {"name": full, "lifetime": "detached", "max_restarts": -1, "num_cpus": 0, "get_if_exists": True}
        tree = engine_tree(self._config, name, "", None, self._host)
        ray = self._config.ray
        tree["control"] = {"keys": ray.engine_keys, "allowed_keys": [public(ray.keys)]}
        host = node["NodeManagerAddress"]
        if host != self._host and not is_encrypted(self._config) and self._config.collector.collect != "none":
            logger.error(
                "%s at %s cannot reach the collector at %s: give collector.collect an address that all machines reach, "
                "such as tcp://*:5551",
                name,
                host,
                self._config.collector.collect,
            )
        if SCOPE in node["Resources"]:
            options["resources"] = {SCOPE: IN_USE}
        made = self._keeper.options(scheduling_strategy=strategy, **options)
        actor = made.remote(self._config.name, name, tree, ray.port, host, self._model)
        actor.configure.remote(tree, self._model)
        return actor

    def set_model(self, model: str | None) -> None:
        """Start engines with this model from now on."""
        self._model = model
        for actor in self._actors.values():
            actor.set_model.remote(model)

    def want(self, machines: int) -> str:
        """Request a number of machines from Ray's autoscaler."""
        nodes = [node["Resources"].get("CPU", 1.0) for node in self._nodes.values()]
        each = max(int(min(nodes, default=1.0)), 1)
        for name in sorted(self._given_back)[: max(machines - len(self._nodes) + len(self._given_back), 0)]:
            self._given_back.discard(name)  # the engine is still there: use it again
        require("ray.autoscaler.sdk", extra="fleet").request_resources(bundles=[{"CPU": each}] * machines)
        return f"asked Ray's autoscaler for {machines} machines of {each} cores"

    def give_back(self, engine_id: str) -> None:
        """End an engine and its actor, so that the machine is idle to Ray's autoscaler, which may then end it."""
        actor = self._actors.get(engine_id)
        if actor is None:
            return
        self._given_back.add(engine_id)
        ended, _ = self._ray.wait([actor.end.remote()], timeout=2 * END_S)
        self._ray.kill(actor, no_restart=True)
        self._here.discard(engine_id)
        self._drop(engine_id)
        self._ended.append(Ended(engine_id, bool(ended), "its machine is not needed"))

    def close(self, *, leave: bool) -> None:
        """End all engines, or leave them running."""
        if not leave:
            ends = [actor.end.remote() for actor in self._actors.values()]
            self._ray.wait(ends, num_returns=len(ends), timeout=2 * END_S) if ends else None
            for actor in self._actors.values():
                self._ray.kill(actor, no_restart=True)
            if self._collector.process is not None:
                self._collector.process.end(END_S)
        self._ray.shutdown()


def _runs(process: str) -> bool:
    """Return whether a process of this machine, as `KeptProcess.process` names it, still runs."""
    pid, _, since = process.partition(".")
    return pid.isdigit() and bool(since) and born(int(pid)) == since


def _free_port(host: str, first: int) -> int:
    for port in range(first, first + PORTS // 2):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ConfigError(f"no port from {first} to {first + PORTS // 2 - 1} is free on {host}")
