"""Runs the workers of an engine: starts them, shows them as one, and stops them together."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import msgspec

from engine.clock import pause
from engine.errors import ConfigError, SinkError, StageError
from engine.paths import how_to_write
from engine.process import Child
from engine.stats import NO_STATS
from pipelines import console
from pipelines.build.edits import EditsFile
from pipelines.build.sources import named_sources
from pipelines.config.models import Config
from pipelines.exit_codes import EXIT_CONFIG, EXIT_DONE, EXIT_FAILED
from pipelines.metrics.answering import METRICS_VARIABLE, bound_server
from pipelines.metrics.server import MetricsServer
from pipelines.running.control_access import AUTO, WORKER_VARIABLE, runtime_folder
from pipelines.running.detect_and_publish import Interrupt
from pipelines.stream.proxy import Proxy
from pipelines.workers.assignments import WorkersAssignments
from pipelines.workers.control import WorkersControl
from pipelines.workers.report import WorkerReport, decoded, merged_summary
from pipelines.workers.serving import served_metrics, served_page
from pipelines.workers.split import (
    check_workers,
    control_address,
    engine_name,
    stream_address,
    worker_configs,
)
from pipelines.workers.worker_process import COUNT_VARIABLE, LOG_LEVEL_VARIABLE

logger = logging.getLogger(__name__)
MODULE = "pipelines.workers.worker_process"
TURN_S = 0.1
SHOW_EVERY_S = 5.0
SETTLE_S, SETTLE_MOST_S = 0.25, 3.0
MAX_PARENT_BYTES = 75
"""The system limits the path of a socket to 107 bytes, of which a worker's own name takes 28."""
STOP_S = 30.0
"""How long workers may finish their files before they are killed."""


@dataclass
class Worker:
    """One worker process.

    Attributes:
        number: from 0.
        child: the process.
        report_fd: of the file for its report.
        running: what it runs, once it is running.
        rows: the latest statistics of its sources.
        report: what it has done, once it has ended.
    """

    number: int
    child: Child
    report_fd: int
    running: dict[str, Any] | None = None
    rows: dict[str, list[Any]] = field(default_factory=dict)
    report: WorkerReport | None = None

    def poll(self) -> None:
        """Read the worker's messages and, at its end, its report."""
        try:
            while self.child.connection.poll(0.0):
                message = json.loads(self.child.connection.recv_bytes())
                self.running = message.get("running", self.running)
                self.rows = message.get("sources", self.rows)
        except (EOFError, OSError, ValueError):
            self._end(STOP_S)

    def stop(self) -> None:
        """Ask it to end."""
        with suppress(OSError):
            os.kill(self.child.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        if self.report is None:
            self._end(0.0)

    def _end(self, grace_s: float) -> None:
        code = self.child.end(grace_s)
        with open(self.report_fd, "rb") as file:
            file.seek(0)
            data = file.read()
        try:
            self.report = decoded(data)
        except msgspec.DecodeError:
            how = f"ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
            self.report = WorkerReport(NO_STATS, {}, EXIT_FAILED, f"worker {self.number + 1} {how} without a report")


def run_workers(config: Config, interrupt: Interrupt, edits: EditsFile | None = None) -> tuple[dict[str, Any], int]:
    """Run a configuration with several workers to its end; return the summary and the exit code.

    If a worker fails, all stop, as a run with one process would.

    Args:
        config: of the run.
        interrupt: reports signals.
        edits: stores edits made on the page; None: they end with the run.

    Raises:
        ConfigError: the run uses something that only one worker can do, or a worker rejects its configuration.
        SinkError: an address is in use.
    """
    check_workers(config)
    began = time.monotonic()
    with _private_folder() as folder, ExitStack() as until_over:
        server = bound_server(config.metrics.address, at_will=os.environ.get(METRICS_VARIABLE))
        if server is not None:
            until_over.callback(server.close)
        configs = worker_configs(config, folder)
        if config.output.jsonl is not None and len(configs) > 1:
            _empty(config.output.jsonl)
        with _proxied(config, folder, len(configs)) as address:
            workers = [_start(number, len(configs), each, folder) for number, each in enumerate(configs)]
            try:
                _supervise(config, folder, workers, interrupt, address, server, edits)
            finally:
                for worker in workers:
                    worker.kill()
    reports = [worker.report for worker in workers if worker.report is not None]
    refused = [report.error for report in reports if report.exit_code == EXIT_CONFIG]
    if refused:
        raise ConfigError("; ".join(dict.fromkeys(refused)))
    mine = resource.getrusage(resource.RUSAGE_SELF)
    order = [name for name, _ in named_sources(config)]
    summary = merged_summary(reports, order, time.monotonic() - began, mine.ru_utime + mine.ru_stime)
    failed = any(report.exit_code == EXIT_FAILED for report in reports)
    return summary, EXIT_FAILED if failed else interrupt.exit_code if interrupt.requested else EXIT_DONE


def _supervise(
    config: Config,
    folder: str,
    workers: Sequence[Worker],
    interrupt: Interrupt,
    address: str,
    server: MetricsServer | None,
    edits: EditsFile | None,
) -> None:
    """Wait until all workers have ended; stop all when one fails or the user asks for it."""
    stopping = threading.Event()

    def running() -> list[str]:
        return [control_address(folder, each.number) for each in workers if each.report is None and each.running]

    with (
        _controlled(config, running, len(workers), stopping.set, edits) as (control, poll_control),
        served_metrics(server, running, len(workers)) as beat,
        served_page(config, folder, len(workers), control) as poll_page,
    ):
        is_told, asked_at, show_at = False, 0.0, time.monotonic() + SHOW_EVERY_S
        while any(worker.report is None for worker in workers):
            _wait(workers)
            poll_control()
            beat()
            poll_page()
            for worker in workers:
                if worker.report is None:
                    worker.poll()
            if not is_told and all(worker.running for worker in workers):
                is_told = True
                console.say(_opening_line(workers, address))
            if time.monotonic() >= show_at:
                show_at = time.monotonic() + SHOW_EVERY_S
                _show(workers)
            failed = any(worker.report is not None and worker.report.exit_code for worker in workers)
            if not asked_at and (interrupt.requested or stopping.is_set() or failed):
                asked_at = time.monotonic()
                for worker in workers:
                    if worker.report is None:
                        worker.stop()
            if asked_at and time.monotonic() - asked_at > STOP_S:
                raise StageError("workers", TimeoutError(f"did not end within {STOP_S:.0f} s"))


def _wait(workers: Sequence[Worker]) -> None:
    """Wait for news of a worker, or a tenth of a second."""
    wait([worker.child.connection.fileno() for worker in workers if worker.report is None], TURN_S)


def _start(number: int, count: int, config: Config, folder: str) -> Worker:
    config_fd = os.memfd_create(f"worker-{number}-config")
    report_fd = os.memfd_create(f"worker-{number}-report")
    os.write(config_fd, config.model_dump_json(exclude_unset=True).encode())
    os.lseek(config_fd, 0, os.SEEK_SET)
    os.environ[COUNT_VARIABLE] = str(count)
    os.environ[WORKER_VARIABLE] = control_address(folder, number)
    os.environ[LOG_LEVEL_VARIABLE] = str(logging.getLogger().getEffectiveLevel())
    try:
        return Worker(number, Child(MODULE, config_fd, report_fd, name=f"worker {number + 1}"), report_fd)
    finally:
        os.close(config_fd)


def _empty(path: str) -> None:
    """Create a file to which all workers append lines. Raises `SinkError` if it cannot be written."""
    try:
        Path(path).write_bytes(b"")
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}: {how_to_write(error)}") from error


