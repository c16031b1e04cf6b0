"""A fleet: the sockets of its controller, of the engines that it runs, and of the collector between them."""

from __future__ import annotations

import json
import random
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from engine.errors import ConfigError
from engine.leases import MAX_EPOCH
from engine.wire import encode
from pipelines.fleet.running.address import address_of
from pipelines.running.control_client import ask
from tests.freshness.engine_process import free_port
from tests.hostile.lab import HEALTHY, HEALTHY_URI, START_S, Lab, _Watch, wait_until
from tests.wire.samples import SAMPLES
from tools.attacks.damage import mutated, replaced
from tools.attacks.live import Attack, Starting
from tools.attacks.progress import Progress
from tools.attacks.sockets import MESSAGES, at_port, send, spelled
from tools.attacks.victims import Victim

ENGINE = "n1"
MEMORY_MB = 20.0
"""Of three processes together; they kept 8 to 12 MB after 65,000 requests as after 100,000."""
TO_CONTROLLER: list[dict[str, Any]] = [
    {"command": "status"},
    {"command": "plan"},
    {"command": "drain", "engine_id": "gone", "undo": True},
    {"command": "move", "source_id": "gone", "engine_id": "gone"},
    {"command": "move", "source_id": HEALTHY, "engine_id": "gone"},
    {"command": "roll"},
    {"command": "roll", "stop": True},
    {"command": "roll", "model": "/nowhere.onnx", "canary": ["gone"], "watch_s": 1, "baseline": 60, "max_drift": 0.2},
]
EPOCHS: tuple[Any, ...] = (0, -1, 1, 2**31, 2**63, 10**40, float("nan"), float("inf"), "1", None, True, [])


class FleetLab(Lab):
    """A controller with one engine, whose only camera is the healthy one, and a reader at the collector.

    Args:
        folder: for configuration and state.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"attack-{uuid.uuid4().hex[:8]}"
        self.collect, self.publish = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        tree = {
            "name": self.name,
            "state": str(folder / "state"),
            "engine": {"detector": {"model": "motion"}},
            "collector": {"collect": self.collect, "publish": self.publish},
            "nodes": [{"name": ENGINE, "cores": 64}],
            "cameras": [{"source_id": HEALTHY, "uri": HEALTHY_URI}],
        }
        config = folder / "fleet.yaml"
        config.write_text(json.dumps(tree))
        self.engine: Any = Victim(["fleet", "up", str(config), "--json"], f"fleet {self.name} with")
        self.engine_address = ""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask the controller. Raises `ConfigError`."""
        return ask(address_of(self.name), request, 10.0)

    def __enter__(self) -> FleetLab:
        self._watch = _Watch(self.publish)
        try:
            wait_until(self.engine.has_started, START_S)
            assert self._watch.first.wait(START_S), f"no frame through the collector: {self.engine.errors()}"
            self.engine_address = self.ask({"command": "status"})["addresses"][ENGINE]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watch.close()
        if self.engine.alive:  # it must end its engine too
            self.engine.process.terminate()
            self.engine.process.wait(30)
        self.engine.close()
        Path(address_of(self.name).removeprefix("ipc://")).unlink(missing_ok=True)


@contextmanager
def fleet(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """Requests to controller and engine, replays of old ones, and messages to the collector."""
    with FleetLab(folder) as lab:
        status = ask(lab.engine_address, {"command": "status"}, 10.0)
        old = {"incarnation": status["incarnation"], "as_of_ns": 1, "lease_s": 2.0}

        def turn(victim: Any) -> None:
            how = rng.random()
            if how < 0.4:
                send(
                    address_of(lab.name),
                    rng,
                    [_body(rng, rng.choice(TO_CONTROLLER)) for _ in range(MESSAGES)],
                    progress,
                )
            elif how < 0.8:
                send(lab.engine_address, rng, [_body(rng, _of_lease(rng, old)) for _ in range(MESSAGES)], progress)
            elif how < 0.9:
                at_port(lab.publish, zmq.XSUB, rng, progress)
            else:
                at_port(lab.collect, zmq.PUB, rng, progress)
                _publish(lab.collect, rng, progress)
            if rng.random() < 0.02:
                _check(lab, progress)

        yield Attack(lab, turn, MEMORY_MB, has_sources=False)


def _body(rng: random.Random, request: dict[str, Any]) -> bytes:
    body = mutated(rng, spelled(request)) if rng.random() < 0.5 else spelled(replaced(rng, request))
    return spelled(request) if _may_stop(body) else body


def _may_stop(body: bytes) -> bool:
    """Return whether a request may stop the healthy camera: whoever can write to the socket is allowed to do that."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return False
    epoch = request.get("epoch") if isinstance(request, dict) else None
    return type(epoch) is int and 0 < epoch <= MAX_EPOCH and request.get("source_id") == HEALTHY


def _of_lease(rng: random.Random, old: dict[str, Any]) -> dict[str, Any]:
    """Return a request about leases: a replay of an old one, or one with an epoch that cannot be."""
    epoch: Any = rng.choice(EPOCHS)
    facts = old if rng.random() < 0.5 else {"incarnation": "gone", "as_of_ns": rng.choice(EPOCHS), "lease_s": epoch}
    source = {"source_id": rng.choice((HEALTHY, "stranger")), "uri": "nowhere://x"}
    return rng.choice(
        (
            {"command": "assign", "source": source, "epoch": 0 if facts is old else epoch, **facts},
            {"command": "renew", "leases": [["stranger", epoch], [HEALTHY, 0]], **facts},
            {"command": "renew", "leases": [["stranger", 1]] * rng.choice((1, 2100)), **facts},
            {"command": "release", "source_id": "stranger", "epoch": epoch, **facts},
            {"command": "release", "source_id": HEALTHY, "epoch": 0, **facts},
        )
    )


def _publish(address: str, rng: random.Random, progress: Progress) -> None:
    """Publish damaged messages to the collector, as an engine that nobody knows."""
    samples = list(SAMPLES.values())
    with zmq.Context() as context, context.socket(zmq.PUB) as engine:
        engine.setsockopt(zmq.LINGER, 0)
        engine.connect(address)
        engine.poll(100)
        for _ in range(MESSAGES):
            topic = mutated(rng, b"v1/frame/stranger/")
            body = mutated(rng, encode(rng.choice(samples), rng.choice(("json", "msgpack"))))
            engine.send_multipart([topic, body] if rng.random() < 0.8 else [topic, body, body, body])
            progress.tried(body)


def _check(lab: FleetLab, progress: Progress) -> None:
    """Count it as a fault if the controller does not answer, or the camera has another owner."""
    try:
        camera = lab.ask({"command": "status"})["cameras"][HEALTHY]
    except ConfigError as error:
        progress.failed(f"the controller does not answer: {error}")
        return
    if (camera["engine"], camera["state"]) != (ENGINE, "live"):
        progress.failed(f"the healthy camera is {camera}")
