"""One worker: an engine with a share of the sources. It dies with the process that started it.

Arguments: the descriptors of the connection, the lifeline, its configuration file, and the file for its report.
Messages to the engine: `{"running": "what runs"}` once, then `{"sources": {...}}` every second. A signal ends it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import EngineError
from engine.flow.pipeline import Pipeline
from engine.process import Messages, die_with
from engine.stats import NO_STATS
from pipelines import console
from pipelines.build.pipeline import build_pipeline
from pipelines.build.sinks import bound_publisher
from pipelines.config.file import validated
from pipelines.config.models import Config
from pipelines.exit_codes import EXIT_CONFIG
from pipelines.metrics.engine_health import EngineHealth
from pipelines.running.control import ControlServer
from pipelines.running.control_access import WORKER_VARIABLE
from pipelines.running.control_socket import Command
from pipelines.running.detect_and_publish import Interrupt, recordings_of, run_to_the_end, summary
from pipelines.running.plan_rebuild import PlanRebuild
from pipelines.running.reconfigure import Reconfigurer
from pipelines.workers.report import WorkerReport, encoded

if TYPE_CHECKING:
    from pipelines.metrics.engine import EngineMetrics

MAX_MESSAGE_BYTES = 60_000
LOG_LEVEL_VARIABLE = "FRAMEWIRE_WORKER_LOG"
COUNT_VARIABLE = "FRAMEWIRE_WORKER_COUNT"


def main() -> None:
    """Run a share of the sources to the end, and write the report."""
    connection_fd, lifeline_fd, config_fd, report_fd = (int(argument) for argument in sys.argv[1:5])
    die_with(lifeline_fd)
    console.set_up_streams()
    level = int(os.environ.get(LOG_LEVEL_VARIABLE, logging.WARNING))
    console.set_up_logging({logging.INFO: 1, logging.DEBUG: 2}.get(level, 0), quiet=level >= logging.ERROR)
    with Messages(connection_fd, waits=False) as connection, Interrupt() as interrupt:
        with open(config_fd, "rb") as file:
            tree = json.loads(file.read())
        try:
            report = _run(
                validated(tree, "worker", environment=False), connection, interrupt, os.environ[WORKER_VARIABLE]
            )
        except EngineError as error:
            report = WorkerReport(NO_STATS, {}, EXIT_CONFIG, str(error))
        with open(report_fd, "wb") as file:
            file.write(encoded(report))
    sys.stdout.flush()
    os._exit(report.exit_code)


def _run(config: Config, connection: Messages, interrupt: Interrupt, address: str) -> WorkerReport:
    with closing(PlanRebuild()) as plans:
        publisher = bound_publisher(config)
        pipeline = build_pipeline(config, make_detector=plans.detector, bound=publisher, shares_files=_has_others())
        changes = Reconfigurer(pipeline, config, plans.detector, interrupt.over)
        health = EngineHealth(pipeline)
        ticks = [lambda: plans.poll(pipeline, changes.config), health.beat, _news(connection, pipeline)]
        with ExitStack() as until_over:
            control = ControlServer(
                address,
                pipeline,
                changes,
                more_status=lambda: plans.status() | recordings_of(pipeline),
                more_commands=_of_this_process(pipeline, health, until_over),
            )
            until_over.callback(control.close)
            ticks.append(control.poll)
            _tell(connection, {"running": _what_runs(pipeline)})
            outcome = run_to_the_end(pipeline, interrupt, each_tick=ticks, quiet=True)
        facts = summary(pipeline, plans.status())
        return WorkerReport(
            pipeline.stats.snapshot(), facts, outcome.exit_code, str(outcome.error) if outcome.error else ""
        )


def _has_others() -> bool:
    return int(os.environ[COUNT_VARIABLE]) > 1


def _of_this_process(pipeline: Pipeline, health: EngineHealth, until_over: ExitStack) -> dict[str, Command]:
    """Return the handlers of the engine's requests for metrics and probes."""
    metrics: list[EngineMetrics] = []

    def page(request: dict[str, Any]) -> dict[str, Any]:
        if not metrics:  # somebody wants them
            from pipelines.metrics.engine import EngineMetrics

            metrics.append(EngineMetrics(pipeline))
            metrics[0].start()
            until_over.callback(metrics[0].close)
        return {"page": metrics[0].page()}

    def probes(request: dict[str, Any]) -> dict[str, Any]:
        reasons = {"against_live": health.against_live(), "against_ready": health.against_ready()}
        return {**reasons, "report": health.report()}

    return {"metrics": page, "health": probes}


def _what_runs(pipeline: Pipeline) -> dict[str, Any]:
    models = [lane.detector.name for lane in pipeline.models.values()]
    return {"sources": [source.info.source_id for source in pipeline.sources], "models": models}


def _news(connection: Messages, pipeline: Pipeline) -> Callable[[], None]:
    """Return a function that reports the statistics of the sources once a second."""
    due_ns = [SYSTEM_CLOCK.monotonic_ns() + NS_PER_S]

    def tell() -> None:
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        if now_ns < due_ns[0]:
            return
        due_ns[0] = now_ns + NS_PER_S
        rows = {s.source_id: [s.state, s.reason[:200], s.published, s.fps] for s in pipeline.stats.snapshot().sources}
        _tell(connection, {"sources": rows})

    return tell


def _tell(connection: Messages, message: dict[str, Any]) -> None:
    """Send a message if it fits and the engine is reading; statistics are sent again a second later anyway."""
    data = json.dumps(message).encode()
    if len(data) <= MAX_MESSAGE_BYTES:
        try:
            connection.send_bytes(data)
        except OSError:
            return
