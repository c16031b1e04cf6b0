"""The main job: run a pipeline to its end or Ctrl-C, show its progress and summarise it.

To follow one frame, continue in `engine/flow/stage.py`, `engine/sources/`, `engine/detection/detector.py`,
`engine/tracking/bytetrack.py`, `engine/sinks/zmq.py`.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, StageError
from engine.flow.defaults import describe, files_of, takes_packets
from engine.flow.pipeline import Pipeline
from engine.latch import Latch
from engine.process import peak_memory_mb
from engine.protocols import OutputFile, Sink
from engine.stats import NO_FIGURES, StatsSnapshot, latency_summary, stage_summary
from pipelines.build.events import event_log_of, events_of
from pipelines.console import RunView
from pipelines.exit_codes import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from engine.sinks.camera_video.recordings import Recordings

logger = logging.getLogger(__name__)
REFRESH_S = 0.1
MAX_LOGGED_FAILURES = 20
STOP_TIMEOUT_S = 0.7
SAME_SIGNAL_S = 0.25  # `timeout` and shells signal a process and then its group: that is one request, not two
FILES_TIMEOUT_S = 10.0  # additional time for a busy encoder; a second signal ends the process immediately
TERM_VARIABLE = "FRAMEWIRE_SIGTERM_EXIT"
_HANG_UP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # the terminal or the ssh session has ended


class Interrupt:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag and a call; a later second signal ends the process at once.

    An ignored SIGHUP stays ignored, as `nohup` requires.

    Args:
        on_request: called from the signal handler; must be quick and take no lock.

    Attributes:
        over: set when a signal has arrived.
        exit_code: exit code of the process after the signal: 130 after SIGINT, 0 after SIGTERM and SIGHUP.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self.over = Latch()
        self.exit_code = EXIT_INTERRUPTED
        self._on_request = on_request
        self._before: dict[int, Any] = {}
        self._requested_s = 0.0

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *_HANG_UP):
                if number in _HANG_UP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.over.is_set()

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._requested_s < SAME_SIGNAL_S:
                return
            os._exit(self.exit_code)
        self._requested_s = time.monotonic()
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else exit_code_of_term()
        self.over.set()
        self._on_request()


def exit_code_of_term() -> int:
    """Return the exit code after SIGTERM: 0, as service managers expect, or the value of `FRAMEWIRE_SIGTERM_EXIT`."""
    text = os.environ.get(TERM_VARIABLE, "")
    return int(text) if text.isdigit() and int(text) < 256 else EXIT_DONE


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        exit_code: exit code of the command line.
        error: the failure that stopped it, if any.
        clean: whether every thread has ended; if not, end the process with `os._exit`.
    """

    exit_code: int
    error: EngineError | None
    clean: bool


def run_to_the_end(
    pipeline: Pipeline, interrupt: Interrupt, *, each_tick: Sequence[Callable[[], object]] = (), quiet: bool = False
) -> Outcome:
    """Run `pipeline` until its sources end, a stage fails, a window is closed, or a signal arrives.

    Args:
        pipeline: not yet started.
        interrupt: reports signals.
        each_tick: called on this thread about ten times a second (control socket, watched file); a failing one is
            logged, once per message, and does not end the run.
        quiet: show no progress.
    """
    error: EngineError | None = None
    tick = _Tick(each_tick)
    with RunView(pipeline, quiet=quiet) as view:
        pipeline.start()
        try:
            while not interrupt.requested and not pipeline.wait(REFRESH_S):
                view.refresh()
                tick()
        except StageError as failure:
            error = failure
        finally:
            clean = pipeline.stop(STOP_TIMEOUT_S) or _finish_files(pipeline)
    if error is not None:
        return Outcome(EXIT_FAILED, error, clean)
    return Outcome(interrupt.exit_code if interrupt.requested else EXIT_DONE, None, clean)


def _finish_files(pipeline: Pipeline) -> bool:
    """Give unfinished files and the event log more time, and return whether the pipeline has ended by then."""
    deadline = time.monotonic() + FILES_TIMEOUT_S
    log = event_log_of(pipeline)
    with suppress(StageError):  # the failure is already reported, or the file is listed as incomplete
        while time.monotonic() < deadline and not (
            all(file.complete for file in _outputs(pipeline)) and (log is None or log.is_closed)
        ):
            pipeline.wait(REFRESH_S)
        return pipeline.stop(REFRESH_S)
    return False


class _Tick:
    """Calls a run's side tasks so that their failures do not end the run."""

    def __init__(self, acts: Sequence[Callable[[], object]]) -> None:
        self._acts = acts
        self._logged: set[str] = set()

    def __call__(self) -> None:
        for act in self._acts:
            try:
                act()
            except Exception as error:  # noqa: BLE001  # input from outside reaches these calls, and the frames must go on
                self._log(f"{type(error).__name__}: {error}")

    def _log(self, message: str) -> None:
        if message not in self._logged and len(self._logged) < MAX_LOGGED_FAILURES:
            self._logged.add(message)
            logger.exception("a side task failed; the run continues")


