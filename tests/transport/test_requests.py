"""Waiting requests are taken fairly, and clients that send many at once lose all but a few."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from engine.transport.requests import MOST, PER_CLIENT, RequestQueue

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


@pytest.fixture
def context() -> Iterator[Context]:
    with zmq.Context() as made:
        yield made


def _bound(context: Context) -> tuple[Socket, str]:
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return socket, f"tcp://127.0.0.1:{port}"


def _client(context: Context, address: str, name: bytes) -> Socket:
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.routing_id = name
    socket.connect(address)
    return socket


def _taken(queue: RequestQueue, socket: Socket, count: int) -> None:
    """Take requests until this many have arrived."""
    while len(queue) + queue.dropped < count:
        assert socket.poll(10_000)
        queue.take()


def test_each_client_has_its_turn(context: Context) -> None:
    socket, address = _bound(context)
    queue = RequestQueue(socket, None, "test")
    with socket, _client(context, address, b"greedy") as greedy, _client(context, address, b"modest") as modest:
        for number in range(10):
            greedy.send_multipart([b"", b"%d" % number])
        _taken(queue, socket, 10)
        modest.send_multipart([b"", b"one"])
        _taken(queue, socket, 11)
        order = []
        while (request := queue.next()) is not None:
            order.append((request[0], request[-1]))
    assert order[:3] == [(b"greedy", b"0"), (b"modest", b"one"), (b"greedy", b"1")]
    assert [body for name, body in order if name == b"greedy"] == [b"%d" % number for number in range(10)]


def test_a_flood_keeps_a_few_requests(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    socket, address = _bound(context)
    queue = RequestQueue(socket, None, "test")
    with socket, _client(context, address, b"greedy") as greedy, _client(context, address, b"modest") as modest:
        for _ in range(200):
            greedy.send(b"x")
        _taken(queue, socket, 200)
        assert (len(queue), queue.dropped) == (PER_CLIENT, 200 - PER_CLIENT)
        modest.send(b"y")
        _taken(queue, socket, 201)
        assert queue.next() == [b"greedy", b"x"]
        assert queue.next() == [b"modest", b"y"]
    assert len([record for record in caplog.records if "dropped" in record.message]) == 1


def test_many_clients_together_keep_a_bounded_number(context: Context) -> None:
    socket, address = _bound(context)
    queue = RequestQueue(socket, None, "test")
    clients = [_client(context, address, b"client %d" % number) for number in range(MOST // PER_CLIENT + 4)]
    with socket:
        for client in clients:
            for _ in range(PER_CLIENT):
                client.send(b"x")
        _taken(queue, socket, len(clients) * PER_CLIENT)
        assert len(queue) == MOST
        modest = _client(context, address, b"modest")
        clients.append(modest)
        modest.send(b"y")
        while not queue.dropped > (len(clients) - 1) * PER_CLIENT - MOST:
            assert socket.poll(10_000)
            queue.take()
        assert [b"modest", b"y"] in [queue.next() for _ in range(len(clients))]
        for client in clients:
            client.close()
