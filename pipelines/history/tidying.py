"""Cleans up the log and its media on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from pipelines.build.media import keep_options, recording_folders

if TYPE_CHECKING:
    from pipelines.history.opening import Log

MB = 1_000_000


def tidy_log(log: Log, *, yes: bool = False) -> dict[str, Any]:
    """Adopt and delete according to `events.keep`, and return what was done as plain values.

    Args:
        log: with its configuration.
        yes: also delete more than a third at once.

    Raises:
        ConfigError: the configuration is unknown.
        StoreError: the log cannot be written.
    """
    from engine.events.media.retention import tidy

    if log.config is None:
        raise ConfigError("the configuration says what to keep: give --config FILE of the run")
    engine_id = log.config.pipeline.engine_id or ""
    if log.place.is_server and not engine_id:
        raise ConfigError("several engines share this log: name this one in the configuration (pipeline.engine_id)")
    owner = engine_id if log.place.is_server else ""
    keep = keep_options(log.config.events.keep)
    return asdict(tidy(log.place, recording_folders(log.config), keep, engine_id=owner, yes=yes))


def as_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a report as lines of text."""
    sizes = ", ".join(f"{kind} {size / MB:.1f} MB" for kind, size in report["bytes"].items())
    limit = "no limit" if report["limit"] is None else f"limit {report['limit'] / MB:.0f} MB"
    yield f"stored: {sizes}; {limit}; {report['free'] / MB:.0f} MB free"
    if report["adopted"] or report["lost"]:
        yield f"adopted {report['adopted']} files, rebuilt {report['rebuilt']} events, forgot {report['lost']} files"
    deleted = ", ".join(f"{count} {name}" for name, count in report["deleted"].items()) or "nothing"
    yield f"deleted: {deleted} ({report['freed'] / MB:.1f} MB)"
    yield from report["warnings"]
