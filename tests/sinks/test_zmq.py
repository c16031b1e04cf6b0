"""The publisher: it never waits, its memory is bounded, what happens on the wire is what docs/wire.md says."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from engine.clock import FakeClock
from engine.data import Run
from engine.errors import ConfigError, SinkError
from engine.sinks.zmq import ZmqPublisher
from engine.wire import EosMessage, FrameMessage, HeartbeatMessage, Message, StatsMessage, StatusMessage, decode
from tests.wire.samples import RUN, packet, status


class Readers:
    """Plain SUB sockets, closed together at the end."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets: list[zmq.Socket[Any]] = []

    def add(self, publisher: ZmqPublisher, *, hwm: int = 100_000) -> zmq.Socket[Any]:
        """Return a connected socket whose subscription has reached the publisher."""
        socket = self.context.socket(zmq.SUB)
        self.sockets.append(socket)
        socket.setsockopt(zmq.RCVHWM, hwm)
        socket.setsockopt(zmq.RCVBUF, 4096)
        socket.subscribe(b"")
        socket.connect(publisher.address)
        for _ in range(500):
            publisher.status(status("live", "probe"))
            if socket.poll(10):
                return socket
        raise AssertionError("the subscription did not arrive")


@pytest.fixture
def readers() -> Iterator[Readers]:
    readers = Readers()
    yield readers
    for socket in readers.sockets:
        socket.close(linger=0)
    readers.context.term()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1)


@pytest.fixture
def publisher(clock: FakeClock) -> Iterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:*", high_water_mark=50, send_buffer_bytes=4096, clock=clock)
    made.open(RUN)
    yield made
    made.close()


def messages(socket: zmq.Socket[Any], wait_ms: int = 300) -> list[Message]:
    """Return all that arrives until nothing more does."""
    found = []
    while socket.poll(wait_ms):
        topic, body = socket.recv_multipart()
        if not topic.endswith(b"/probe/"):
            found.append(decode(body))
    return found


def test_frames_states_and_ends_are_published_in_order(readers: Readers, publisher: ZmqPublisher) -> None:
    socket = readers.add(publisher)
    publisher.status(status("live"))
    for seq in range(3):
        publisher.write(packet(2, seq=seq))
    publisher.status(status("ended"))
    found = [m for m in messages(socket) if not isinstance(m, HeartbeatMessage | StatsMessage)]
    assert [type(m) for m in found] == [StatusMessage, *[FrameMessage] * 3, StatusMessage, EosMessage]
    assert [m.seq for m in found if isinstance(m, StatusMessage)] == [0, 1]
    assert found[-1].last_seq == 2  # type: ignore[union-attr]


def test_the_encoding_may_be_msgpack(readers: Readers) -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:*", encoding="msgpack")
    publisher.open(RUN)
    socket = readers.add(publisher)
    publisher.write(packet(2))
    publisher.close()
    frames = [m for m in messages(socket) if isinstance(m, FrameMessage)]
    assert len(frames) == 1
    assert len(frames[0].objects) == 2


def test_a_heartbeat_and_statistics_come_each_second_also_when_nothing_happens(
    readers: Readers, publisher: ZmqPublisher, clock: FakeClock
) -> None:
    socket = readers.add(publisher)
    publisher.write(packet(1, seq=0))
    publisher.write(packet(1, seq=4))
    for _ in range(3):
        clock.advance(1)
        publisher.tick()
        publisher.tick()
    found = messages(socket)
    beats = [m for m in found if isinstance(m, HeartbeatMessage)][-3:]
    assert [b.uptime_s for b in beats] == [1.0, 2.0, 3.0]
    assert beats[-1].frame_seq == {"gate": 4}
    stats = [m for m in found if isinstance(m, StatsMessage) and m.source_id == "gate"][-3:]
    assert [(s.published, s.fps) for s in stats] == [(2, 1.0), (2, 0.0), (2, 0.0)]
    assert stats[-1].dropped == {"age": 1}
    assert stats[-1].latency_ms == {}


def test_closing_ends_the_streams_that_have_not_ended(readers: Readers, publisher: ZmqPublisher) -> None:
    socket = readers.add(publisher)
    publisher.status(status("live", "one"))
    publisher.status(status("live", "two"))
    publisher.status(status("ended", "two"))
    publisher.close()
    publisher.close()
    ends = [m for m in messages(socket) if isinstance(m, EosMessage)]
    assert [(m.source_id, m.reason) for m in ends] == [("two", ""), ("one", "shutdown")]