def summary(pipeline: Pipeline, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the machine-readable summary of a run: `facts` and the measured figures."""
    stats = pipeline.stats.snapshot()
    mine, readers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    sink_dropped = {name: dict(causes) for name, causes in stats.sink_dropped.items() if sum(causes.values())}
    return {
        "sources": with_looks(stats.by_source(), pipeline),
        "fps": stats.fps,
        "latency_ms": latency_summary(stats.latency),
        "stage_ms": stage_summary(stats.stages),
        **model_facts(pipeline, stats),
        "wall_s": round(pipeline.wall_s, 3),
        "cpu_s": round(mine.ru_utime + mine.ru_stime + readers.ru_utime + readers.ru_stime, 3),
        "max_rss_mb": round(peak_memory_mb(), 1),
        "interrupted": pipeline.stopped,
        "sink_dropped": sink_dropped,
        **recordings_of(pipeline),
        **outputs_of(pipeline),
        **push_of(pipeline),
        **analytics_of(pipeline),
        **privacy_of(pipeline),
        **events_of(pipeline),
        **(facts or {}),
    }


def with_looks(sources: dict[str, dict[str, object]], pipeline: Pipeline) -> dict[str, dict[str, object]]:
    """Return the figures of the sources, with those of the windows of each source that has any."""
    looks = pipeline.looks()
    return {name: {**figures, "looks": looks[name]} if name in looks else figures for name, figures in sources.items()}


def model_facts(pipeline: Pipeline, stats: StatsSnapshot) -> dict[str, Any]:
    """Return the models of a run: `models` by name, and `backend`, `device` and `model` of all, joined by commas."""
    lanes = [*pipeline.former_models, *pipeline.models.values()]
    descriptions = [describe(lane.detector) for lane in lanes]
    models = {}
    for lane, facts in zip(lanes, descriptions, strict=True):
        figures = stats.models.get(lane.model_id, NO_FIGURES)
        models[lane.model_id] = {
            "model": lane.run.model,
            "backend": facts.backend,
            "detected": figures.detected,
            "stage_ms": stage_summary(figures.stages),
        }
    return {
        "backend": ", ".join(dict.fromkeys(facts.backend for facts in descriptions)),
        "device": ", ".join(dict.fromkeys(facts.device for facts in descriptions)),
        "model": ", ".join(dict.fromkeys(lane.run.model for lane in lanes)),
        "models": models,
    }


def recordings_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"recordings": {source_id: figures}}` of a pipeline's recordings, or an empty dict if there are none."""
    found: dict[str, Any] = {}
    for recordings in recordings_among(pipeline.sinks):
        found.update(recordings.summary())
    return {"recordings": found} if found else {}


def recording_folders(pipeline: Pipeline) -> dict[str, str]:
    """Return the folder of each recorded source of a pipeline."""
    return {
        source.info.source_id: plan.files.folder
        for recordings in recordings_among(pipeline.sinks)
        for source in pipeline.sources
        if (plan := recordings.plan(source.info.source_id)) is not None
    }


def recordings_among(sinks: Iterable[Sink]) -> list[Recordings]:
    """Return the sinks that record cameras; without one, what they need is not imported."""
    without_packets = [sink for sink in sinks if not takes_packets(sink)]
    if not without_packets:
        return []
    from engine.sinks.camera_video.recordings import Recordings

    return [sink for sink in without_packets if isinstance(sink, Recordings)]


def outputs_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"outputs": [{path, frames, complete}, ...]}` of written files, or an empty dict if there are none."""
    found = [asdict(file) for file in _outputs(pipeline)]
    return {"outputs": found} if found else {}


def push_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"push": {source_id: figures}}` of pushed video, or an empty dict if there is none."""
    if not any(sink.name == "push" for sink in pipeline.sinks):
        return {}  # without importing an encoder
    from engine.sinks.video_push.push import summary_of

    return dict(summary_of(pipeline.sinks))


def analytics_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"analytics": {source_id: totals}}` of zones, lines and rules, or an empty dict if there are none."""
    if not pipeline.all_analysers:
        return {}
    from pipelines.build.scene import scene_of

    scene = scene_of(pipeline)
    return {"analytics": scene.summary()} if scene is not None else {}


def privacy_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return `{"privacy": {source_id: figures}}` of hidden and withheld frames, or an empty dict if there are none."""
    found = {} if pipeline.privacy is None else pipeline.privacy.summary()
    return {"privacy": found} if found else {}


def _outputs(pipeline: Pipeline) -> list[OutputFile]:
    return [file for sink in pipeline.sinks for file in files_of(sink)]
