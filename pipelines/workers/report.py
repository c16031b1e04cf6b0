"""Workers' reports, and how they are combined into the summary of one engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from engine.stats import ModelSnapshot, StatsSnapshot, latency_summary, stage_summary
from engine.stats.histogram import HistogramSnapshot

BY_SOURCE = ("recordings", "analytics", "privacy")


class WorkerReport(msgspec.Struct):
    """A worker's final report.

    Attributes:
        stats: its statistics, without scenes.
        summary: the summary that it would print.
        exit_code: of its run.
        error: why it ended; empty if nothing failed.
    """

    stats: StatsSnapshot
    summary: dict[str, Any]
    exit_code: int
    error: str = ""


def encoded(report: WorkerReport) -> bytes:
    """Return a report as bytes."""
    sources = tuple(replace(source, scene=None) for source in report.stats.sources)
    return msgspec.msgpack.encode(msgspec.structs.replace(report, stats=replace(report.stats, sources=sources)))


def decoded(data: bytes) -> WorkerReport:
    """Return a report from bytes. Raises `msgspec.DecodeError`."""
    return msgspec.msgpack.decode(data, type=WorkerReport)


def merged_stats(parts: Sequence[StatsSnapshot]) -> StatsSnapshot:
    """Combine the statistics of several workers, which have different sources, into those of one engine."""
    names = dict.fromkeys(name for part in parts for name in part.models)
    return StatsSnapshot(
        tuple(source for part in parts for source in part.sources),
        {name: _model([part.models[name] for part in parts if name in part.models]) for name in names},
        HistogramSnapshot.merged(part.capture for part in parts),
        HistogramSnapshot.merged(part.event_delay for part in parts),
        _summed_causes(part.sink_dropped for part in parts),
    )


def merged_summary(
    reports: Sequence[WorkerReport], order: Sequence[str], wall_s: float, cpu_s: float
) -> dict[str, Any]:
    """Return the summary of a run, in the form of one with a single process.

    Args:
        reports: of the workers.
        order: names of the sources, as configured.
        wall_s: of the whole run.
        cpu_s: of this process, which is added to that of the workers.
    """
    stats = merged_stats([report.stats for report in reports])
    by_source = stats.by_source()
    names = [name for name in order if name in by_source]
    summaries = [report.summary for report in reports]
    whole: dict[str, Any] = {
        "sources": {name: by_source[name] for name in [*names, *(name for name in by_source if name not in names)]},
        "fps": stats.fps,
        "latency_ms": latency_summary(stats.latency),
        "stage_ms": stage_summary(stats.stages),
        **{key: _joined(each.get(key, "") for each in summaries) for key in ("backend", "device", "model")},
        "models": _models(summaries, stats),
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s + sum(each.get("cpu_s", 0.0) for each in summaries), 3),
        "max_rss_mb": round(sum(each.get("max_rss_mb", 0.0) for each in summaries), 1),
        "interrupted": any(each.get("interrupted") for each in summaries),
        "sink_dropped": {name: causes for name, causes in stats.sink_dropped.items() if sum(causes.values())},
        "workers": len(reports),
    }
    for key in BY_SOURCE:
        found = {name: value for each in summaries for name, value in each.get(key, {}).items()}
        whole |= {key: found} if found else {}
    outputs = _outputs(each.get("outputs", []) for each in summaries)
    whole |= {"outputs": outputs} if outputs else {}
    errors = list(dict.fromkeys(report.error for report in reports if report.error))
    return whole | ({"error": "; ".join(errors)} if errors else {})


def _models(summaries: Sequence[Mapping[str, Any]], stats: StatsSnapshot) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in summaries:
        for name, facts in each.get("models", {}).items():
            found.setdefault(name, {"model": facts["model"], "backend": facts["backend"]})
    for name, facts in found.items():
        figures = stats.models.get(name)
        facts["detected"] = figures.detected if figures is not None else 0
        facts["stage_ms"] = stage_summary(figures.stages) if figures is not None else {}
    return found


def _outputs(lists: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the files of all workers; for a shared file, the frames of all."""
    files: dict[str, dict[str, Any]] = {}
    for each in (file for files_of_one in lists for file in files_of_one):
        mine = files.setdefault(each["path"], {"path": each["path"], "frames": 0, "complete": True})
        mine["frames"] += each["frames"]
        mine["complete"] &= each["complete"]
    return list(files.values())


def _model(parts: Sequence[ModelSnapshot]) -> ModelSnapshot:
    batches: Counter[int] = Counter()
    for part in parts:
        batches.update(part.batches)
    names = dict.fromkeys(name for part in parts for name in part.stages)
    stages = {name: HistogramSnapshot.merged(p.stages[name] for p in parts if name in p.stages) for name in names}
    return ModelSnapshot(sum(part.detected for part in parts), stages, dict(batches))


def _summed_causes(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    whole: dict[str, Counter[str]] = {}
    for part in parts:
        for name, causes in part.items():
            whole.setdefault(name, Counter()).update(causes)
    return {name: dict(causes) for name, causes in whole.items()}


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(part for text in texts for part in text.split(", ") if part))
