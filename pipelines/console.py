"""Output for people: a live table on a terminal, plain lines elsewhere, summaries and errors.

Progress goes to stderr; stdout holds only results, so that `--json` can be piped. This is the only module that prints.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.errors import SinkError
from engine.redaction import printable, redact, redact_tree
from pipelines.logs import JsonFormatter, RateLimit, SafeFormatter, json_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from engine.flow.pipeline import Pipeline
    from engine.stats import SourceSnapshot

PLAIN_EVERY_S = 5.0
MODEL_STAGES = ("queue", "preprocess", "infer", "postprocess")
STATE_STYLE = {"live": "green", "connecting": "yellow", "stalled": "yellow", "offline": "red", "ended": "dim"}


class _Aside:
    """How progress and errors are written to stderr."""

    says_progress = True
    is_json = False


_aside = _Aside()


@cache
def stdout() -> Console:
    """Return the console for tables of results."""
    from rich.console import Console

    return Console(highlight=False)


@cache
def stderr() -> Console:
    """Return the console for tables and colours beside the results. A run continues after its reader has gone."""
    from rich.console import Console

    class Aside(Console):
        def on_broken_pipe(self) -> None:
            """Continue."""

    return Aside(stderr=True, highlight=False)


def _is_terminal() -> bool:
    """Return whether stderr shows tables and colours; loads nothing for a plain file or pipe."""
    with suppress(ValueError):  # closed
        may_be = sys.stderr.isatty() or any(name in os.environ for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
        return may_be and stderr().is_terminal
    return False


def set_up_streams() -> None:
    """Make stdout and stderr accept any text: characters that their encoding lacks become escapes, as in JSON."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def set_up_logging(verbosity: int, *, quiet: bool = False, as_json: bool = False) -> None:
    """Send log records to stderr: warnings by default, info with 1, debug with 2; only errors if `quiet`.

    `as_json`: every line on stderr is one JSON object, including progress and errors.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    level = logging.ERROR if quiet else level
    _aside.says_progress = not quiet
    _aside.is_json = as_json
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if not as_json:
        handler = _LateHandler()
    handler.setFormatter(JsonFormatter() if as_json else SafeFormatter("%(message)s"))
    handler.addFilter(RateLimit())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _LateHandler(logging.Handler):
    """Rich's handler on stderr, imported with the first record: a run that starts well logs none."""

    _rich: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if self._rich is None:
            from rich.logging import RichHandler

            self._rich = RichHandler(console=stderr(), show_path=False, show_time=True, log_time_format="%H:%M:%S")
            self._rich.setFormatter(self.formatter)
        self._rich.emit(record)


def safe(text: str) -> str:
    """Return a text that is safe to show: without secrets of this process and terminal control sequences."""
    return printable(redact(text))


def cell(text: object, style: str = "") -> Text:
    """Return a table cell or title that shows a text literally, including brackets."""
    from rich.text import Text

    return Text(safe(str(text)), style=style)


def say(text: str) -> None:
    """Print a line of progress on stderr; do nothing if its reader has gone."""
    if _aside.says_progress:
        _write_aside("info", text)


def fail(text: str) -> None:
    """Print an error on stderr; do nothing if its reader has gone."""
    if _aside.is_json or not _is_terminal():
        _write_aside("error", text if _aside.is_json else f"error: {text}")
        return
    with suppress(OSError, ValueError):
        stderr().print("error:", style="bold red", end=" ")
        stderr().print(safe(text), markup=False, emoji=False, soft_wrap=True)


