"""The command line: `framewire VERB`. The verbs are in `pipelines/verbs/`.

Exit codes: 0 done (also after SIGTERM), 1 the run failed, 2 bad configuration or arguments, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError, SourceError
from engine.redaction import hide_address, keep_readable
from pipelines import console
from pipelines.logs import JSON_VARIABLE
from pipelines.running.detect_and_publish import EXIT_CONFIG, EXIT_FAILED, EXIT_INTERRUPTED
from pipelines.terminal import drain, steady_stderr
from pipelines.verbs.fleet.fleet import fleet
from pipelines.verbs.history.events import events
from pipelines.verbs.history.rules import rules
from pipelines.verbs.learning.classify import classify
from pipelines.verbs.learning.dataset import dataset
from pipelines.verbs.learning.label import label
from pipelines.verbs.learning.monitor import monitor
from pipelines.verbs.learning.release import deploy, release
from pipelines.verbs.learning.train import train
from pipelines.verbs.machine.config import config
from pipelines.verbs.machine.discover import discover
from pipelines.verbs.machine.doctor import doctor
from pipelines.verbs.machine.health import health
from pipelines.verbs.machine.init import init
from pipelines.verbs.machine.service import service
from pipelines.verbs.machine.support_bundle import support_bundle
from pipelines.verbs.measuring.bench import bench
from pipelines.verbs.models.build import build
from pipelines.verbs.models.detect import detect
from pipelines.verbs.models.inspect import inspect
from pipelines.verbs.models.named import models
from pipelines.verbs.models.serve import serve
from pipelines.verbs.running.check import check
from pipelines.verbs.running.ctl import ctl
from pipelines.verbs.running.demo import demo
from pipelines.verbs.running.run import run
from pipelines.verbs.scoring.count import count
from pipelines.verbs.scoring.eval import evaluate
from pipelines.verbs.scoring.track import track
from pipelines.verbs.stream.bridge import bridge
from pipelines.verbs.stream.keys import keys
from pipelines.verbs.stream.proxy import proxy
from pipelines.verbs.stream.record import record
from pipelines.verbs.stream.replay import replay
from pipelines.verbs.stream.subscribe import subscribe
from pipelines.verbs.web.web import app as web

app = typer.Typer(
    name="framewire",
    help="Real-time video object detection: cameras in, a ZeroMQ stream of tracked objects out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERBS = (
    demo,
    init,
    run,
    check,
    ctl,
    bench,
    subscribe,
    record,
    replay,
    bridge,
    proxy,
    keys,
    detect,
    serve,
    track,
    count,
    doctor,
    health,
    support_bundle,
    discover,
    label,
    inspect,
    build,
    train,
    release,
    deploy,
    monitor,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(evaluate)
app.add_typer(service)
app.add_typer(events)
app.add_typer(rules)
app.add_typer(config)
app.add_typer(models)
app.add_typer(dataset)
app.add_typer(classify)
app.add_typer(web)
app.add_typer(fleet)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.result(f"framewire {version('framewire')}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more: -v info, -vv debug")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", envvar=JSON_VARIABLE, help="Write every line on stderr as JSON")
    ] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    if log_json:
        os.environ[JSON_VARIABLE] = "1"
    console.set_up_logging(verbose, quiet=quiet, as_json=log_json)


def with_values(words: list[str]) -> list[str]:
    """Return the words of the command line, adding the default address to `--control` if none follows it.

    >>> with_values(["run", "--control", "--json"])
    ['run', '--control=auto', '--json']
    """
    following = [*words[1:], "-"]
    return [f"{w}=auto" if w == "--control" and n.startswith("-") else w for w, n in zip(words, following, strict=True)]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    console.set_up_streams()
    with steady_stderr():
        _run(sys.argv[1:])


def _run(words: list[str]) -> NoReturn:
    keep_readable(os.getcwd(), str(Path.home()))
    for word in words:
        hide_address(word)  # before any message can quote it
    try:
        app(with_values(words))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except EngineError as error:
        console.fail(str(error))
        bad_input = isinstance(error, ConfigError | SourceError | ModelError | MissingDependencyError)
        _leave(EXIT_CONFIG if bad_input else EXIT_FAILED)
    except BrokenPipeError:
        drain()
        os._exit(EXIT_FAILED)
    sys.exit(0)


def _leave(code: int) -> NoReturn:
    """Exit with this code even if stdout cannot be flushed, in which case Python would exit with 120."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drain()
        os._exit(code)
    sys.exit(code)
