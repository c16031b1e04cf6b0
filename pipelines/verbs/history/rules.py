"""`framewire rules`: try out rules."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.errors import ConfigError
from pipelines import console

rules = typer.Typer(name="rules", help="Try out rules on past events.", no_args_is_help=True)


@rules.callback()
def _group() -> None:
    """Keep `test` a separate command."""


@rules.command(name="test")
def try_rules(
    config: Annotated[str, typer.Option(help="Configuration with the rules to try, and the log (events.folder)")],
    last: Annotated[str, typer.Option(help="Span up to now: 90m, 24h, 7d")] = "24h",
    folder: Annotated[str | None, typer.Option(help="Log to use instead of that of --config")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only these sources; repeat")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event, and a final one")] = False,
) -> None:
    """Show the events that the rules of a configuration would have raised, from the stored paths of tracks."""
    from engine.clock import NS_PER_S, SYSTEM_CLOCK
    from engine.events.store.reader import EventFilter
    from pipelines.build.scene import scenes_of
    from pipelines.history.listing import as_json as plain
    from pipelines.history.listing import as_line
    from pipelines.history.opening import open_log
    from pipelines.history.replay import compared, replay
    from pipelines.history.times import span_s

    log = open_log(config, folder)
    assert log.config is not None
    scenes = scenes_of(log.config)
    unknown = [name for name in source or () if name not in scenes]
    if unknown:
        raise ConfigError(f"source {unknown[0]} has no rule or place; expected one of: {', '.join(scenes) or 'none'}")
    now_ns = SYSTEM_CLOCK.utc_ns()
    low_ns = now_ns - span_s(last, "--last") * NS_PER_S
    would, did = [], []
    with log.reader() as reader, console.progress_bar("seconds of tracks") as progress:
        for name, scene in scenes.items():
            if not source or name in source:
                would += replay(reader, name, scene, low_ns, now_ns, progress)
                did += list(reader.events(EventFilter(name, from_utc_ns=low_ns, to_utc_ns=now_ns)))
    would.sort(key=lambda event: event.began_utc_ns)
    rules: dict[str, dict[str, Any]] = compared(would, did)
    if as_json:
        for event in would:
            console.result_json(plain(event))
        console.result_json({"rules": rules, "last": last})
        return
    for event in would:
        console.result(as_line(event, log.zone))
    console.show_rows("By rule", [{"rule": name, **counts} for name, counts in rules.items()])