def _write_aside(level: str, text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write((json_line(level, text) if _aside.is_json else safe(text)) + "\n")
        sys.stderr.flush()


def result(text: str) -> None:
    """Print a line of output on stdout, unstyled and unwrapped."""
    _write_out(safe(text))


def _write_out(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader has closed the pipe (`head`)
    except OSError as error:
        raise SinkError(f"cannot write to stdout: {error.strerror}: free some space, or redirect it") from error


def _takes_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().startswith("utf")


def result_json(value: Any, *, indent: int | None = None) -> None:
    """Print one JSON value on stdout, on one line unless `indent` is given; in ASCII if stdout accepts only that."""
    text = json.dumps(redact_tree(value), indent=indent, ensure_ascii=not _takes_unicode())
    _write_out("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def show_table(table: Table) -> None:
    """Print a rich table on stdout."""
    stdout().print(table)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes the steps done and the total; on a terminal, it shows a bar with rate and time left.

    Results printed in the meantime appear above the bar, or go to a redirected stdout.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(safe(what), markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown, above = _is_terminal(), sys.stdout.isatty()
    with Progress(*columns, console=stderr(), disable=not shown, redirect_stdout=above) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _live_display() -> Live:
    from rich.live import Live

    return Live(console=stderr(), refresh_per_second=4)


def _new_table(**options: Any) -> Table:
    """Return a table with its title on the left."""
    from rich.table import Table

    return Table(title_justify="left", **options)


class RunView:
    """Shows a run in progress: a live table on a terminal, a line per camera every few seconds elsewhere."""

    def __init__(self, pipeline: Pipeline, *, quiet: bool = False) -> None:
        self._pipeline = pipeline
        self._quiet = quiet or not _aside.says_progress
        is_table = not (self._quiet or _aside.is_json) and _is_terminal()
        self._live = _live_display() if is_table else None
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}
        self._next_line = time.monotonic() + PLAIN_EVERY_S

    def __enter__(self) -> RunView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()

    def refresh(self) -> None:
        """Show the current statistics; cheap if no update is due."""
        if self._live is not None:
            self._live.update(self._table())
        elif not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_EVERY_S
            for snapshot in self._pipeline.stats.snapshot().sources:
                say(self._line(snapshot))

    def _table(self) -> Table:
        table = _new_table(title=cell(self._title()), expand=False)
        several = len(self._pipeline.models) > 1
        columns = ["camera", *(["model"] if several else []), "state"]
        for name in (*columns, "published", "fps", "latency p50 / p99", "objects", "dropped"):
            table.add_column(name, justify="left" if name in columns else "right")
        for s in self._pipeline.stats.snapshot().sources:
            state = (
                f"{s.state} ({s.reason})" if s.reason and s.state in ("offline", "stalled", "connecting") else s.state
            )
            table.add_row(
                cell(s.source_id),
                *([cell(self._pipeline.model_of(s.source_id))] if several else []),
                cell(state, STATE_STYLE.get(s.state, "")),
                self._progress(s),
                f"{self._rate(s):.1f}",
                f"{s.latency_ms['p50']:.0f} / {s.latency_ms['p99']:.0f} ms",
                str(s.objects),
                text_of_dropped(s.dropped),
            )
        return table

    def _title(self) -> str:
        pipeline = self._pipeline
        models = ", ".join(dict.fromkeys(lane.run.model for lane in pipeline.models.values()))
        return f"framewire  {models}  {pipeline.wall_s:.0f} s  (Ctrl-C ends)"

    def _line(self, s: SourceSnapshot) -> str:
        return (
            f"{s.source_id}: {s.state}{f' ({s.reason})' if s.reason else ''}, {self._progress(s)}, "
            f"{self._rate(s):.1f} fps, latency p50 {s.latency_ms['p50']:.0f} p99 {s.latency_ms['p99']:.0f} ms, "
            f"{s.objects} objects, dropped {text_of_dropped(s.dropped)}"
        )

    def _progress(self, s: SourceSnapshot) -> str:
        source = next(source for source in self._pipeline.sources if source.info.source_id == s.source_id)
        total = source.info.frame_count
        limit = self._pipeline.options.max_frames
        total = min(total, limit) if total and limit else total or limit
        if not total or source.info.is_live:
            return f"{s.published} frames"
        left = max(total - s.published, 0) / s.fps if s.fps else 0.0
        share = f"{s.published}/{total} frames, {100 * s.published // total} %"
        return share + (f", {left:.0f} s left" if left >= 1 else "")

    def _rate(self, s: SourceSnapshot) -> float:
        """Published frames per second over about the last second."""
        now = time.monotonic()
        then, published = self._before.setdefault(s.source_id, (now, s.published))
        if now - then >= 1.0:
            self._rates[s.source_id] = (s.published - published) / (now - then)
            self._before[s.source_id] = (now, s.published)
        return self._rates.get(s.source_id, s.fps)


def text_of_dropped(dropped: Mapping[str, int]) -> str:
    """Return the losses as text: `0`, or `12 overflow, 3 age`."""
    return ", ".join(f"{count} {cause}" for cause, count in dropped.items() if count) or "0"


def show_summary(summary: Mapping[str, Any], *, aside: bool = False) -> None:
    """Print the readable summary of a run on stdout, or `aside` on stderr if stdout carries other output."""
    tell = say if aside else result
    table = _new_table(title="Summary")
    for name in ("camera", "captured", "published", "dropped", "reconnects"):
        table.add_column(name, justify="left" if name == "camera" else "right")
    for source_id, s in summary["sources"].items():
        table.add_row(
            cell(source_id),
            str(s["captured"]),
            str(s["published"]),
            text_of_dropped(s["dropped"]),
            str(s["reconnects"]),
        )
    (stderr() if aside else stdout()).print(table)
    latency = summary["latency_ms"]
    tell(
        f"{summary['fps']:.1f} fps; latency p50 {latency['p50']:.1f}, p99 {latency['p99']:.1f}, "
        f"max {latency['max']:.1f} ms; {summary['model']} on {summary['backend']}"
    )
    tell(f"{summary['wall_s']:.1f} s, {summary['cpu_s']:.1f} s of CPU, {summary['max_rss_mb']:.0f} MB at most")
    models = summary.get("models", {})
    for name, m in models.items() if len(models) > 1 else ():
        spent = ", ".join(f"{stage} {ms['p50']:.1f}" for stage, ms in m["stage_ms"].items() if stage in MODEL_STAGES)
        tell(f"{name}: {m['model']} on {m['backend']}, {m['detected']} frames; ms at the median: {spent or 'none'}")
    for source_id, r in summary.get("recordings", {}).items():
        trouble = f", {r['write_errors']} write errors, {r['reconnects']} reconnects" if r["write_errors"] else ""
        text = f"{r['packets']} frames, {r['bytes'] / 1e6:.1f} MB in {r['segments']} files{trouble}: {r['folder']}"
        tell(f"{source_id} recorded: {text}")
    for file in summary.get("outputs", []):
        tell(f"{file['path']}: {file['frames']} frames{'' if file['complete'] else ', incomplete'}")
    for name, causes in summary.get("sink_dropped", {}).items():
        tell(f"{name} could not keep up: {text_of_dropped(causes)}")


def show_figures(figures: Mapping[str, Any]) -> None:
    """Print the figures of a benchmark, and a table of its stages."""
    stages = _new_table(title="Stages")
    for name in ("stage", "p50 ms", "p99 ms"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for stage, ms in figures.get("stage_ms", {}).items():
        stages.add_row(cell(stage), f"{ms['p50']:.2f}", f"{ms['p99']:.2f}")
    for key, value in figures.items():
        if key != "stage_ms":
            result(f"{key}: {value}")
    if stages.row_count:
        show_table(stages)


def show_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with the keys of its rows as columns."""
    table = _new_table(title=cell(title), box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(rows[0] if rows else ()):
        table.add_column(cell(name), no_wrap=number == 0, overflow="fold")  # even a narrow terminal cuts nothing off
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    show_table(table)


def show(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print plain values as one line of JSON, or one line each."""
    if as_json:
        result_json(facts)
        return
    for key, value in facts.items():
        result(f"{key}: {value}")
