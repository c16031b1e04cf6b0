"""Messages between the engine and its child processes."""

from __future__ import annotations

import socket

import pytest

from engine.process import Messages


def test_what_a_peer_sent_last_is_read_although_it_left_messages_unread() -> None:
    """As a recorder that reports its end and exits while a second `stop` waits for it."""
    ours, theirs = (Messages(end.detach()) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    ours.send_bytes(b"stop")
    theirs.send_bytes(b"progress")
    theirs.send_bytes(b"ended")
    theirs.close()
    assert [ours.recv_bytes(), ours.recv_bytes()] == [b"progress", b"ended"]
    with pytest.raises(EOFError):
        ours.recv_bytes()
    ours.close()
