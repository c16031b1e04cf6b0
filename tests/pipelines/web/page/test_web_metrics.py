"""Metrics and health of the web process: `run --web --set web.metrics=...`."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

pytest.importorskip("prometheus_client", reason='pip install "framewire[metrics]"')

from tests.pipelines.metrics.scenes import check_metrics, samples
from tests.pipelines.metrics.test_run import status, until
from tests.pipelines.web.page.site import Site, wait_for


@pytest.fixture(scope="module")
def measured() -> Iterator[tuple[Site, str]]:
    """A site, and the address of its web process's metrics."""
    with Site("--set", "web.metrics=127.0.0.1:0") as made:
        yield made, metrics_of(made)


def metrics_of(site: Site, after: int = 0) -> str:
    def look() -> str:
        found = re.findall(r"metrics at http://(\S+)/metrics", "".join(site.log[after:]))
        return found[-1] if found else ""

    return wait_for(look, "the address of the metrics")


def figures(address: str) -> dict[str, float]:
    return samples(status(address, "/metrics")[1])


def test_requests_and_viewers_are_counted_under_names_that_no_client_can_choose(measured: tuple[Site, str]) -> None:
    site, address = measured
    for path in ("/api/v1/sources/cam", "/api/v1/sources/yard", "/secret-path-1", "/secret-path-2"):
        site.ask("GET", path)
    site.ask("GET", "/api/v1/me", headers={"Host": "evil.example"})
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{site.port}/api/v1/live", origin="http://evil.example")  # type: ignore[arg-type]
    with connect(f"ws://127.0.0.1:{site.port}/api/v1/live", max_size=None) as viewer:
        viewer.send(json.dumps({"watch": {"cam": {"jpeg": {"fps": 10, "w": 320}}}}))
        while not isinstance(viewer.recv(timeout=20), bytes):
            pass
        found = figures(address)
        assert found['framewire_web_viewers{kind="live"}'] == 1
        wait_for(lambda: figures(address)['framewire_web_picture_bytes_total{source="cam"}'] > 1000, "bytes")
    wait_for(lambda: figures(address)['framewire_web_viewers{kind="live"}'] == 0, "the end of the viewer")
    found = figures(address)
    requests = {name: value for name, value in found.items() if name.startswith("framewire_web_requests_total")}
    assert requests['framewire_web_requests_total{route="/api/v1/sources/{source_id}",status="200"}'] == 2
    assert requests['framewire_web_requests_total{route="other",status="404"}'] == 2
    assert requests['framewire_web_requests_total{route="refused",status="421"}'] == 1
    assert requests['framewire_web_requests_total{route="/api/v1/live",status="101"}'] == 1
    assert found["framewire_web_engine_connected"] == 1
    assert not [name for name in found if "secret" in name or "evil" in name]


def test_promtool_accepts_the_page(measured: tuple[Site, str]) -> None:
    site, address = measured
    site.ask("GET", "/api/v1/sources")
    check_metrics(status(address, "/metrics")[1])


def openings(facts: dict[str, Any]) -> int:
    """Return how often a camera became live."""
    return sum(entry["state"] == "live" for entry in facts["log"])


def test_a_server_that_hangs_or_dies_is_noticed_and_the_engine_goes_on(measured: tuple[Site, str]) -> None:
    """The web process is killed (SURVEILLANCE §6): a new one answers, and the engine kept publishing throughout."""
    site, address = measured
    assert status(address, "/livez") == (200, "ok\n")
    facts = json.loads(until(address, "/healthz", 200))
    assert (facts["engine_connected"], facts["sources"]) == (True, 2)
    before, lines = site.get("sources/cam")[1], len(site.log)
    pid = site.get("system")[1]["web_pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: answers(site), "the next web process")
    until(metrics_of(site, lines), "/readyz", 200)
    wait_for(lambda: (site.get("sources/cam")[1].get("published") or 0) > before["published"], "the engine's frames")
    after = site.get("sources/cam")[1]
    assert after["dropped"] == before["dropped"], "the engine lost frames"
    assert openings(after) <= openings(before), "the camera was opened again"  # the new page has seen less of the past


def answers(site: Site) -> bool:
    try:
        return site.get("me")[0] == 200
    except (OSError, http.client.HTTPException):
        return False
