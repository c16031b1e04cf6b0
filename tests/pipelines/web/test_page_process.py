"""What the web process writes to stderr, which it shares with the engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from pipelines.logs import JSON_VARIABLE
from tests.publishing import stream

for package in ("uvicorn", "httptools"):
    pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')


def lines_of(words: list[str], *, until: str, **environment: str) -> list[str]:
    """Return the lines that a program writes to stderr, up to one that contains a text; then end it."""
    program = subprocess.Popen(
        [sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    with program:
        assert program.stderr is not None
        found = []
        for line in program.stderr:
            found.append(line)
            if until in line:
                program.send_signal(signal.SIGTERM)
        return found


def page(address: str) -> list[str]:
    return ["pipelines.web.page", json.dumps({"publish": "tcp://127.0.0.1:1", "address": address})]


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_the_address_of_the_page_is_json_if_every_line_is_to_be() -> None:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in lines_of(page("127.0.0.1:0"), until="page at", **{JSON_VARIABLE: "1"})
    ]
    assert lines[0]["level"] == "info"
    assert lines[0]["message"].startswith("page at http://127.0.0.1:")


def test_a_port_in_use_is_an_error_in_json(taken: int) -> None:
    (line,) = lines_of(page(f"127.0.0.1:{taken}"), until="never", **{JSON_VARIABLE: "1"})
    fields = json.loads(line)
    assert fields["level"] == "error"
    assert str(taken) in fields["message"]


def test_the_option_of_the_command_line_holds_for_the_page_too() -> None:
    with stream(every_s=0.05) as address:
        words = ["pipelines", "--log-json", "web", "--connect", address, "--http", "127.0.0.1:0"]
        lines = lines_of(words, until="page at")
    assert {json.loads(line)["level"] for line in lines} == {"info"}


def test_the_address_is_a_plain_line_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JSON_VARIABLE, raising=False)
    assert lines_of(page("127.0.0.1:0"), until="page at")[0].startswith("page at http://127.0.0.1:")
