"""A broker that sends what no broker should: the bridge reports it as unreachable and keeps nothing large."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
from contextlib import closing, suppress
from typing import Any

import msgspec
import pytest

from engine.clock import SYSTEM_CLOCK, FakeClock
from engine.errors import ConfigError
from engine.wire import FrameMessage, HeartbeatMessage
from pipelines.stream.bridges import mqtt
from pipelines.stream.bridges.base import Forwarder, TargetError
from pipelines.stream.bridges.mqtt import MqttBridge, MqttOutput
from pipelines.stream.bridges.mqtt_commands import MAX_PAYLOAD_BYTES, MqttCommands
from pipelines.stream.bridges.mqtt_waiting import MAX_MESSAGES
from tests.patience import AT_ONCE_S
from tests.pipelines.stream.bridges.peers import packet
from tests.wire.samples import SAMPLES

pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")
CONNECTED = b"\x20\x02\x00\x00"
TOPIC = b"framewire/gate/command"


def command(topic: bytes, payload: bytes) -> bytes:
    return packet(0x30, struct.pack(">H", len(topic)) + topic + payload)


class Broker:
    """Accepts any client, then sends given bytes, hangs up if told to, and reads no more if told so."""

    def __init__(self, data: bytes, *, hangs_up: bool, reads: bool = True) -> None:
        self._data, self._hangs_up, self._reads = data, hangs_up, reads
        self._over = threading.Event()
        self.greeting = CONNECTED
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with client, suppress(OSError):
                    client.recv(4096)
                    client.sendall(self.greeting + self._data)
                    if not self._reads:
                        self._over.wait()
                    while not self._hangs_up and client.recv(4096):
                        pass

    def close(self) -> None:
        self._over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def acted() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def commands(acted: list[dict[str, Any]]) -> MqttCommands:
    def act(request: dict[str, Any]) -> dict[str, Any]:
        acted.append(request)
        return {"sources": {}}

    return MqttCommands(["gate"], act)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(command(b"\xff\xfe", b"pause"), id="a topic that is not UTF-8"),
        pytest.param(packet(0x30, b"\xff\xffab"), id="a topic longer than its packet"),
        pytest.param(packet(0x30, b""), id="an empty message"),
        pytest.param(packet(0x90, b"\x00"), id="a cut acknowledgement"),
        pytest.param(packet(0x40, b""), id="an acknowledgement of nothing"),
        pytest.param(b"\x30\xff\xff\xff\xff\xff", id="a length without end"),
        pytest.param(b"\x00\x00\xf0\x00", id="kinds that do not exist"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="HTTP"),
    ],
)
@pytest.mark.parametrize("hangs_up", [True, False])
def test_packets_that_make_no_sense_are_an_unreachable_broker(
    data: bytes, hangs_up: bool, commands: MqttCommands, acted: list[dict[str, Any]]
) -> None:
    with closing(Broker(data, hangs_up=hangs_up)) as broker:
        output = MqttOutput("127.0.0.1", broker.port, commands=commands)
        began_ns = SYSTEM_CLOCK.monotonic_ns()
        with suppress(TargetError):  # any other error would end the bridge
            output.open()
            for _ in range(20):
                output.turn()
                threading.Event().wait(0.01)
        with suppress(TargetError):
            output.close()
        assert SYSTEM_CLOCK.monotonic_ns() - began_ns < (5 + 5 + AT_ONCE_S) * 1e9
    assert [request["command"] for request in acted if request["command"] != "status"] == []


def refusing(code: int) -> bytes:
    return b"\x20\x02\x00" + bytes([code])


@pytest.mark.parametrize("code", range(1, 6))
def test_a_broker_that_refuses_whom_it_accepted_is_only_unreachable(code: int) -> None:
    """One such answer ended the bridge for good."""
    with closing(Broker(b"", hangs_up=False)) as broker:
        made: list[MqttOutput] = []

        def make(engine_id: str) -> MqttOutput:
            made.append(MqttOutput("127.0.0.1", broker.port, engine_id=engine_id))
            return made[-1]

        bridge = MqttBridge(make)
        bridge.open()
        broker.greeting = refusing(code)
        with pytest.raises(TargetError, match="refuses"):
            bridge.watch(next(each for each in SAMPLES.values() if isinstance(each, HeartbeatMessage)))
        broker.greeting = CONNECTED
        bridge.open()
        assert [output.was_accepted for output in made] == [True, True]
        bridge.close()


@pytest.mark.parametrize(("code", "kind"), [(3, TargetError), (4, ConfigError), (5, ConfigError)])
def test_a_broker_that_is_not_ready_is_asked_again_and_a_wrong_password_is_an_error(
    code: int, kind: type[Exception]
) -> None:
    with closing(Broker(b"", hangs_up=False)) as broker:
        broker.greeting = refusing(code)
        with pytest.raises(kind, match="refuses"):
            MqttOutput("127.0.0.1", broker.port).open()


def test_of_commands_that_come_too_fast_one_is_answered(acted: list[dict[str, Any]]) -> None:
    """A broker that sent many made the bridge keep as many answers."""
    clock = FakeClock()
    commands = MqttCommands(["gate"], lambda request: acted.append(request) or {"sources": {}}, clock=clock)
    for _ in range(3):
        before = len(acted)
        answers = [
            json.loads(payload)["ok"]
            for _ in range(50)
            for topic, payload in commands.handle(TOPIC.decode(), b"pause", is_retained=False)
            if topic.endswith("/result")
        ]
        assert answers == [True, False]
        assert [request["command"] for request in acted[before:]] == ["pause", "status"]
        clock.advance(0.6)


def test_long_commands_are_not_kept(commands: MqttCommands) -> None:
    with closing(Broker(command(TOPIC, b"p" * 5_000_000) * 3, hangs_up=False)) as broker:
        output = MqttOutput("127.0.0.1", broker.port, commands=commands)
        output.open()
        deadline_ns = SYSTEM_CLOCK.monotonic_ns() + int(20e9)
        while len(output._asked) < 3 and SYSTEM_CLOCK.monotonic_ns() < deadline_ns:
            output._loop(0.05)
        assert [len(payload) for _, payload, _ in output._asked] == [MAX_PAYLOAD_BYTES + 1] * 3
        with suppress(TargetError):
            output.close()


def frames(count: int) -> list[FrameMessage]:
    """Messages of 40 kB."""
    frame = SAMPLES["frame"]
    assert isinstance(frame, FrameMessage)
    large = msgspec.structs.replace(frame, objects=frame.objects * 100)
    return [msgspec.structs.replace(large, frame_id=number) for number in range(count)]


@pytest.mark.parametrize("is_read", [True, False], ids=["acknowledges nothing", "reads nothing"])
def test_a_broker_that_takes_nothing_fills_no_memory(is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CONNECT_S", 0.3)
    with closing(Broker(b"", hangs_up=False, reads=is_read)) as broker:
        output = MqttOutput("127.0.0.1", broker.port, engine_id="e", frames=True)
        output.open()
        event = SAMPLES["event"]

        def send_all() -> None:
            for message in itertools.islice(itertools.cycle([event] if is_read else frames(10)), 20_000):
                output.send(message)

        with pytest.raises(TargetError, match="takes no messages"):
            send_all()
        held = len(output._waiting)
        with pytest.raises(TargetError):
            output.send(event)
        assert 10 < len(output._waiting) == held <= MAX_MESSAGES
        output.close()  # as the forwarder does before it connects again
        forwarder = Forwarder(output)
        forwarder.offer(event)
        forwarder.pump()
        forwarder.close()
