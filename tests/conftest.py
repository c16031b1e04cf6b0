"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from engine import redaction

CHECKOUT = Path(__file__).resolve().parents[1]

settings.register_profile("framewire", deadline=None)  # a busy machine takes its time
settings.load_profile("framewire")

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


@pytest.fixture(autouse=True)
def secrets_of_the_test() -> Iterator[None]:
    """Forget the secrets that a test registers: they would be hidden in the output of the next one."""
    before = redaction._values
    redaction._values = before.copy()
    yield
    redaction._values = before


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the timeout: a test that waits has not begun
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With several workers (`pytest -n 3`), run a test marked `alone` while no other test runs.

    Every test holds a shared lock, one marked `alone` an exclusive one. All pass through a turnstile first, where the
    latter waits, so that tests which start later cannot keep it waiting. A pytest that a test starts takes no lock,
    although it inherits the environment of the worker: it would wait behind a test that waits for its parent.
    """
    worker: dict[str, str] | None = getattr(item.config, "workerinput", None)
    if worker is None:
        return (yield)
    folder = Path(tempfile.gettempdir()) / f"framewire-tests-{worker['testrunuid']}"
    folder.mkdir(exist_ok=True)
    kind = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with (folder / "running.lock").open("w") as running:
        with (folder / "turnstile.lock").open("w") as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(running, kind)
        return (yield)
