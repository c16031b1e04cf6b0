"""The command line: `framewire VERB`. The verbs are in `pipelines/verbs/`; only the one that is named is loaded.

Exit codes: 0 done (also after SIGTERM), 1 the run failed, 2 bad configuration or arguments, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError, SourceError
from engine.redaction import hide_address, keep_readable
from pipelines import console
from pipelines.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_INTERRUPTED
from pipelines.logs import JSON_VARIABLE
from pipelines.terminal import drain, steady_stderr

VERBS = {
    "demo": "running.demo:demo",
    "init": "machine.init:init",
    "run": "running.run:run",
    "check": "running.check:check",
    "ctl": "running.ctl:ctl",
    "bench": "measuring.bench:bench",
    "subscribe": "stream.subscribe:subscribe",
    "record": "stream.record:record",
    "replay": "stream.replay:replay",
    "bridge": "stream.bridge:bridge",
    "proxy": "stream.proxy:proxy",
    "keys": "stream.keys:keys",
    "detect": "models.detect:detect",
    "serve": "models.serve:serve",
    "track": "scoring.track:track",
    "count": "scoring.count:count",
    "doctor": "machine.doctor:doctor",
    "health": "machine.health:health",
    "support-bundle": "machine.support_bundle:support_bundle",
    "discover": "machine.discover:discover",
    "label": "learning.label:label",
    "inspect": "models.inspect:inspect",
    "build": "models.build:build",
    "train": "learning.train:train",
    "release": "learning.release:release",
    "deploy": "learning.release:deploy",
    "monitor": "learning.monitor:monitor",
    "eval": "scoring.eval:evaluate",
    "service": "machine.service:service",
    "events": "history.events:events",
    "rules": "history.rules:rules",
    "config": "machine.config:config",
    "models": "models.named:models",
    "dataset": "learning.dataset:dataset",
    "classify": "learning.classify:classify",
    "web": "web.web:app",
    "fleet": "fleet.fleet:fleet",
}
"""Module and attribute of each verb, in the order of the help: a function, or a `Typer` for a group of verbs."""


def make_app(names: Collection[str] = tuple(VERBS)) -> typer.Typer:
    """Return the command line with these verbs; loading all of them takes a quarter of a second."""
    app = typer.Typer(
        name="framewire",
        help="Real-time video object detection: cameras in, a ZeroMQ stream of tracked objects out.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_common)
    for name in names:
        module, _, attribute = VERBS[name].partition(":")
        verb = getattr(import_module(f"pipelines.verbs.{module}"), attribute)
        if isinstance(verb, typer.Typer):
            for command in verb.registered_commands:
                command.callback = command.callback and finite(command.callback)
            app.add_typer(verb)
        else:
            app.command()(finite(verb))
    return app


def finite(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return a verb that refuses `nan` and `inf` as a number, which no limit of an option excludes."""

    @wraps(verb)
    def checked(**values: Any) -> Any:
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"--{name.replace('_', '-')} {value}: expected a number")
        return verb(**values)

    return checked


@cache
def _whole() -> typer.Typer:
    return make_app()


def __getattr__(name: str) -> Any:
    """Return `app`, the command line with all verbs, loaded when it is first used."""
    if name != "app":
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return _whole()


def app_for(words: Sequence[str]) -> typer.Typer:
    """Return the command line with the verb that these arguments name, or with all verbs if they name none."""
    named = next((word for word in words if not word.startswith("-")), "")
    is_completion = any(name.endswith("_COMPLETE") and name.startswith("_") for name in os.environ)
    return _whole() if is_completion or named not in VERBS else make_app((named,))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.result(f"framewire {version('framewire')}")
        raise typer.Exit


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


def _own_folders() -> list[str]:
    """Return the working folder and the home folder; either may be gone or unknown."""
    found = []
    with suppress(OSError):
        found.append(os.getcwd())
    with suppress(RuntimeError):
        found.append(str(Path.home()))
    return found


def _run(words: list[str]) -> NoReturn:
    keep_readable(*_own_folders())
    for word in words:
        hide_address(word)  # registered before any message can quote it
    try:
        app_for(words)(with_values(words))
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
