"""Code that `run` and `demo` share: carries out a configured run and returns its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.data import DEFAULT_MODEL
from engine.errors import ConfigError
from engine.flow.defaults import describe
from pipelines import console
from pipelines.build.events import events_of
from pipelines.running.detect_and_publish import Interrupt, Outcome, recordings_of, run_to_the_end, summary
from pipelines.terminal import drain, steady_stdout

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline
    from engine.latch import Latch
    from engine.sinks.zmq import ZmqPublisher
    from pipelines.build.edits import EditsFile
    from pipelines.config.models import Config
    from pipelines.metrics.server import MetricsServer
    from pipelines.running.control import ControlServer
    from pipelines.running.plan_rebuild import PlanRebuild
    from pipelines.running.reconfigure import Reconfigurer
    from pipelines.running.web_process import WebProcess

SUMMARY_S = 60.0
SUMMARY_INTERRUPTED_S = 0.5


Places = Mapping[str, Sequence[tuple[str, Sequence[tuple[float, float]]]]]
Origin = tuple[str | None, dict[str, Any], list[str], Places]

DEMO = "demo"
DEMO_WORTH = (
    "the model is the embedded one (NanoDet-g, 416 px), which is for trying things out and misses small and distant "
    'objects; "framewire models get deimv2-femto" downloads a better one for --model deimv2-femto'
)


def start_run(
    config_path: str | None,
    overrides: dict[str, Any],
    settings: list[str],
    as_json: bool,
    places: Places | None = None,
    *,
    hint: str | None = None,
) -> NoReturn:
    """Run a configuration to its end, print the summary and a hint, and exit with its code."""
    with Interrupt() as interrupt:
        origin = config_path, overrides, settings, places or {}
        config, edits = _configured(origin)
        _check(config, config_path)
        if config.pipeline.workers > 1:
            _run_workers(config, interrupt, edits, as_json=as_json)
        from pipelines.running.plan_rebuild import PlanRebuild

        with closing(PlanRebuild()) as plans:
            publisher, server, pipeline = _built(config, plans)
            bound = publisher.address if publisher is not None else "none"
            console.say(opening_line(bound, pipeline, config.publish.connect))
            if hint is None and uses_demo_unasked(config, config_path):
                console.say(DEMO_WORTH)
            outcome = _run(pipeline, config, origin, plans, server, interrupt, edits)
        _leave_scene(pipeline, config)
        error = {"error": str(outcome.error)} if outcome.error else {}
        _show_result(summary(pipeline, plans.status() | error), config, interrupt, as_json=as_json)
        if outcome.error is not None:
            console.fail(str(outcome.error))
        elif hint is not None:
            console.say(hint)
        drain()
        if not outcome.clean:
            os._exit(outcome.exit_code)
    sys.exit(outcome.exit_code)


def uses_demo_unasked(config: Config, config_path: str | None) -> bool:
    """Return whether a source runs the embedded model although neither an option nor the user's own file names it."""
    is_preset = config_path is not None and not Path(config_path).is_file()
    if config.detector.model != DEMO or ("model" in config.detector.model_fields_set and not is_preset):
        return False
    from pipelines.build.models import models_in_use

    return DEFAULT_MODEL in models_in_use(config)


def _configured(origin: Origin) -> tuple[Config, EditsFile | None]:
    """Return the configuration of a run, and the file with edits made on the page.

    It comes from the file, changed by options, `--set`, regions and lines given by name, and the edits.
    """
    from pipelines.build.edits import edits_file
    from pipelines.build.places import with_places
    from pipelines.config.file import load_config
    from pipelines.running.web_process import with_web

    config_path, overrides, settings, places = origin
    config = with_web(with_places(load_config(config_path, overrides, settings), places))
    edits = edits_file(config_path, config)
    return _edited(config, edits), edits


def _check(config: Config, config_path: str | None) -> None:
    """Reject invalid combinations before anything is opened."""
    _check_web(config)
    if config.control.watch and not (config_path and Path(config_path).is_file()):
        raise ConfigError("control.watch: there is no file to watch: give a configuration file, or leave it out")


