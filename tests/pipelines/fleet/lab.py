"""A fleet of real engine processes with synthetic cameras, a reader at the collector, and what can happen to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.clock import SYSTEM_CLOCK
from engine.errors import ConfigError
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage
from pipelines.fleet.launching.process import KeptProcess
from pipelines.fleet.running.keeper import read_engines
from pipelines.running.control_access import runtime_folder
from pipelines.running.control_client import ask
from tests.onnx_models import save_constant_model
from tests.pipelines.fleet.ray_cluster import node_processes

PATIENCE_S = 200.0
MOST_ON_THEIR_WAY = 8
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]


class Seen(NamedTuple):
    """A frame message as the reader got it."""

    at_s: float
    epoch: int
    engine_id: str
    model: str


@dataclass
class Reader:
    """Reads the collector on a thread and records when each camera was heard, and in which epoch."""

    address: str
    frames: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with Subscriber(self.address, topics=["v1/frame/"]) as messages:
            while not self._over.is_set():
                with suppress(NoMessageError):
                    message = messages.receive(0.2)
                    if isinstance(message, FrameMessage):
                        seen = Seen(time.monotonic(), message.owner_epoch or 0, message.engine_id, message.model or "")
                        self.frames[message.source_id].append(seen)

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def last(self, camera: str) -> Seen:
        """Return the newest frame of a camera; before the first, one of long ago."""
        return self.frames[camera][-1] if self.frames[camera] else Seen(0.0, 0, "", "")

    def gap_s(self, camera: str, since_s: float) -> float:
        """Return the longest time without a frame since then."""
        times = [seen.at_s for seen in self.frames[camera] if seen.at_s >= since_s - 1.0] + [time.monotonic()]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def disorder(self) -> list[str]:
        """Return where an epoch decreased, or had two owners."""
        found = []
        for camera, seen in self.frames.items():
            owners: dict[int, str] = {}
            for before, now in pairwise(seen):
                if now.epoch < before.epoch:
                    found.append(f"{camera}: epoch {now.epoch} after {before.epoch}")
            found += [
                f"{camera}: epoch {each.epoch} of {each.engine_id} and {owners[each.epoch]}"
                for each in seen
                if owners.setdefault(each.epoch, each.engine_id) != each.engine_id
            ]
        return found


class FleetLab:
    """A fleet under `framewire fleet up`.

    Args:
        cameras: how many synthetic cameras.
        fps: frames per second of each.
        lease_s: of the engines.
        engine: configuration of the engines.
        nodes: how many engines.
        changes: further keys of `fleet.yaml`.
    """

    def __init__(
        self,
        cameras: int,
        fps: float = 5.0,
        *,
        lease_s: float = 6.0,
        engine: dict[str, Any] | None = None,
        nodes: int = 2,
        changes: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.name = self.folder.name
        self.nodes = [f"n{number + 1}" for number in range(nodes)]
        self.cameras = [f"cam{number}" for number in range(cameras)]
        self.stream = f"ipc://{self.folder}/out"
        uri = f"synthetic://?width=320&height=320&fps={fps:g}&realtime=1&objects=2"
        tree = {
            "name": self.name,
            "launcher": "local",
            "state": str(self.folder / "state"),
            "engine": engine or {"detector": {"model": "motion"}},
            "collector": {"collect": f"ipc://{self.folder}/in", "publish": self.stream},
            "lease": {"seconds": lease_s, "renew_s": min(1.0, lease_s / 4)},
            "placement": {"rule": "least_loaded", "rest_s": 0, "moves_per_minute": 6000, "join_s": 120},
            "nodes": [{"name": name, "cores": 64} for name in self.nodes],
            "cameras": [{"source_id": name, "uri": f"{uri}&seed={n}"} for n, name in enumerate(self.cameras)],
            **(changes or {}),
        }
        self.is_ray = tree["launcher"] == "ray"
        self.config = self.folder / "fleet.yaml"
        self.config.write_text(json.dumps(tree))
        self.controller: subprocess.Popen[str] | None = None
        self.start_controller()
        self.reader = Reader(self.stream)

    def start_controller(self) -> None:
        with (self.folder / "controller.log").open("a") as log:
            self.controller = subprocess.Popen(
                [*COMMAND, "-v", "fleet", "up", str(self.config), "--leave"], stdout=log, stderr=log, text=True
            )

    def set_lease(self, seconds: float) -> None:
        """Start the controller again with another lease, and wait until all engines have it."""
        tree = json.loads(self.config.read_text())
        self.config.write_text(json.dumps(tree | {"lease": {"seconds": seconds, "renew_s": 1.0}}))
        self.kill_controller()
        self.start_controller()
        self.wait(lambda: self._is_leased(seconds / 2), "the new leases")

    def _is_leased(self, seconds: float) -> bool:
        left = self.leases()
        return len(left) == len(self.cameras) and min(left) > seconds

    def leases(self) -> list[float]:
        """Return how many seconds each camera's lease has left."""
        return self.leases_at(self.addresses())

    def addresses(self) -> list[str]:
        """Return where the engines answer, as the controller left it for the keeper."""
        return list(read_engines(self.folder / "state").values())

    def leases_at(self, addresses: Sequence[str]) -> list[float]:
        """Return the same, also without a controller."""
        return [left for _, left in self._leases_at(addresses)]

    def lease_ends(self) -> list[float]:
        """Return when each camera's lease runs out, in seconds by its engine's clock; works without a controller."""
        return [now + left for now, left in self._leases_at(self.addresses())]

    def _leases_at(self, addresses: Sequence[str]) -> list[tuple[float, float]]:
        replies = [ask(address, {"command": "renew", "leases": []}, 5.0) for address in addresses]
        return [(r["engine_ns"] / 1e9, report["lease_left_s"]) for r in replies for report in r["owned"].values()]

    def kill_controller(self) -> None:
        assert self.controller is not None
        self.controller.kill()
        self.controller.wait()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the controller, as `framewire fleet` does."""
        from pipelines.fleet.running.address import address_of

        return ask(address_of(self.name), request, 10.0)

    def owners(self) -> dict[str, str]:
        """Return the engine of each camera, as the controller says."""
        return {name: camera["engine"] for name, camera in self.ask(command="status")["cameras"].items()}

    def pid_of(self, engine_id: str) -> int:
        of_ray = runtime_folder() / f"ray-{self.name}-{engine_id}" / f"{engine_id}.json"
        card = of_ray if of_ray.exists() else self.folder / "state/processes" / f"{engine_id}.json"
        return int(json.loads(card.read_text())["pid"])

    def kill_node(self, engine_id: str) -> None:
        """Kill an engine at once; on Ray, its whole node."""
        pid = self.pid_of(engine_id)
        for each in node_processes(pid) if self.is_ray else [pid]:
            os.kill(each, signal.SIGKILL)

    def control_of(self, engine_id: str) -> str:
        return str(self.ask(command="status")["addresses"][engine_id])

    def signal(self, engine_id: str, number: int) -> None:
        os.kill(self.pid_of(engine_id), number)

    def wait(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            with suppress(ConfigError, OSError, KeyError):
                if condition():
                    return
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self.log()}"
            threading.Event().wait(0.05)

    def wait_until_all_are_heard(self) -> None:
        since = time.monotonic()
        self.wait(lambda: all(self.reader.last(name).at_s > since for name in self.cameras), "all cameras")

    def log(self) -> str:
        texts = [path.read_text()[-1500:] for path in [self.folder / "controller.log", *self.folder.rglob("n*.log")]]
        return "\n".join(texts)

    def close(self) -> None:
        if self.controller is not None and self.controller.poll() is None:
            self.controller.kill()
            self.controller.wait()
        self.reader.close()
        sockets = {Path(at.removeprefix("ipc://")).parent for at in self.addresses() if at.startswith("ipc://")}
        of_ray = list(runtime_folder().glob(f"ray-{self.name}-*"))
        for processes in (self.folder / "state/processes", *of_ray):
            (processes / "keeper.fleet.json").unlink(missing_ok=True)
            for card in processes.glob("*.json"):
                if not card.stem.endswith("engine"):
                    KeptProcess(card.stem, processes, SYSTEM_CLOCK).end(5.0)
        for folder in (self.folder, *sockets, *of_ray):
            shutil.rmtree(folder, ignore_errors=True)
        (runtime_folder() / f"fleet-{self.name}.sock").unlink(missing_ok=True)


@contextmanager
def fleet_lab(*arguments: Any, **options: Any) -> Iterator[FleetLab]:
    """Yield a fleet once all its cameras are heard, and end all of it afterwards."""
    lab = FleetLab(*arguments, **options)
    try:
        lab.wait_until_all_are_heard()
        yield lab
    finally:
        lab.close()


def kill_a_node(lab: FleetLab) -> dict[str, Any]:
    """Kill an engine at once and return how long its cameras were away, and the longest gap of the others."""
    owners = lab.owners()
    lost = [name for name in lab.cameras if owners[name] == lab.nodes[0]]
    others = [name for name in lab.cameras if name not in lost]
    epochs = {name: lab.reader.last(name).epoch for name in lost}
    at_s = time.monotonic()
    lab.kill_node(lab.nodes[0])
    lab.wait(lambda: all(lab.reader.last(name).epoch > epochs[name] for name in lost), "the lost cameras")
    away = [next(seen.at_s for seen in lab.reader.frames[name] if seen.epoch > epochs[name]) - at_s for name in lost]
    return {
        "lost": len(lost),
        "back_s": {"median": round(float(np.median(away)), 2), "max": round(max(away), 2)},
        "others": len(others),
        "others_longest_gap_s": round(max(lab.reader.gap_s(name, at_s) for name in others), 2),
        "disorder": lab.reader.disorder(),
    }


def freeze_a_node(lab: FleetLab, watch_s: float) -> dict[str, Any]:
    """Freeze an engine, wait until its cameras are elsewhere, let it continue; return what the reader then heard."""
    lab.wait(lambda: lab.ask(command="status")["engines"][lab.nodes[1]]["state"] == "live", "both engines")
    owners = lab.owners()
    frozen = owners[lab.cameras[0]]
    lost = [name for name in lab.cameras if owners[name] == frozen]
    epochs = {name: lab.reader.last(name).epoch for name in lost}
    at_s = time.monotonic()
    lab.signal(frozen, signal.SIGSTOP)
    lab.wait(lambda: all(lab.reader.last(name).epoch > epochs[name] for name in lost), "the cameras of a frozen node")
    moved_s = time.monotonic()
    lab.signal(frozen, signal.SIGCONT)
    until = moved_s + watch_s
    lab.wait(lambda: time.monotonic() > until, "the end of the watch")
    lab.wait(lambda: frozen_runs_nothing_old(lab, frozen), "the thawed node to stop what it lost")
    old = [
        seen for name in lost for seen in lab.reader.frames[name] if seen.at_s > moved_s and seen.epoch <= epochs[name]
    ]
    return {
        "lost": len(lost),
        "moved_after_s": round(moved_s - at_s, 2),
        "messages_of_old_epochs_after_the_thaw": len(old),
        "disorder": lab.reader.disorder(),
    }


def frozen_runs_nothing_old(lab: FleetLab, engine_id: str) -> bool:
    """Return whether an engine runs only the cameras that it owns according to the controller."""
    runs = ask(lab.control_of(engine_id), {"command": "renew", "leases": []}, 5.0)["owned"]
    owners = lab.owners()
    return all(owners[name] == engine_id for name in runs)


def kill_the_head(lab: FleetLab, away_s: float) -> dict[str, Any]:
    """Kill the controller, start it again, and return the longest gap and whether ledger and engines agree."""
    lab.wait_until_all_are_heard()
    before = {name: (lab.reader.last(name).engine_id, lab.reader.last(name).epoch) for name in lab.cameras}
    at_s = time.monotonic()
    lab.kill_controller()
    threading.Event().wait(away_s)
    gap_s = max(lab.reader.gap_s(name, at_s) for name in lab.cameras)
    lab.start_controller()
    lab.wait(lambda: all(c["state"] == "live" for c in lab.ask(command="status")["cameras"].values()), "the controller")
    status = lab.ask(command="status")
    ledger = {name: (camera["engine"], camera["epoch"]) for name, camera in status["cameras"].items()}
    said: dict[str, tuple[str, int]] = {}
    for engine_id, address in status["addresses"].items():
        owned = ask(address, {"command": "renew", "leases": []}, 5.0)["owned"]
        said |= {name: (engine_id, report["epoch"]) for name, report in owned.items()}
    lab.wait_until_all_are_heard()
    return {
        "longest_gap_s": round(gap_s, 2),
        "longest_gap_with_restart_s": round(max(lab.reader.gap_s(name, at_s) for name in lab.cameras), 2),
        "moved": sum(before[name] != ledger[name] for name in lab.cameras),
        "ledger_equals_engines": ledger == said,
        "disorder": lab.reader.disorder(),
    }


def boxes_model(path: Path, names: tuple[str, ...], score: float = 0.9, side: int = 320) -> Path:
    """A model that finds the same three boxes on every image."""
    table = np.zeros((20, 6), np.float32)
    table[:3] = [[20, 20, 80, 80, score, 0], [120, 20, 180, 80, score, 0], [20, 120, 80, 180, score, 1]]
    metadata = {"names": str(dict(enumerate(names))), "task": "detect", "imgsz": str([side, side]), "stride": "32"}
    return save_constant_model(path, [table], side, metadata)


def unaccounted(lab: FleetLab) -> int:
    """Return how many frames the engines have read, and neither published nor counted as dropped, besides the newest.

    Each source may have a few frames on their way when the status is taken.
    """
    missing = 0
    for address in lab.ask(command="status")["addresses"].values():
        for facts in ask(address, {"command": "status"}, 10.0)["sources"].values():
            left = facts["captured"] - facts["published"] - sum(facts["dropped"].values())
            missing += max(left - MOST_ON_THEIR_WAY, 0) + max(-left, 0)
    return missing


def roll_a_model(lab: FleetLab, model: Path, watch_s: float, baseline: int, restart: bool = False) -> dict[str, Any]:
    """Roll a model out, with a restart of the controller in the middle if asked, and return how it went."""
    at_s = time.monotonic()
    request = {"model": str(model), "watch_s": watch_s, "baseline": baseline}
    lab.ask(command="roll", **request)
    if restart:
        lab.wait(lambda: lab.ask(command="roll")["roll"]["stage"] != "shadow", "the canary")
        lab.kill_controller()
        lab.start_controller()
    lab.wait(lambda: lab.ask(command="roll")["roll"]["stage"] in ("done", "returned"), "the roll", 10 * PATIENCE_S)
    took_s = time.monotonic() - at_s
    lab.wait_until_all_are_heard()
    state = lab.ask(command="roll")["roll"]
    gaps = {name: lab.reader.gap_s(name, at_s) for name in lab.cameras}
    reached = {name for name in lab.cameras for s in lab.reader.frames[name] if s.at_s > at_s and s.model == model.name}
    return {
        "stage": state["stage"],
        "reason": state["reason"],
        "took_s": round(took_s, 1),
        "longest_gap_s": round(max(gaps.values()), 2),
        "frames_unaccounted": unaccounted(lab),
        "cameras_with_the_new_model_for_a_while": len(reached),
        "cameras_with_the_new_model_now": sum(lab.reader.last(name).model == model.name for name in lab.cameras),
        "disorder": lab.reader.disorder(),
    }
