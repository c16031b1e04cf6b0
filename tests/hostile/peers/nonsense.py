"""A child process that was taken over by what it parsed: it sends what our children never send."""

from __future__ import annotations

import sys

from engine.process import Messages, die_with


def main() -> None:
    """Send nonsense until the engine hangs up."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    with Messages(connection_fd) as connection:
        while True:
            connection.send_bytes(b"[" * 50_000)
            connection.recv_bytes()