def _built(config: Config, plans: PlanRebuild) -> tuple[ZmqPublisher | None, MetricsServer | None, Pipeline]:
    """Bind the sockets first, so that a run whose address is taken does not load a model, then build the pipeline."""
    from pipelines.build.pipeline import build_pipeline
    from pipelines.build.sinks import bound_publisher
    from pipelines.metrics.answering import METRICS_VARIABLE, bound_server

    finish: list[Callable[[], None]] = []
    with ExitStack() as until_built:
        publisher = bound_publisher(config)
        if publisher is not None:
            until_built.callback(publisher.close)
        server = bound_server(config.metrics.address, at_will=os.environ.get(METRICS_VARIABLE))
        if server is not None:
            until_built.callback(server.close)
        pipeline = build_pipeline(config, on_quit=lambda: finish[0](), make_detector=plans.detector, bound=publisher)
        finish.append(pipeline.finish)
        until_built.pop_all()
    return publisher, server, pipeline


def _run(
    pipeline: Pipeline,
    config: Config,
    origin: Origin,
    plans: PlanRebuild,
    server: MetricsServer | None,
    interrupt: Interrupt,
    edits: EditsFile | None,
) -> Outcome:
    """Run a pipeline to its end, together with its metrics, its watchdog and its control."""
    from pipelines.metrics.engine_health import EngineHealth
    from pipelines.metrics.serve import serve_run
    from pipelines.metrics.watchdog import Watchdog

    health = EngineHealth(pipeline)
    watchdog = Watchdog(health)
    with (
        serve_run(server, pipeline, health),
        _changes(pipeline, config, origin, plans, interrupt.over, edits) as each_tick,
    ):
        ticks: list[Callable[[], object]] = [health.beat, watchdog.tick, *each_tick]
        outcome = run_to_the_end(pipeline, interrupt, each_tick=ticks)
        watchdog.stopping()
    return outcome


def _leave_scene(pipeline: Pipeline, config: Config) -> None:
    """Save the state that lets the next run continue counting, if `analytics.state` is set."""
    if config.analytics.state is None:
        return
    from pipelines.build.scene import scene_of
    from pipelines.running.scene_state import SceneState

    scene = scene_of(pipeline)
    if scene is not None:
        SceneState(config.analytics.state, scene).write()


def _show_result(facts: dict[str, Any], config: Config, interrupt: Interrupt, *, as_json: bool) -> None:
    """Print the summary, within a time limit that holds even if the terminal or pipe is blocked."""
    from engine.sinks.jsonl import STDOUT

    with steady_stdout(SUMMARY_INTERRUPTED_S if interrupt.requested else SUMMARY_S):
        if as_json:
            console.result_json(facts)
        else:
            console.show_summary(facts, aside=config.output.jsonl == STDOUT)


def _run_workers(config: Config, interrupt: Interrupt, edits: EditsFile | None, *, as_json: bool) -> NoReturn:
    """Run several engine processes as one, print their summary, and exit with its code."""
    from pipelines.workers.run import run_workers

    facts, exit_code = run_workers(config, interrupt, edits)
    _show_result(facts, config, interrupt, as_json=as_json)
    if "error" in facts:
        console.fail(facts["error"])
    drain()
    sys.exit(exit_code)


@contextmanager
def _changes(
    pipeline: Pipeline,
    config: Config,
    origin: Origin,
    plans: PlanRebuild,
    is_over: Latch,
    edits: EditsFile | None,
) -> Iterator[list[Callable[[], None]]]:
    """Yield the functions to call during the run, which apply changes from the socket and the file."""
    from pipelines.build.places import with_places
    from pipelines.running.reconfigure import ConfigWatch, Reconfigurer

    path, overrides, settings, places = origin
    changes = Reconfigurer(pipeline, config, plans.detector, is_over)
    each_tick: list[Callable[[], None]] = [lambda: plans.poll(pipeline, changes.config)]
    if config.analytics.state is not None:
        from pipelines.build.scene import scene_of
        from pipelines.running.scene_state import SceneState

        scene = scene_of(pipeline)
        if scene is not None:
            each_tick.append(SceneState(config.analytics.state, scene).poll)
    if config.control.watch and path is not None:
        completed = lambda new: _edited(with_places(new, places), edits)  # noqa: E731
        each_tick.append(ConfigWatch(path, overrides, settings, changes, completed).poll)
    with ExitStack() as until_over:
        if config.control.address != "none" or config.web.address != "none":
            server = _control(pipeline, config, changes, plans, edits)
            until_over.callback(server.close)
            each_tick.append(server.poll)
            if config.web.address != "none":
                web = _web(pipeline, config, server.address)
                until_over.callback(web.close)
                each_tick.append(web.poll)
        yield each_tick


