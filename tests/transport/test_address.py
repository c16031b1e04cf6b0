"""Addresses of sockets: wrong ones are refused, and nothing of others is replaced at a path."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import zmq

from engine.data import Run
from engine.errors import ConfigError, SinkError
from engine.sinks.zmq import ZmqPublisher
from engine.transport.address import binding, checked_address


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:65736",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:1e3",
        "tcp://127.0.0.1:\u0661",
        "tcp://127.0.0.1",
        "tcp://:5555",
        "127.0.0.1:5555",
        "ipc://",
        "ipc:///" + "x" * 200,
        "inproc://x",
        "",
    ],
)
def test_an_address_that_cannot_work_is_refused_before_libzmq_sees_it(address: str) -> None:
    with pytest.raises(ConfigError, match="control address"):
        checked_address(address, "control address")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "tcp://*:5555", "tcp://[::1]:65535", "ipc:///tmp/x"])
def test_an_address_that_can_work_is_kept(address: str) -> None:
    assert checked_address(address, "publish address") == address


@pytest.mark.parametrize("name", ["events", "latest", "snapshot"])
def test_side_sockets_have_real_ports_too(name: str) -> None:
    with pytest.raises(ConfigError, match=f"publish {name}"):
        ZmqPublisher("tcp://127.0.0.1:*", **{name: "tcp://127.0.0.1:65736"})  # type: ignore[arg-type]


def test_binding_a_path_keeps_the_file_that_is_there(tmp_path: Path) -> None:
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    publisher = ZmqPublisher(f"ipc://{kept}")
    with pytest.raises(SinkError, match="a file at this path"):
        publisher.open(Run("e", 1))
    assert kept.read_text() == "mine"


def test_a_second_publisher_does_not_take_the_path_of_the_first(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/stream"
    first = ZmqPublisher(address)
    first.open(Run("e", 1))
    try:
        with pytest.raises(SinkError, match="another program"):
            ZmqPublisher(address).open(Run("e", 2))
    finally:
        first.close()


def test_the_path_of_a_publisher_that_was_killed_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    publisher = ZmqPublisher(f"ipc://{path}")
    publisher.open(Run("e", 1))
    publisher.close()


def test_a_private_socket_is_open_to_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    before = os.umask(0o000)
    try:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
            with binding(f"ipc://{path}", private=True):
                bound.bind(f"ipc://{path}")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == 0o000
