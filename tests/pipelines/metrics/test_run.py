"""Metrics and health of real processes: a run with a dead camera that is stopped and continued, and a proxy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.pipelines.metrics.scenes import check_metrics, samples

pytest.importorskip("prometheus_client", reason='pip install "framewire[metrics]"')
PATIENCE_S = 60.0  # a hang would never end
CONFIG = """
sources:
  - {uri: "synthetic://?realtime=1&fps=20&width=160&height=120", source_id: gate}
  - {uri: "rtsp://127.0.0.1:1/x", source_id: dead}
detector: {model: motion}
publish: {address: "tcp://127.0.0.1:*"}
metrics: {address: "127.0.0.1:0"}
"""


def started(*words: str) -> tuple[subprocess.Popen[str], str]:
    """Start framewire, and return the process and the address of its metrics."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    return process, address_in(process.stderr)


def address_in(lines: IO[str]) -> str:
    seen = []
    for line in lines:
        seen.append(line)
        match = re.search(r"metrics at http://(\S+)/metrics", line)
        if match:
            return match[1]
    raise AssertionError("".join(seen))


def status(address: str, path: str, timeout_s: float = 20.0) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=timeout_s) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until(address: str, path: str, wanted: int) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        code, body = status(address, path)
        if code == wanted:
            return body
        time.sleep(0.1)
    raise AssertionError(f"{path} answers {code}: {body}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    config: Path = tmp_path_factory.mktemp("run") / "run.yaml"
    config.write_text(CONFIG)
    process, address = started("run", str(config), "--json")
    yield process, address
    process.kill()
    process.communicate()


def test_a_run_with_a_dead_camera_is_ready_and_its_counters_grow(run: tuple[subprocess.Popen[str], str]) -> None:
    _, address = run
    until(address, "/readyz", 200)
    assert status(address, "/livez") == (200, "ok\n")
    facts = json.loads(until(address, "/healthz", 200))
    assert facts["sources"]["dead"]["state"] == "offline"
    published = 'framewire_frames_published_total{source="gate"}'
    first = samples(status(address, "/metrics")[1])
    assert first['framewire_source_state{source="dead",state="offline"}'] == 1
    assert first["process_cpu_seconds_total"] > 0
    deadline = time.monotonic() + PATIENCE_S
    while samples(status(address, "/metrics")[1])[published] < first[published] + 5:
        assert time.monotonic() < deadline


def test_a_stopped_engine_does_not_answer_and_is_well_again_when_it_goes_on(
    run: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = run
    until(address, "/readyz", 200)
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(OSError, match="timed out"):
            status(address, "/livez", timeout_s=0.5)
    finally:
        process.send_signal(signal.SIGCONT)
    until(address, "/livez", 200)
    until(address, "/readyz", 200)


def test_promtool_accepts_the_page_of_a_run(run: tuple[subprocess.Popen[str], str]) -> None:
    _, address = run
    until(address, "/readyz", 200)
    check_metrics(status(address, "/metrics")[1])


def test_the_summary_at_the_end_has_at_least_what_was_scraped(run: tuple[subprocess.Popen[str], str]) -> None:
    process, address = run
    until(address, "/readyz", 200)
    scraped = samples(status(address, "/metrics")[1])
    process.terminate()
    out, _ = process.communicate(timeout=PATIENCE_S)
    facts = json.loads(out.splitlines()[-1])
    assert facts["sources"]["gate"]["captured"] >= scraped['framewire_frames_captured_total{source="gate"}'] > 0


@pytest.mark.parametrize(
    "words", [["record", "--out", "{}/a.fwr"], ["bridge", "{}/a.csv"], ["bridge", "ws://127.0.0.1:0"]]
)
def test_processes_that_pass_a_stream_on_are_alive_without_one(words: list[str], tmp_path: Path) -> None:
    verb, *options = (word.format(tmp_path) for word in words)
    process, address = started(verb, "tcp://127.0.0.1:1", *options, "--metrics", "127.0.0.1:0")
    try:
        until(address, "/readyz", 200)
        assert status(address, "/livez") == (200, "ok\n")
        check_metrics(status(address, "/metrics")[1])
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_a_proxy_serves_what_it_forwarded() -> None:
    words = "proxy", "tcp://127.0.0.1:1", "--publish", "tcp://127.0.0.1:*", "--metrics", "127.0.0.1:0"
    process, address = started(*words)
    try:
        until(address, "/readyz", 200)
        found = samples(status(address, "/metrics")[1])
        assert found["framewire_proxy_bytes_total"] == 0
        check_metrics(status(address, "/metrics")[1])
        assert status(address, "/livez") == (200, "ok\n")
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
