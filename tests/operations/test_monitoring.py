"""The dashboard and the alerts: they query metrics that exist, and a real Prometheus gives the expected results."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipelines.metrics.scenes import written_names
from tests.pipelines.metrics.test_run import CONFIG, PATIENCE_S, started, until
from tests.rtsp_server import RtspServer, missing_server

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "grafana" / "framewire.json"
ALERTS = ROOT / "docs" / "grafana" / "alerts.yaml"
CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)


def dashboard_queries() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [each["expr"] for each in board["annotations"]["list"]]
    return queries + [each["query"] for each in board["templating"]["list"] if each["type"] == "query"]


def alert_queries() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_the_dashboard_is_what_its_script_writes() -> None:
    subprocess.run([sys.executable, "tools/make/make_dashboard.py", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("queries", [dashboard_queries, alert_queries])
def test_every_metric_in_a_query_exists(queries: Callable[[], list[str]]) -> None:
    known = written_names() | CLIENT
    asked = {name for query in queries() for name in re.findall(r"\b(?:framewire|process)_\w+", query)}
    assert len(asked) >= 8
    assert {name for name in asked if re.sub("_(bucket|sum|count)$", "", name) not in known | {name} & known} == set()


def test_every_metric_of_the_engine_is_on_the_dashboard_or_known_to_be_left_out() -> None:
    text = " ".join(dashboard_queries())
    left_out = {"framewire_model_loaded", "framewire_line_dithers_total", "framewire_places_mismatch"}
    left_out |= {"framewire_events_stored_total", "framewire_recording_restarts_total"}
    left_out |= {"framewire_gpu_memory_used_bytes"}
    of_others = ("framewire_proxy", "framewire_bridge", "framewire_record_", "framewire_serve_", "framewire_web_")
    missing = {name for name in written_names() if name not in text and not name.startswith(of_others)}
    assert missing <= left_out


@needs_promtool
def test_the_alert_rules_are_valid_and_fire_when_they_must() -> None:
    for words in (["check", "rules", str(ALERTS)], ["test", "rules", "tests/operations/alerts_test.yaml"]):
        done = subprocess.run(["promtool", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A running server, queried over HTTP; with `at_once`, alerts wait a second before they fire."""

    def __init__(self, folder: Path, target: str, *, at_once: bool = True) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        rules = ALERTS.read_text()
        (folder / "alerts.yaml").write_text(re.sub(r"for: \d+m", "for: 1s", rules) if at_once else rules)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [{"job_name": "framewire", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        words = [f"--web.listen-address={self.address}", f"--storage.tsdb.path={folder / 'data'}"]
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:
                    return {}  # it is starting
                raise AssertionError(error.read().decode()) from error
        except urllib.error.URLError:
            return {}

    def firing(self) -> set[tuple[str, str]]:
        alerts = self.get("alerts").get("alerts", ())
        return {
            (alert["labels"]["alertname"], alert["labels"].get("source", ""))
            for alert in alerts
            if alert["state"] == "firing"
        }

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.get("alerts")
            time.sleep(0.3)


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Prometheus]]:
    pytest.importorskip("prometheus_client", reason='pip install "framewire[metrics]"')
    (tmp_path / "run.yaml").write_text(CONFIG)
    engine, address = started("run", str(tmp_path / "run.yaml"), "--json")
    until(address, "/readyz", 200)
    prometheus = Prometheus(tmp_path, address)
    yield engine, prometheus
    for process in (engine, prometheus.process):
        process.kill()
        process.communicate()


@needs_prometheus
def test_a_real_prometheus_scrapes_a_run_with_a_dead_camera_and_a_stopped_engine(
    scraped: tuple[subprocess.Popen[str], Prometheus],
) -> None:
    engine, prometheus = scraped
    rate = "rate(framewire_frames_published_total[10s])"
    prometheus.wait_for(lambda: bool(prometheus.get("query", query=f"{rate} > 0").get("result")))
    prometheus.wait_for(lambda: ("FramewireSourceBlind", "dead") in prometheus.firing())
    assert prometheus.firing() == {("FramewireSourceBlind", "dead")}
    for query in dashboard_queries():
        if not query.startswith("label_values"):
            filled = query.replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$source", ".*")
            assert prometheus.get("query", query=filled)["resultType"] == "vector", query
    engine.send_signal(signal.SIGSTOP)
    prometheus.wait_for(lambda: ("FramewireDown", "") in prometheus.firing())
    engine.send_signal(signal.SIGCONT)
    prometheus.wait_for(lambda: ("FramewireDown", "") not in prometheus.firing())


FAULTY = """
sources:
  - uri: "synthetic://?realtime=1&fps=20&width=160&height=120&objects=4"
    source_id: gate
    lines: {middle: {points: [[0.5, 0.0], [0.5, 1.0]]}}
  - {uri: "%(camera)s", source_id: yard, record: {folder: "%(folder)s/rec"}}
  - {uri: "rtsp://127.0.0.1:1/x", source_id: dead, record: {folder: "%(folder)s/rec"}}
detector: {model: motion}
publish: {address: "tcp://127.0.0.1:*"}
metrics: {address: "127.0.0.1:0"}
events: {folder: "%(folder)s/events", keep: {min_free_gb: 0}}
rules: [{name: passing, kind: line, line: middle, actions: [broken]}]
actions: {broken: {kind: command, command: ["false"], cooldown_s: 0, per_hour: 10000, expire_s: 2}}
"""
MUST_FIRE = {
    ("FramewireSourceBlind", "dead"),
    ("FramewireRecordingStopped", "dead"),
    ("FramewireActionFailing", ""),
    ("FramewireDown", ""),
}
MINUTES = 5


@needs_prometheus
@pytest.mark.soak
@pytest.mark.rtsp
@pytest.mark.timeout(MINUTES * 60 + 180)
def test_the_alerts_as_they_are_fire_within_five_minutes_of_faults_and_no_others_do(tmp_path: Path) -> None:
    """A camera is dead, an action fails; 90 s before the end, the engine hangs for as long as `FramewireDown` waits."""
    if missing_server():
        pytest.skip(missing_server())
    seen: dict[tuple[str, str], float] = {}
    with ExitStack() as stack:
        camera = stack.enter_context(closing(RtspServer(size="160x120", fps=10)))
        (tmp_path / "run.yaml").write_text(FAULTY % {"camera": camera.url, "folder": tmp_path})
        engine, address = started("run", str(tmp_path / "run.yaml"), "--json")
        stack.callback(engine.communicate)
        stack.callback(engine.kill)
        prometheus = Prometheus(tmp_path, address, at_once=False)
        stack.callback(prometheus.process.communicate)
        stack.callback(prometheus.process.kill)
        began = time.monotonic()
        while (passed := time.monotonic() - began) < MINUTES * 60:
            for alert in prometheus.firing():
                seen.setdefault(alert, round(passed, 1))
            if passed > MINUTES * 60 - 90 and ("FramewireDown", "") not in seen:
                engine.send_signal(signal.SIGSTOP)
            time.sleep(1)
        engine.send_signal(signal.SIGCONT)
        prometheus.wait_for(lambda: ("FramewireDown", "") not in prometheus.firing())
    assert set(seen) == MUST_FIRE, seen
    print(seen)
