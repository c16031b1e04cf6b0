"""Requests and models that once froze or ended a run: long names, several parts, metadata of a quarter megabyte."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.assets import demo_model
from engine.data import Run
from engine.errors import ConfigError
from engine.sinks.zmq import ZmqPublisher
from engine.transport.connect import curve_options
from engine.transport.keys import KeyPair, load_key_pair, make_keys
from tests.hostile.lab import Engine, Lab

LONG = 60_000
MANY = 1136
SPEED = ("healthy camera", "freeze", "threads", "descriptors")  # a model takes its own cores, memory and threads
METADATA = {
    "spaces": " " * 260_000 + "x",
    "escaped quotes": "'" + "\\'" * 130_000,
    "signs": "- " * 130_000,
    "spaces and signs": (" " * 50 + "-") * 5_000,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "letters": {"command": "pause", "source_id": "a" * LONG},
    "addresses": {"command": "pause", "source_id": "a://" * (LONG // 4)},
    "a password of marks": {"command": "add", "source": {"uri": "rtsp://a:" + "@" * LONG}},
    "a long query": {"command": "add", "source": {"uri": "rtsp://a?" + "key=1&" * 9000}},
    "a long key": {"command": "set", "key": "detector." + "k" * LONG, "value": 1},
    "a deep key": {"command": "set", "key": ".".join("a" * 9000), "value": 1},
    "many unknown keys": {"command": "add", "source": {"k" * 500 + str(n): n for n in range(90)}},
}


@pytest.mark.alone
def test_long_requests_are_refused_at_once() -> None:
    def send(engine: Engine) -> dict[str, int]:
        answers = {}
        for name, request in REQUESTS.items():
            for _ in range(5):
                with pytest.raises(ConfigError) as refused:
                    engine.ask(request)
            answers[name] = len(str(refused.value))
        return answers

    with Lab() as lab:
        verdict = lab.play(send)
    assert verdict.faults() == {}, str(verdict)
    assert {name: chars for name, chars in verdict.notes.items() if chars >= 10_000} == {}


@pytest.mark.alone
def test_messages_of_several_parts_end_nothing() -> None:
    def send(engine: Engine) -> bool:
        with zmq.Context() as context, context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.connect(engine.control)
            for parts in ([b"", b'{"command":"status"}', b"x"], [b"x"] * 30, [b""], [b"", b"", b""]):
                client.send_multipart(parts)
        return bool(engine.ask({"command": "status"})["ok"])

    with Lab() as lab:
        verdict = lab.play(send)
    assert verdict.faults() == {}, str(verdict)
    assert verdict.notes is True


@pytest.mark.alone
def test_models_with_hostile_metadata_do_not_freeze_a_run(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(demo_model())
    kept = [entry for entry in model.metadata_props if entry.key != "description"]

    def load(engine: Engine) -> dict[str, bool]:
        answers = {}
        for name, text in METADATA.items():
            del model.metadata_props[:]
            model.metadata_props.extend(kept)
            model.metadata_props.add(key="description", value=text)
            path = tmp_path / f"{name}.onnx"
            onnx.save(model, path)
            answer = engine.ask({"command": "set", "key": "detector.model", "value": str(path)}, 60.0)
            answers[name] = bool(answer["ok"])
        return answers

    with Lab() as lab:
        verdict = lab.play(load, settle_s=0)
    faults = verdict.faults(memory_mb=400.0)
    assert {name: figure for name, figure in faults.items() if name not in SPEED} == {}, str(verdict)
    assert verdict.notes == dict.fromkeys(METADATA, True)


def _keys(folder: Path) -> tuple[KeyPair, KeyPair]:
    return load_key_pair(make_keys(folder, "gate")[1]), load_key_pair(make_keys(folder, "desk")[1])


def test_idle_connections_to_an_encrypted_stream_leave_room_for_its_readers(tmp_path: Path) -> None:
    gate, desk = _keys(tmp_path)
    publisher = ZmqPublisher("tcp://127.0.0.1:*", keys=gate, allowed_keys={desk.public})
    publisher.open(Run("e", 1))
    idle: list[socket.socket] = []
    try:
        port = int(publisher.address.rpartition(":")[2])
        with suppress(OSError):
            while len(idle) < MANY:
                idle.append(socket.create_connection(("127.0.0.1", port), 2.0))
        with zmq.Context() as context, context.socket(zmq.SUB) as reader:
            for option, value in curve_options(gate.public, desk).items():
                reader.setsockopt(option, value)
            reader.linger = 0
            reader.connect(publisher.address)
            reader.subscribe(b"v1/heartbeat/")
            heard = False
            for _ in range(300):
                publisher.tick()
                heard = heard or bool(reader.poll(100))
                if heard:
                    break
            assert heard
            assert json.loads(reader.recv_multipart()[1])["engine_id"] == "e"
        assert publisher.guard.cut > 0
    finally:
        for each in idle:
            each.close()
        publisher.close()
