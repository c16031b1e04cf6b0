"""Fixtures of the example tests."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def free_address() -> str:
    """A ZeroMQ address on loopback whose port was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"
