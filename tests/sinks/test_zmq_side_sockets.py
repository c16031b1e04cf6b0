"""Events that frames cannot crowd out, the latest state, snapshots for late joiners, and hostile input."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import Gap, LatestReader, NoMessageError, Subscriber
from engine.wire import FrameMessage, Message, SnapshotMessage, StatusMessage, decode
from tests.wire.samples import RUN, packet, status

ANY = "tcp://127.0.0.1:*"


@pytest.fixture
def publisher() -> Iterator[ZmqPublisher]:
    made = ZmqPublisher(ANY, events=ANY, latest=ANY, snapshot=ANY, high_water_mark=20, send_buffer_bytes=4096)
    made.open(RUN)
    yield made
    made.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


def ask(publisher: ZmqPublisher, socket: zmq.Socket[Any], request: list[bytes]) -> list[bytes] | None:
    socket.send_multipart(request)
    for _ in range(100):
        publisher.tick()
        if socket.poll(10):
            return socket.recv_multipart()
    return None


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER], ids=["REQ", "DEALER"])
def test_a_snapshot_says_where_everything_stands(publisher: ZmqPublisher, context: zmq.Context[Any], kind: int) -> None:
    publisher.status(status("live"))
    for seq in range(3):
        publisher.write(packet(2, seq=seq))
    publisher.write(packet(1, seq=9, source_id="yard"))
    with context.socket(kind) as socket:
        socket.linger = 0
        socket.connect(publisher.endpoints["snapshot"])
        answer = ask(publisher, socket, [b""])
    assert answer is not None
    message = decode(answer[-1])
    assert isinstance(message, SnapshotMessage)
    assert {frame.source_id: frame.seq for frame in message.frames} == {"gate": 2, "yard": 9}
    assert [state.state for state in message.statuses] == ["live"]
    assert message.last_seq["v1/frame/gate/"] == 2
    assert message.last_seq["v1/status/gate/"] == 0


def test_hostile_requests_are_dropped_and_the_next_good_one_is_answered(
    publisher: ZmqPublisher, context: zmq.Context[Any]
) -> None:
    rng = random.Random(3)
    publisher.write(packet(1))
    with context.socket(zmq.DEALER) as hostile, context.socket(zmq.REQ) as good:
        hostile.linger = good.linger = 0
        hostile.connect(publisher.endpoints["snapshot"])
        good.connect(publisher.endpoints["snapshot"])
        for _ in range(300):
            hostile.send_multipart([rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 9))])
        for _ in range(50):
            publisher.tick()
        hostile.send(b"x" * 5000)  # over the limit: disconnected
        assert ask(publisher, good, [b""]) is not None
    assert publisher._outputs.refused > 0


def test_a_late_joiner_is_right_at_once_and_counts_from_there(publisher: ZmqPublisher) -> None:
    gaps: list[Gap] = []
    for seq in range(5):
        publisher.write(packet(2, seq=seq))
    with Subscriber(publisher.address, snapshot=publisher.endpoints["snapshot"], on_gap=gaps.append) as subscriber:
        first = None
        while first is None:
            publisher.tick()
            try:
                first = subscriber.receive(0.01)
            except NoMessageError:
                continue
        assert isinstance(first, SnapshotMessage)
        assert first.frames[0].seq == 4
        heard: list[Message] = []
        for seq in range(8, 400):  # 5, 6 and 7 never arrive
            publisher.write(packet(2, seq=seq))
            try:
                heard.append(subscriber.receive(0.01))  # type: ignore[arg-type]
            except NoMessageError:
                continue
            if isinstance(heard[-1], FrameMessage):
                break
        after = next(m for m in heard if isinstance(m, FrameMessage))
    assert Gap("v1/frame/gate/", 5, after.seq - 1, RUN.run_epoch) in gaps


def test_events_reach_a_reader_whose_frames_are_dropped(publisher: ZmqPublisher, context: zmq.Context[Any]) -> None:
    with Subscriber(publisher.address, events=publisher.endpoints["events"], high_water_mark=5) as subscriber:
        for _ in range(200):
            publisher.status(status("live", "probe"))
            try:
                assert isinstance(subscriber.receive(0.01), StatusMessage)
                break
            except NoMessageError:
                continue
        while True:
            publisher.write(packet(1, source_id="probe"))
            try:
                if isinstance(subscriber.receive(0.01), FrameMessage):
                    break
            except NoMessageError:
                continue
        for seq in range(3000):  # a burst that the reader does not keep up with
            publisher.write(packet(20, seq=seq))
        for _ in range(5):
            publisher.status(status("stalled", "gate"))
        states = []
        while len(states) < 5:
            message = subscriber.receive(5)
            if isinstance(message, StatusMessage) and message.source_id == "gate":
                states.append(message.seq)
    assert states == [0, 1, 2, 3, 4]
    assert publisher.overflows["frame"] >= 1


def test_latest_gives_the_newest_and_nothing_older(publisher: ZmqPublisher) -> None:
    with LatestReader(publisher.endpoints["latest"]) as reader:
        for seq in range(500):
            publisher.write(packet(1, seq=seq))
            try:
                reader.read(0.01)
                break
            except NoMessageError:
                continue
        for later in range(1000, 1500):
            publisher.write(packet(1, seq=later))
        newest = [reader.read(5).frames[0].seq]
        while newest[-1] != 1499:
            newest.append(reader.read(5).frames[0].seq)
        with pytest.raises(NoMessageError, match="nothing from"):
            reader.read(0.01)
    assert newest == sorted(newest)
    assert len(newest) < 250


def test_a_heartbeat_names_the_further_addresses(publisher: ZmqPublisher) -> None:
    assert sorted(publisher.endpoints) == ["events", "latest", "snapshot"]
    assert len({publisher.address, *publisher.endpoints.values()}) == 4
