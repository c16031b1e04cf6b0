"""What a reader process sends is checked: it may have been taken over."""

from __future__ import annotations

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.process import MAX_MESSAGE_BYTES, Messages
from engine.sources.live.reader_events import Finished, Opened
from engine.sources.live.reader_messages import ReaderMessageError, Room, told_by_reader

FACTS = {"width": 640, "height": 480, "fps": 25.0, "frame_count": None, "codec": "h264", "decoder": "cpu"}


def test_what_a_reader_of_ours_says_is_understood() -> None:
    assert told_by_reader(json.dumps({"opened": FACTS}).encode()) == Opened(FACTS)
    assert told_by_reader(b'{"room": 921600}') == Room(921600)
    assert told_by_reader(b'{"finished": "no answer", "is_end": false}') == Finished("no answer", False)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"[" * 60_000, id="deep"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b'{"opened": {"source_id": "other"}}', id="another fact"),
        pytest.param(b'{"opened": {"width": -1}}', id="negative width"),
        pytest.param(b'{"opened": {"width": 1e999}}', id="infinite width"),
        pytest.param(b'{"opened": {"width": true}}', id="a truth as width"),
        pytest.param(b'{"opened": {"fps": NaN}}', id="rate that is not a number"),
        pytest.param(b'{"opened": {"codec": ["h264"]}}', id="codec list"),
        pytest.param(b'{"opened": {"codec": "' + b"x" * 5000 + b'"}}', id="long codec"),
        pytest.param(b'{"room": 1.5}', id="part of a byte"),
        pytest.param(b'{"room": ' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(b'{"finished": "x", "is_end": 1}', id="end that is a number"),
        pytest.param(b'{"finished": null, "is_end": true}', id="no reason"),
    ],
)
def test_anything_else_is_refused(message: bytes) -> None:
    with pytest.raises(ReaderMessageError):
        told_by_reader(message)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(repr).map(str.encode))
def test_whatever_is_sent_is_refused_or_understood(message: bytes) -> None:
    try:
        told_by_reader(message)
    except ReaderMessageError:
        return


def test_control_characters_of_a_reason_are_replaced() -> None:
    told = told_by_reader(json.dumps({"finished": "a\x1b[2Jb", "is_end": False}).encode())
    assert told == Finished("a?[2Jb", False)


@pytest.mark.parametrize("size", [0, -1, 1 << 40])
def test_room_for_frames_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ReaderMessageError, match="asked for|reported room"):
        told_by_reader(json.dumps({"room": size}).encode()).check(64_000_000)  # type: ignore[union-attr]


def pair() -> tuple[Messages, Messages]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Messages(here.detach(), waits=False), Messages(there.detach())


def test_a_message_that_is_too_long_is_refused_and_the_next_one_arrives() -> None:
    here, there = pair()
    with here, there:
        there.send_bytes(b"x" * (MAX_MESSAGE_BYTES + 1))
        there.send_bytes(b"next")
        with pytest.raises(OSError, match="more than"):
            here.recv_bytes()
        assert here.recv_bytes() == b"next"


def test_a_process_that_never_reads_makes_nobody_wait() -> None:
    here, there = pair()

    def fill() -> None:
        for _ in range(1_000_000):
            here.send_bytes(b"x" * 1000)

    with here, there, pytest.raises(BlockingIOError):
        fill()


def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    here, there = pair()
    read_fd, write_fd = os.pipe()
    with here, there:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            there.send_bytes(b"gift", write_fd)
            assert here.recv_bytes() == b"gift"
        assert len(os.listdir("/proc/self/fd")) == before
    os.close(read_fd)
    os.close(write_fd)


def test_the_end_of_the_other_side_is_an_end() -> None:
    here, there = pair()
    there.close()
    assert here.poll(0)
    with pytest.raises(EOFError):
        here.recv_bytes()
    here.close()
