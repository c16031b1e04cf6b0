"""Statistics of a run: counters, latency histograms, and one consistent snapshot of them for every reader.

The live table, the summary, the `stats` messages and Prometheus all read `PipelineStats.snapshot()`.
"""

from engine.stats.counters import ModelStats, PipelineStats, SourceStats
from engine.stats.histogram import Histogram, HistogramSnapshot
from engine.stats.snapshot import (
    NO_FIGURES,
    NO_STATS,
    ModelSnapshot,
    SourceSnapshot,
    StatsSnapshot,
    latency_summary,
    stage_summary,
)

__all__ = [
    "NO_FIGURES",
    "NO_STATS",
    "Histogram",
    "HistogramSnapshot",
    "ModelSnapshot",
    "ModelStats",
    "PipelineStats",
    "SourceSnapshot",
    "SourceStats",
    "StatsSnapshot",
    "latency_summary",
    "stage_summary",
]