def _edited(config: Config, edits: EditsFile | None) -> Config:
    """Return a configuration with the edits from the page, and report them."""
    if edits is None:
        return config
    config, notes = edits.applied_to(config)
    for note in notes:
        console.say(note)
    return config


def _control(
    pipeline: Pipeline, config: Config, changes: Reconfigurer, plans: PlanRebuild, edits: EditsFile | None
) -> ControlServer:
    """Return the control socket; a run that only serves a page has a private one."""
    from engine.transport.keys import load_key_pair, load_public_keys
    from pipelines.running.control import ControlServer
    from pipelines.running.control_access import AUTO

    control = config.control
    return ControlServer(
        AUTO if control.address == "none" else control.address,
        pipeline,
        changes,
        keys=load_key_pair(control.keys) if control.keys else None,
        allowed_keys=load_public_keys(control.allowed_keys) if control.allowed_keys is not None else None,
        more_status=lambda: plans.status() | recordings_of(pipeline) | events_of(pipeline),
        edits=edits,
    )


def _check_web(config: Config) -> None:
    """Raise `ConfigError` if others could reach the page without TLS and a login, before anything is opened."""
    if config.web.address == "none":
        return
    from pipelines.metrics.answering import bound_server
    from pipelines.running.web_process import web_settings
    from pipelines.web.access import check_exposure
    from pipelines.web.page.app import exposure_of
    from pipelines.web.page.settings import Settings

    check_exposure(exposure_of(Settings(**web_settings(config, "", {}, ""))))
    server = bound_server(config.web.metrics)  # the web process binds it later, when an error would be less clear
    if server is not None:
        server.close()


def _web(pipeline: Pipeline, config: Config, control: str) -> WebProcess:
    """Return the running web server."""
    from engine.sinks.zmq import ZmqPublisher
    from pipelines.running.web_process import WebProcess, web_settings
    from pipelines.web.access import Listen, bind

    publisher = next(sink for sink in pipeline.sinks if isinstance(sink, ZmqPublisher))
    listen = Listen.parse(config.web.address, "web.address")
    listener = bind(listen)
    bound = Listen(listen.host, listener.getsockname()[1])
    console.say(f"page at {bound.url('https' if config.web.certificate else 'http')}/")
    return WebProcess(listener, web_settings(config, publisher.address, publisher.endpoints, control))


def opening_line(address: str, pipeline: Pipeline, collectors: Sequence[str] = ()) -> str:
    """Return the first line of a run: its sources, models, backends and addresses."""
    places = [f"at {address}"] * (address != "none") + [f"to {collector}" for collector in collectors]
    where = f"publishing {' and '.join(places)}" if places else "not publishing"
    return f"{_sources_and_models(pipeline)}, {where}"


def _sources_and_models(pipeline: Pipeline) -> str:
    by_model: dict[str, list[str]] = {name: [] for name in pipeline.models}
    for source in pipeline.sources:
        by_model[pipeline.model_of(source.info.source_id)].append(source.info.source_id)
    texts = []
    for name, lane in pipeline.models.items():
        facts = describe(lane.detector)
        backend = f"{facts.backend}{f' ({facts.reason})' if facts.reason else ''}"
        texts.append(f"{', '.join(by_model[name])}: {lane.detector.name} on {backend}")
    return "; ".join(texts)
