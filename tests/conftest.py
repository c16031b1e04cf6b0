"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from engine import redaction
from tests.preforked import Preforked
from tests.turns import Turns

CHECKOUT = Path(__file__).resolve().parents[1]
TURNS = pytest.StashKey[Turns]()
RAN_AGAIN = "failed beside others"
LONGEST = (
    "tests/hostile/test_media.py",
    "tests/hostile/test_attack.py",
    "tests/faults/test_faults.py",
    "tests/rtsp/test_clips.py",
    "tests/hostile",
    "tests/faults",
    "tests/rtsp",
    "tests/learning",
    "tests/operations",
    "tests/clients",
    "tests/tools",
    "examples",
    "tests/events",
    "tests/pipelines",
    "tests/freshness",
)
"""Files and folders that take longest, in the order in which they start."""

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


@pytest.fixture(scope="session")
def preforked() -> Iterator[Preforked]:
    """The command line, for verbs that print and exit: much faster than a process that imports it each time."""
    with Preforked(COLUMNS="200", DISPLAY="", WAYLAND_DISPLAY="") as command:
        yield command


@pytest.fixture(autouse=True)
def secrets_of_the_test() -> Iterator[None]:
    """Forget the secrets that a test registers: they would be hidden in the output of the next one."""
    before = redaction._values
    redaction._values = before.copy()
    yield
    redaction._values = before


def pytest_configure(config: pytest.Config) -> None:
    """Take part in the turns of a run with several workers (`pytest -n 3`).

    A pytest that a test starts does not, although it inherits the environment of the worker: it would wait behind a
    test that waits for its parent.
    """
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[TURNS] = turns = Turns(Path(tempfile.gettempdir()) / f"framewire-tests-{worker['testrunuid']}")
        config.add_cleanup(turns.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that all workers end at about the same time."""
    places = {name: place for place, name in enumerate(LONGEST)}

    @cache
    def place(file: str) -> int:
        return min(
            (places[name] for name in (file, *map(str, Path(file).parents)) if name in places), default=len(places)
        )

    items.sort(key=lambda item: place(item.nodeid.partition("::")[0]))
    for item in items:
        if item.get_closest_marker("alone"):
            limit = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout(3 * (limit.args[0] if limit else 120)), append=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the timeout: a test that waits has not begun
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test beside those of the other workers."""
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    turns.beside_others()
    try:
        return (yield)
    finally:
        turns.end()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run a test marked `alone` that fails beside others once more while no other test runs."""
    turns = pyfuncitem.config.stash.get(TURNS, None)
    try:
        return (yield)
    except Exception as error:
        if turns is None or not pyfuncitem.get_closest_marker("alone"):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    turns.alone()
    pyfuncitem.user_properties.append((RAN_AGAIN, reason[:200]))
    pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that ran once more."""
    for report in terminalreporter.getreports("passed"):
        for name, reason in report.user_properties:
            if name == RAN_AGAIN:
                terminalreporter.write_line(f"ALONE {report.nodeid} failed beside others: {reason}")
