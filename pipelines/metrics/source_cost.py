"""The cost of each source in CPU and GPU milliseconds per published frame, which a fleet uses to place cameras.

The CPU time of the process and its children is measured as a whole, so the total is right whatever threads the decoder
and the model use. It is shared among the sources by the time that their frames spent in the stages that compute and,
for decoding, by their pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.flow.defaults import describe

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline
    from engine.stats import SourceSnapshot

EVERY_NS = 2 * NS_PER_S
MEMORY_S = 10.0
DECODE_MS_PER_PIXEL = 2.5e-6
"""H.264 on one core; only the ratio between sources of different sizes matters."""
ON_CPU = ("preprocess", "postprocess", "track", "analyse", "publish")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class SourceCost:
    """Moving averages of one source; None until measured.

    Attributes:
        cpu_ms: CPU milliseconds per published frame.
        gpu_ms: milliseconds of inference per published frame, if the model does not run on the CPU.
        infer_ms: milliseconds of inference per published frame, on any device.
        fps: published frames per second.
    """

    cpu_ms: float | None = None
    gpu_ms: float | None = None
    infer_ms: float | None = None
    fps: float | None = None

    def facts(self) -> dict[str, float | None]:
        """Return the values as plain data."""
        values = {"cpu_ms": self.cpu_ms, "gpu_ms": self.gpu_ms, "infer_ms": self.infer_ms, "fps": self.fps}
        return {name: None if value is None else round(value, 3) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class _Before:
    captured: int = 0
    published: int = 0
    stage_ms: Mapping[str, float] = field(default_factory=dict)


class CostMeter:
    """Measures the sources of a pipeline; used by one thread, which calls `poll` often.

    Args:
        pipeline: the run.
        now_ns: monotonic clock; tests replace it.
        cpu_s: CPU seconds of this process and its children so far; tests replace it.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        now_ns: Callable[[], int] = SYSTEM_CLOCK.monotonic_ns,
        cpu_s: Callable[[], float] | None = None,
    ) -> None:
        self._pipeline, self._now_ns = pipeline, now_ns
        self._cpu_s = cpu_s or cpu_seconds
        self._costs: dict[str, SourceCost] = {}
        self._before: dict[str, _Before] = {}
        self._measured_ns, self._measured_cpu_s = now_ns(), self._cpu_s()

    def of(self, source_id: str) -> SourceCost:
        """Return the latest figures of a source."""
        return self._costs.get(source_id) or SourceCost()

    def poll(self) -> None:
        """Measure if a measurement is due."""
        now_ns = self._now_ns()
        if now_ns - self._measured_ns < EVERY_NS:
            return
        lasted_s, cpu_s = (now_ns - self._measured_ns) / NS_PER_S, self._cpu_s()
        spent_ms = 1000 * max(cpu_s - self._measured_cpu_s, 0.0)
        self._measured_ns, self._measured_cpu_s = now_ns, cpu_s
        self._share_out(self._pipeline.stats.snapshot().sources, spent_ms, lasted_s)

    def _share_out(self, sources: tuple[SourceSnapshot, ...], spent_ms: float, lasted_s: float) -> None:
        running = set(self._pipeline.running_sources)
        pixels = self._pixels()
        weights: dict[str, float] = {}
        news: dict[str, tuple[int, float, bool]] = {}
        for source in sources:
            name = source.source_id
            before = self._before.get(name, _Before())
            self._before[name] = _Before(source.captured, source.published, dict(source.stage_ms))
            if name not in running:
                self._costs.pop(name, None)
                continue
            spent = {stage: ms - before.stage_ms.get(stage, 0.0) for stage, ms in source.stage_ms.items()}
            on_gpu = self._on_gpu(name)
            own_ms = sum(spent.get(stage, 0.0) for stage in ON_CPU) + (0.0 if on_gpu else spent.get("infer", 0.0))
            decode_ms = (source.captured - before.captured) * pixels.get(name, 0) * DECODE_MS_PER_PIXEL
            weights[name] = own_ms + decode_ms
            news[name] = source.published - before.published, spent.get("infer", 0.0), on_gpu
        total = sum(weights.values())
        for name, (frames, infer_ms, on_gpu) in news.items():
            cost = self._costs.setdefault(name, SourceCost())
            cost.fps = _blend(cost.fps, frames / lasted_s, lasted_s)
            if frames and total:
                cost.cpu_ms = _blend(cost.cpu_ms, spent_ms * weights[name] / total / frames, lasted_s)
                cost.infer_ms = _blend(cost.infer_ms, infer_ms / frames, lasted_s)
                cost.gpu_ms = _blend(cost.gpu_ms, infer_ms / frames if on_gpu else 0.0, lasted_s)

    def _pixels(self) -> dict[str, int]:
        infos = [source.info for source in self._pipeline.sources]
        return {info.source_id: (info.width or 0) * (info.height or 0) for info in infos}

    def _on_gpu(self, source_id: str) -> bool:
        lane = self._pipeline.models.get(self._pipeline.model_of(source_id))
        return lane is not None and not describe(lane.detector).device.lower().startswith("cpu")


def capacity(pipeline: Pipeline) -> dict[str, float]:
    """Return the resources available to this engine: CPU cores, and whether a model runs on a GPU."""
    devices = [describe(lane.detector).device.lower() for lane in pipeline.models.values()]
    return {"cpu_cores": usable_cores(), "gpus": int(any(not device.startswith("cpu") for device in devices))}


def usable_cores() -> float:
    """Return the cores that this process may use, considering its CPU affinity and its container's quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = float(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, round(int(quota) / int(period), 2))
    return cores


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children, living and ended."""
    times = os.times()
    whole = times.user + times.system + times.children_user + times.children_system
    for pid in _children():
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            whole += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return whole


def _children() -> list[str]:
    found: list[str] = []
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                found += (task / "children").read_text(encoding="ascii").split()
    return found


def _blend(old: float | None, new: float, lasted_s: float) -> float:
    share = 1 - math.exp(-lasted_s / MEMORY_S)
    return new if old is None else old + share * (new - old)
