"""One worker: an engine with a share of the sources. It dies with the process that started it.

Arguments: the descriptors of connection and lifeline, of the file of its configuration, and of that for its report.
Messages to the engine: `{"running": "what runs"}` once, then `{"sources": {...}}` every second. A signal ends it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

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
from pipelines.running.control import ControlServer
from pipelines.running.detect_and_publish import EXIT_CONFIG, Interrupt, recordings_of, run_to_the_end, summary
from pipelines.running.plan_rebuild import PlanRebuild
from pipelines.running.reconfigure import Reconfigurer
from pipelines.workers.report import WorkerReport, encoded

MAX_MESSAGE_BYTES = 60_000
LOG_LEVEL_VARIABLE = "FRAMEWIRE_WORKER_LOG"


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
            report = _run(validated(tree, "worker", environment=False), connection, interrupt)
        except EngineError as error:
            report = WorkerReport(NO_STATS, {}, EXIT_CONFIG, str(error))
        with open(report_fd, "wb") as file:
            file.write(encoded(report))
    sys.stdout.flush()
    os._exit(report.exit_code)


def _run(config: Config, connection: Messages, interrupt: Interrupt) -> WorkerReport:
    with closing(PlanRebuild()) as plans:
        publisher = bound_publisher(config)
        pipeline = build_pipeline(config, make_detector=plans.detector, bound=publisher)
        changes = Reconfigurer(pipeline, config, plans.detector, interrupt.over)
        ticks = [lambda: plans.poll(pipeline, changes.config), _news(connection, pipeline)]
        with ExitStack() as until_over:
            if config.control.address != "none":
                status = lambda: plans.status() | recordings_of(pipeline)  # noqa: E731
                control = ControlServer(config.control.address, pipeline, changes, more_status=status)
                until_over.callback(control.close)
                ticks.append(control.poll)
            _tell(connection, {"running": _what_runs(pipeline)})
            outcome = run_to_the_end(pipeline, interrupt, each_tick=ticks, quiet=True)
        facts = summary(pipeline, plans.status())
        return WorkerReport(
            pipeline.stats.snapshot(), facts, outcome.exit_code, str(outcome.error) if outcome.error else ""
        )


def _what_runs(pipeline: Pipeline) -> dict[str, Any]:
    models = [lane.detector.name for lane in pipeline.models.values()]
    return {"sources": [source.info.source_id for source in pipeline.sources], "models": models}


def _news(connection: Messages, pipeline: Pipeline) -> Callable[[], None]:
    """Return a function that tells the figures of the sources once a second."""
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
    """Send a message if it fits and the engine reads: figures are told again a second later."""
    data = json.dumps(message).encode()
    if len(data) <= MAX_MESSAGE_BYTES:
        try:
            connection.send_bytes(data)
        except OSError:
            return