def test_a_source_that_comes_back_has_statistics_and_an_end_again(
    readers: Readers, publisher: ZmqPublisher, clock: FakeClock
) -> None:
    socket = readers.add(publisher)
    for state in ("live", "ended", "live"):
        publisher.status(status(state))  # type: ignore[arg-type]
    clock.advance(1.0)
    publisher.tick()
    publisher.status(status("ended"))
    found = [m for m in messages(socket) if getattr(m, "source_id", None) == "gate"]
    assert [type(m) for m in found] == [
        *(StatusMessage, StatusMessage, EosMessage),
        *(StatusMessage, StatsMessage, StatusMessage, EosMessage),
    ]


def test_a_stopped_reader_costs_the_others_nothing_and_is_counted(readers: Readers, publisher: ZmqPublisher) -> None:
    readers.add(publisher, hwm=5)  # and never reads again
    healthy = readers.add(publisher)
    got: list[int] = []
    for seq in range(1500):
        publisher.write(packet(20, seq=seq))
        while seq % 10 == 9 and healthy.poll(20_000):  # a queue of 50 has room for 25 at least, and at most 10 wait
            message = decode(healthy.recv_multipart()[1])
            got += [message.seq] if isinstance(message, FrameMessage) else []
            if got and got[-1] == seq:
                break
    while len(got) < 1500 and healthy.poll(2000):
        message = decode(healthy.recv_multipart()[1])
        got += [message.seq] if isinstance(message, FrameMessage) else []
    assert got == list(range(1500))
    assert publisher.overflows.get("frame", 0) >= 1


def test_publishing_takes_as_long_with_a_stopped_reader_as_without(readers: Readers, publisher: ZmqPublisher) -> None:
    packets = [packet(20, seq=seq) for seq in range(400)]

    def median_s() -> float:
        times = []
        for each in packets:
            started = time.perf_counter()
            publisher.write(each)
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    alone = median_s()
    readers.add(publisher, hwm=5)
    for _ in range(3):  # fill its queue
        median_s()
    assert publisher.overflows
    assert median_s() < 20 * alone + 0.001  # waiting for the reader would never end


def test_a_port_in_use_is_an_error_with_a_remedy(publisher: ZmqPublisher) -> None:
    second = ZmqPublisher(publisher.address)
    with pytest.raises(SinkError, match=r"in use.*use another port"):
        second.open(RUN)
    second.close()


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("tcp://192.0.2.1:5555", id="an address of another machine"),
        pytest.param("ipc:///no/such/folder/socket", id="a folder that does not exist"),
        pytest.param("tcp://no such host:5555", id="no host name"),
    ],
)
def test_an_address_that_cannot_be_bound_is_an_error(address: str) -> None:
    with pytest.raises(SinkError, match="cannot publish on"):
        ZmqPublisher(address).open(RUN)


@pytest.mark.parametrize(
    "address", ["", "5555", "localhost:5555", "tcp://", "tcp://*", "tcp://127.0.0.1:80000", "inproc://x", "ipc://"]
)
def test_an_address_of_the_wrong_form_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot be bound"):
        ZmqPublisher(address)


def test_an_unbounded_queue_is_refused() -> None:
    with pytest.raises(ConfigError, match="bounded"):
        ZmqPublisher(high_water_mark=0)


def test_every_network_may_be_bound_and_the_port_found() -> None:
    publisher = ZmqPublisher("tcp://*:*")
    publisher.open(Run("e", 1))
    assert publisher.address.startswith("tcp://0.0.0.0:")
    publisher.close()


def test_publishing_before_opening_is_an_error() -> None:
    with pytest.raises(SinkError, match=r"call open\(\)"):
        ZmqPublisher().write(packet(1))


def test_a_publisher_may_be_opened_again(readers: Readers) -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:*", linger_ms=0)
    publisher.open(RUN)
    publisher.close()
    publisher.open(dataclasses.replace(RUN, run_epoch=5))
    readers.add(publisher)
    publisher.close()


def test_packets_that_were_announced_are_published_as_others_are(readers: Readers, publisher: ZmqPublisher) -> None:
    socket = readers.add(publisher)
    packets = [packet(count, source_id=f"camera{count}") for count in (4, 0, 2)]
    publisher.announce(packets)
    for each in [*packets, *packets]:  # the second time without an announcement
        publisher.write(dataclasses.replace(each, published_utc_ns=each.published_utc_ns + 1))
    found = [message for message in messages(socket) if isinstance(message, FrameMessage)]
    assert [len(message.objects) for message in found] == [4, 0, 2, 4, 0, 2]
    assert found[:3] == found[3:]
