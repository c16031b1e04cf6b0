"""A stand-in for Ray: the functions that the launcher uses, and an autoscaler that adds and ends machines.

As Ray's own does, the autoscaler keeps as many machines as were requested, beginning with those in use, and ends the
others once nothing on them is used.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCOPE = "framewire_engine"


@dataclass
class FakeActor:
    """An actor on a machine; its methods return their results at once."""

    node_id: str
    resources: dict[str, float]
    name: str
    is_ended: bool = False

    def __getattr__(self, method: str) -> Any:
        if method == "look":
            return SimpleNamespace(remote=self._look)
        return SimpleNamespace(remote=lambda *values: self._done(method))

    def _look(self) -> dict[str, Any]:
        return {"address": f"ipc://{self.name}", "process": self.name, "machine": "", "cores": 8, "why": ""}

    def _done(self, method: str) -> str:
        self.is_ended |= method == "end"
        return method


@dataclass
class FakeRay:
    """A cluster with a head and machines of one kind.

    Args:
        cores: of each machine.
        head_cores: of the head.
        most: number of machines that may exist.
    """

    cores: float = 8.0
    head_cores: float = 0.0
    most: int = 10
    actors: dict[str, FakeActor] = field(default_factory=dict)
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    requested: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self.machines["head"] = self._node("head", {"CPU": self.head_cores} if self.head_cores else {})

    def _node(self, node_id: str, resources: dict[str, float]) -> dict[str, Any]:
        labels = {"framewire": node_id}
        return {"NodeID": node_id, "Alive": True, "Resources": resources, "Labels": labels, "NodeManagerAddress": "h"}

    def autoscale(self) -> None:
        """Add and end machines once, as far as the last request and what is in use demand it."""
        workers = [name for name in self.machines if name != "head"]
        needed = min(-(-sum(bundle["CPU"] for bundle in self.requested) // self.cores), self.most)
        for _ in range(int(needed) - len(workers)):
            name = f"m{next(self._numbers)}"
            self.machines[name] = self._node(name, {"CPU": self.cores, SCOPE: 1.0})
        idle = [name for name in workers if not any(a.node_id == name and a.resources for a in self.actors.values())]
        for name in idle[: max(len(workers) - int(needed), 0)]:
            del self.machines[name]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let `import ray` find this cluster."""
        module, sdk = ModuleType("ray"), ModuleType("ray.autoscaler.sdk")
        nodes = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node_id, soft: node_id)
        module.__dict__.update(
            init=lambda **_: None,
            shutdown=lambda: None,
            nodes=lambda: list(self.machines.values()),
            remote=lambda kind: SimpleNamespace(options=self._options),
            wait=lambda looks, num_returns=1, timeout=None: (looks, []),
            get=lambda look, timeout: look,
            kill=lambda actor, no_restart: self.actors.pop(actor.name),
            util=SimpleNamespace(get_node_ip_address=lambda: "h", scheduling_strategies=nodes),
            exceptions=SimpleNamespace(RayError=RuntimeError),
        )
        sdk.__dict__["request_resources"] = self._request
        for name, each in (("ray", module), ("ray.autoscaler", ModuleType("ray.autoscaler")), (sdk.__name__, sdk)):
            patch.setitem(sys.modules, name, each)

    def _request(self, bundles: list[dict[str, float]]) -> None:
        self.requested = bundles

    def _options(self, scheduling_strategy: str, name: str, resources: Any = None, **_: Any) -> Any:
        def made(*_: Any) -> FakeActor:
            return self.actors.setdefault(name, FakeActor(scheduling_strategy, resources or {}, name))

        return SimpleNamespace(remote=made)
