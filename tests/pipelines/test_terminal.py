"""Unread output blocks nothing, and displayed text cannot control a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from rich.console import Console
from rich.table import Table

from engine.redaction import hide
from pipelines import console
from pipelines.terminal import MAX_WAITING_CHARS, STUCK_S, SteadyStream, steady_stderr, steady_stdout

PATIENCE_S = 30.0
HOSTILE = ["[/x]", "[red]x", "gate\x1b[2J\x1b]0;owned\x07", "a\x9b31m", "\u202egnp.exe", "a\rb"]


@pytest.fixture
def unread() -> tuple[io.TextIOWrapper, int]:
    """A full pipe that nobody reads, as a stream and its reading end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    return os.fdopen(writing, "w"), reading


def _within(act: Callable[[], object]) -> bool:
    """Return whether a call ends at all."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def _wait_until_writing(steady: SteadyStream) -> None:
    while not steady._is_writing:
        threading.Event().wait(0.01)


def test_writing_to_a_full_pipe_returns_and_takes_bounded_memory(unread: tuple[io.TextIOWrapper, int]) -> None:
    stream, reading = unread
    steady = SteadyStream(stream)

    def write() -> None:
        for _ in range(100):
            steady.write("y" * 10_000)
            steady.flush()

    assert _within(write)
    assert _within(lambda: _wait_until_writing(steady))
    steady._progress_s -= STUCK_S + 1  # as if it had been unread for as long
    assert not steady.drain(PATIENCE_S)
    assert not steady.drain(0.05)
    assert steady.dropped >= 100 * 10_000 - MAX_WAITING_CHARS - 10_000
    text = b""
    while b"were not shown" not in text:
        text += os.read(reading, 65536)
    assert steady.drain(PATIENCE_S)
    os.close(reading)
    stream.close()


def test_text_arrives_in_order_without_secrets() -> None:
    hide("hunter2-hunter2")
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        steady = SteadyStream(stream)
        for number in range(1000):
            steady.write(f"{number} hunter2-hunter2\n")
        assert steady.drain(PATIENCE_S)
    with os.fdopen(reading) as file:
        assert file.read() == "".join(f"{number} ***\n" for number in range(1000))


def test_a_reader_that_is_gone_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        steady = SteadyStream(stream)
        steady.write("x\n")
        assert steady.drain(PATIENCE_S)


def test_the_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        with steady_stderr(), steady_stdout(PATIENCE_S):
            assert isinstance(sys.stderr, SteadyStream)
            print("seen")
        assert sys.stderr is stream
        assert sys.stdout is stream
    assert os.read(reading, 100) == b"seen\n"
    os.close(reading)


def test_streams_that_are_no_files_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with steady_stderr():
        assert isinstance(sys.stderr, io.StringIO)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_tables_are_shown_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    shown = Console(file=out, width=200, force_terminal=True, highlight=False)
    monkeypatch.setattr(console, "stdout", lambda: shown)
    console.show_rows(name, [{name: name}])
    assert name not in out.getvalue() or "[" in name
    assert "\x1b[2J" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_lines_and_json_hold_no_command_to_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.result(name)
    console.result_json({"name": name})
    plain, as_json = capsys.readouterr().out.splitlines()
    assert plain.isprintable()
    assert as_json.isprintable()
    assert json.loads(as_json) == {"name": name}


def test_progress_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    console.say("yard :warning: [bold]")
    console.fail("yard :warning: [bold]")
    assert capsys.readouterr().err == "yard :warning: [bold]\nerror: yard :warning: [bold]\n"


def test_a_cell_has_no_markup() -> None:
    table = Table()
    table.add_column("camera")
    table.add_row(console.cell("[bold]x[/]"))
    out = io.StringIO()
    Console(file=out).print(table)
    assert "[bold]x[/]" in out.getvalue()