@contextmanager
def _private_folder() -> Iterator[str]:
    """Yield a folder that only this user can enter, for the sockets of the workers."""
    parent: Path | None = runtime_folder()
    if len(os.fsencode(str(parent))) > MAX_PARENT_BYTES:
        parent = None  # the system's temporary folder; this one has mode 0700 as well
    folder = tempfile.mkdtemp(prefix="workers-", dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _proxied(config: Config, folder: str, count: int) -> Iterator[str]:
    """Serve the streams of all workers at the configured address while in the context; yield that address."""
    if config.publish.bound == "none":
        yield "none"
        return
    from engine.transport.keys import load_key_pair, load_public_keys

    publish = config.publish
    middle = Proxy(
        [stream_address(folder, number) for number in range(count)],
        publish.bound,
        name=f"{config.pipeline.engine_id or 'engine'}.proxy",
        keys=load_key_pair(publish.keys) if publish.keys else None,
        allowed_keys=load_public_keys(publish.allowed_keys) if publish.allowed_keys is not None else None,
    )
    middle.open()
    thread = threading.Thread(target=middle.run, name="proxy", daemon=True)
    thread.start()
    try:
        yield middle.address
    finally:
        _settle(middle)
        middle.stop()
        thread.join(STOP_S)
        middle.close()


def _settle(middle: Proxy) -> None:
    """Let the workers' last messages, which linger when they end, pass through the proxy."""
    until, passed = time.monotonic() + SETTLE_MOST_S, -1
    while time.monotonic() < until and passed != (now := middle.summary.messages.total()):
        passed = now
        pause(SETTLE_S)


@contextmanager
def _controlled(
    config: Config,
    running: Callable[[], Sequence[str]],
    count: int,
    stop: Callable[[], None],
    edits: EditsFile | None,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Answer `framewire ctl` while in the context; yield the address, and the function to call regularly."""
    if config.control.address == config.web.address == "none":
        yield "none", lambda: None
        return
    from engine.transport.keys import load_key_pair, load_public_keys

    control, allowed = config.control, config.control.allowed_keys
    takes_part = bool(config.publish.connect) and not config.sources
    server = WorkersControl(
        AUTO if control.address == "none" else control.address,
        running,
        stop,
        keys=load_key_pair(control.keys) if control.keys else None,
        allowed_keys=load_public_keys(allowed) if allowed is not None else None,
        edits=edits,
        assignments=WorkersAssignments(engine_name(config), running, count) if takes_part else None,
    )
    try:
        yield server.address, server.poll
    finally:
        server.close()


def _opening_line(workers: Sequence[Worker], address: str) -> str:
    parts = []
    for worker in workers:
        running = worker.running or {}
        names, models = (", ".join(running.get(key, [])) for key in ("sources", "models"))
        parts.append(f"worker {worker.number + 1}: {names} with {models}")
    where = f"publishing at {address}" if address != "none" else "not publishing"
    return f"{'; '.join(parts)}; {where}"


def _show(workers: Sequence[Worker]) -> None:
    for worker in workers:
        for name, (state, reason, published, fps) in worker.rows.items():
            console.say(f"{name}: {state}{f' ({reason})' if reason else ''}, {published} frames, {fps:.1f} fps")
