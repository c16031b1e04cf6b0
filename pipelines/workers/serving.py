"""Metrics, health and the page of a run with several workers: each queries all workers and shows one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.errors import ConfigError
from pipelines import console
from pipelines.config.models import Config
from pipelines.metrics.answering import answer_with
from pipelines.metrics.health import LoopHealth
from pipelines.metrics.merging import merged_pages
from pipelines.metrics.server import MetricsServer
from pipelines.running.control_client import ask
from pipelines.running.web_process import WebProcess, web_settings
from pipelines.web.access import Listen, bind
from pipelines.workers.split import media_address, snapshot_address, stream_address

ASK_S = 2.0
Addresses = Callable[[], Sequence[str]]


class WorkersHealth:
    """Health of all workers: alive and ready if each of them is and the main loop is running.

    Args:
        addresses: control addresses of the running workers.
        count: how many should run.
    """

    def __init__(self, addresses: Addresses, count: int) -> None:
        self._addresses, self._count = addresses, count
        self._loop = LoopHealth()
        self.beat = self._loop.beat

    def against_live(self) -> list[str]:
        """Return why the run should be restarted."""
        return self._loop.against_live() + self._reasons("against_live")

    def against_ready(self) -> list[str]:
        """Return what the run is waiting for."""
        missing = self._count - len(self._addresses())
        waits = [f"{missing} of {self._count} workers are not running yet"] if missing else []
        return self._loop.against_ready() + waits + self._reasons("against_ready")

    def report(self) -> dict[str, Any]:
        """Return the state of every source and model."""
        whole: dict[str, Any] = {"workers": self._count, "models": {}, "sources": {}}
        for reply in self._replies():
            report = reply.get("report", {})
            whole["models"] |= report.get("models", {})
            whole["sources"] |= report.get("sources", {})
            whole["uptime_s"] = max(whole.get("uptime_s", 0.0), report.get("uptime_s", 0.0))
        return whole

    def _reasons(self, key: str) -> list[str]:
        return list(dict.fromkeys(reason for reply in self._replies() for reason in reply.get(key, [])))

    def _replies(self) -> Iterator[dict[str, Any]]:
        for address in self._addresses():
            try:
                yield ask(address, {"command": "health"}, ASK_S)
            except ConfigError:
                silent = [f"a worker has not answered within {ASK_S:.0f} s"]
                yield {"against_live": silent, "against_ready": silent}


@contextmanager
def served_metrics(server: MetricsServer | None, addresses: Addresses, count: int) -> Iterator[Callable[[], object]]:
    """Serve metrics for all workers while in the context; yield the function to call on each turn of the main loop."""
    if server is None:
        yield lambda: None
        return
    health = WorkersHealth(addresses, count)

    def page() -> str:
        found = []
        for address in addresses():
            try:
                found.append(str(ask(address, {"command": "metrics"}, ASK_S)["page"]))
            except ConfigError:  # the health check reports it
                continue
        return merged_pages(found)

    with server:
        answer_with(server, health, page)
        console.say(f"metrics at http://{server.address}/metrics")
        yield health.beat


@contextmanager
def served_page(config: Config, folder: str, count: int, control: str) -> Iterator[Callable[[], object]]:
    """Serve the page while in the context; yield the function to call on each turn of the main loop."""
    if config.web.address == "none":
        yield lambda: None
        return
    listen = Listen.parse(config.web.address, "web.address")
    listener = bind(listen)
    bound = Listen(listen.host, listener.getsockname()[1])
    numbers = range(count)
    inside = {
        "publish": [stream_address(folder, number) for number in numbers],
        "snapshot": [snapshot_address(folder, number) for number in numbers],
        "media": [media_address(folder, number) for number in numbers],
        "server_key": None,  # workers do not encrypt, because their sockets are files of this user
    }
    web = WebProcess(listener, web_settings(config, "", {}, control) | inside)
    try:
        console.say(f"page at {bound.url('https' if config.web.certificate else 'http')}/")
        yield web.poll
    finally:
        web.close()
