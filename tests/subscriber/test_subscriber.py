"""The client against live publishers: typed messages, gaps, restarts, closing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from engine.data import Run
from engine.errors import ConfigError
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import Gap, NoMessageError, Subscriber, subscribe
from engine.wire import FrameMessage, HeartbeatMessage, Message, VersionError, encode, topic_of
from tests.patience import AT_ONCE_S
from tests.publishing import sending
from tests.wire.samples import RUN, SAMPLES, UTC_NS, packet, status

CLIENTS = Path(__file__).resolve().parents[2] / "docs" / "clients"


@pytest.fixture
def publisher() -> Iterator[ZmqPublisher]:
    with_free_port = ZmqPublisher("tcp://127.0.0.1:*")
    with_free_port.open(RUN)
    yield with_free_port
    with_free_port.close()


@pytest.fixture
def raw() -> Iterator[tuple[zmq.Socket[bytes], str]]:
    """A bare PUB socket, to send what no publisher of ours sends."""
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        yield socket, f"tcp://127.0.0.1:{port}"


def until_heard(subscriber: Subscriber, publisher: ZmqPublisher, run: Run = RUN) -> tuple[FrameMessage, int]:
    """Publish until the subscription has arrived; return the first message and the next unused `seq`."""
    for seq in range(2000):
        publisher.write(dataclasses.replace(packet(1, seq=seq), run=run))
        try:
            message = subscriber.receive(0.01)
        except NoMessageError:
            continue
        while isinstance(message, FrameMessage) and message.seq < seq:
            message = subscriber.receive(5)
        assert isinstance(message, FrameMessage)
        return message, seq + 1
    raise AssertionError("nothing arrived")


def send(raw: zmq.Socket[bytes], message: Message) -> None:
    raw.send_multipart([topic_of(message).encode(), encode(message)])


def hear(raw: zmq.Socket[bytes], subscriber: Subscriber, message: Message) -> None:
    """Send one message until the subscription has arrived."""
    for _ in range(500):
        send(raw, message)
        try:
            assert subscriber.receive(0.01) == message
        except NoMessageError:
            continue
        return
    raise AssertionError("nothing arrived")


def test_messages_arrive_typed_and_in_order(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.address, "v1/frame/") as subscriber:
        _, seq = until_heard(subscriber, publisher)
        for n in range(seq, seq + 20):
            publisher.write(packet(3, seq=n))
        received = [subscriber.receive(5) for _ in range(20)]
    assert [m.seq for m in received if isinstance(m, FrameMessage)] == list(range(seq, seq + 20))
    assert sum(subscriber.lost.values()) == 0


def test_only_the_topics_asked_for_arrive(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.address, ["v1/frame/cam1/"]) as subscriber:
        seen: set[str] = set()
        for n in range(200):
            publisher.write(packet(1, seq=n, source_id="cam10"))
            publisher.write(packet(1, seq=n, source_id="cam1"))
            try:
                message = subscriber.receive(0.01)
            except NoMessageError:
                continue
            assert isinstance(message, FrameMessage)
            seen.add(message.source_id)
            if message.seq > 20:
                break
    assert seen == {"cam1"}


def test_subscribe_ends_after_the_messages_asked_for(publisher: ZmqPublisher) -> None:
    with sending(publisher, objects=2):
        received = list(subscribe(publisher.address, "v1/frame/gate/", count=5, timeout_s=10))
    assert [m.seq - received[0].seq for m in received] == [0, 1, 2, 3, 4]
    assert list(subscribe(publisher.address, count=0)) == []


def test_silence_is_an_error_that_names_the_address(free_port: int) -> None:
    with pytest.raises(NoMessageError, match=f"no message from tcp://127.0.0.1:{free_port} on v1/"):
        list(subscribe(f"tcp://127.0.0.1:{free_port}", timeout_s=0.05))


@pytest.mark.parametrize("address", ["localhost:5555", "http://127.0.0.1:1", "tcp://", ""])
def test_an_address_that_cannot_be_right_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="tcp://host:port"):
        Subscriber(address)


def test_no_topic_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="v1/"):
        Subscriber("tcp://127.0.0.1:1", topics=())


def test_closing_from_another_thread_ends_a_waiting_iteration(free_port: int) -> None:
    subscriber = Subscriber(f"tcp://127.0.0.1:{free_port}")
    received: list[Message] = []
    thread = threading.Thread(target=lambda: received.extend(subscriber))
    thread.start()
    started = time.monotonic()
    subscriber.close()
    thread.join(AT_ONCE_S)
    assert not thread.is_alive()
    assert time.monotonic() - started < AT_ONCE_S
    assert received == []
    assert subscriber.receive() is None
    subscriber.close()


def test_a_gap_is_reported_with_its_range_before_the_message_after_it(raw: tuple[zmq.Socket[bytes], str]) -> None:
    socket, address = raw
    gaps: list[Gap] = []
    with Subscriber(address, on_gap=gaps.append) as subscriber:
        base = SAMPLES["frame"]
        hear(socket, subscriber, base)
        send(socket, msgspec.structs.replace(base, seq=50))
        while subscriber.receive(5) == base:
            pass
    assert gaps == [Gap("v1/frame/gate/", 42, 49, UTC_NS)]
    assert gaps[0].count == 8
    assert subscriber.lost == {"v1/frame/gate/": 8}


def test_a_heartbeat_reveals_the_loss_of_the_latest_frames(raw: tuple[zmq.Socket[bytes], str]) -> None:
    socket, address = raw
    gaps: list[Gap] = []
    heartbeat = SAMPLES["heartbeat"]
    with Subscriber(address, on_gap=gaps.append) as subscriber:
        hear(socket, subscriber, SAMPLES["frame"])
        send(socket, msgspec.structs.replace(heartbeat, frame_seq={"gate": 44, "never seen": 9}))
        while not isinstance(subscriber.receive(5), HeartbeatMessage):
            pass
    assert [(gap.first_seq, gap.last_seq) for gap in gaps] == [(42, 44)]


def test_a_restart_is_noticed_and_what_was_missed_of_the_new_run_is_known(raw: tuple[zmq.Socket[bytes], str]) -> None:
    socket, address = raw
    gaps: list[Gap] = []
    restarts: list[Message] = []
    with Subscriber(address, on_gap=gaps.append, on_restart=restarts.append) as subscriber:
        base = SAMPLES["frame"]
        hear(socket, subscriber, base)
        anew = msgspec.structs.replace(base, run_epoch=UTC_NS + 1, seq=3)
        send(socket, anew)
        while subscriber.receive(5) == base:
            pass
    assert restarts == [anew]
    assert subscriber.restarts == 1
    assert gaps == [Gap("v1/frame/gate/", 0, 2, UTC_NS + 1, "restart")]


def test_a_publisher_that_is_replaced_on_its_port_is_heard_again() -> None:
    first = ZmqPublisher("tcp://127.0.0.1:*")
    first.open(RUN)
    with Subscriber(first.address, "v1/frame/") as subscriber:
        until_heard(subscriber, first)
        first.close()
        second, run = ZmqPublisher(first.address), dataclasses.replace(RUN, run_epoch=UTC_NS + 1)
        second.open(run)
        try:
            message, _ = until_heard(subscriber, second, run)
        finally:
            second.close()
    assert message.run_epoch == UTC_NS + 1
    assert subscriber.restarts == 1


def test_messages_that_cannot_be_read_are_counted_and_skipped(raw: tuple[zmq.Socket[bytes], str]) -> None:
    socket, address = raw
    good = SAMPLES["status"]
    with Subscriber(address) as subscriber:
        hear(socket, subscriber, good)
        socket.send_multipart([b"v1/frame/gate/", b"{"])
        socket.send_multipart([b"v1/frame/gate/"])
        socket.send_multipart([b"v1/frame/\xff/", encode(SAMPLES["frame"])])
        socket.send_multipart([b"v1/frame/other/", encode(SAMPLES["frame"])])
        last = SAMPLES["eos"]
        send(socket, last)
        while subscriber.receive(5) != last:
            pass
    assert subscriber.malformed == 4


def test_another_major_version_stops_the_reader_with_a_clear_error(raw: tuple[zmq.Socket[bytes], str]) -> None:
    socket, address = raw
    with Subscriber(address) as subscriber:
        hear(socket, subscriber, SAMPLES["status"])
        other = msgspec.structs.replace(SAMPLES["frame"], schema="framewire.frame/2.0")
        send(socket, other)
        with pytest.raises(VersionError, match=r"framewire\.frame/2\.0"):
            list(subscriber)


def test_the_ten_line_client_prints_what_is_published(publisher: ZmqPublisher) -> None:
    command = [sys.executable, str(CLIENTS / "minimal.py"), publisher.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            with sending(publisher, objects=2, every_s=0.01):
                assert client.stdout is not None
                line = client.stdout.readline()
        finally:
            client.kill()
    assert line.startswith("gate ")
    assert "'person'" in line
    code = [text for text in (CLIENTS / "minimal.py").read_text().splitlines() if text and not text.startswith("#")]
    assert len(code) <= 12


def test_the_client_needs_nothing_heavy() -> None:
    program = "import sys, json, engine.subscriber; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in json.loads(output)}
    assert loaded.isdisjoint({"cv2", "av", "supervision", "onnxruntime", "openvino", "lap", "torch", "pydantic"})


def test_states_ends_and_statistics_arrive(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.address) as subscriber:
        with Subscriber(publisher.address, "v1/frame/") as first:
            _, seq = until_heard(first, publisher)
        publisher.write(packet(1, seq=seq))
        publisher.status(status("ended"))
        kinds: list[str] = []
        while not kinds or kinds[-1] != "EosMessage":
            message = subscriber.receive(5)
            kinds.append(type(message).__name__)
    assert kinds[-2:] == ["StatusMessage", "EosMessage"]
    assert "FrameMessage" in kinds
