"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts background jobs (`&`); children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of models, clips and ground truth that are not part of the project (see README, "Tests")."""
    folder = Path(os.environ.get("FRAMEWIRE_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set FRAMEWIRE_DATA to the folder with models/, videos/, images/, mot/")
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
