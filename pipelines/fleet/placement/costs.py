"""The cost of a camera: estimated from its stream at first, then measured by the engine that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DECODE_MS_PER_MEGAPIXEL = 3.0
FRAME_MS = 1.5
INFER_MS = 15.0
USUAL_WIDTH, USUAL_HEIGHT, USUAL_FPS = 1280, 720, 15.0
MAX_MS, MAX_FPS = 60_000.0, 1000.0
SHARE_OF_NEW = 0.3
"""Weight of the newest measurement."""
MIN_FRAMES = 20
"""Number of frames before an owner's measurement counts, because the first ones include loading and warm-up."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The resources that one camera takes.

    Attributes:
        cpu: processor cores.
        gpu: share of one GPU.
        is_measured: whether an engine has measured it.
    """

    cpu: float
    gpu: float = 0.0
    is_measured: bool = False


def estimated(width: int | None = None, height: int | None = None, fps: float | None = None) -> Cost:
    """Estimate the cost of a stream that has not run yet, with inference on the CPU.

    >>> round(estimated(1280, 720, 10).cpu, 2)
    0.19
    """
    pixels = (width or USUAL_WIDTH) * (height or USUAL_HEIGHT) / 1e6
    return Cost((FRAME_MS + INFER_MS + DECODE_MS_PER_MEGAPIXEL * pixels) * (fps or USUAL_FPS) / 1e3)


def updated(cost: Cost, report: dict[str, Any]) -> Cost:
    """Return the cost after an engine's report about one camera; an implausible report changes nothing.

    >>> updated(Cost(1.0), {"cpu_ms": 10.0, "gpu_ms": 0.0, "fps": 10.0, "published": 100})
    Cost(cpu=0.1, gpu=0.0, is_measured=True)
    """
    fps, frames = _number(report.get("fps"), MAX_FPS), _number(report.get("published"), 1e15)
    cpu_ms, gpu_ms = _number(report.get("cpu_ms"), MAX_MS), _number(report.get("gpu_ms") or 0.0, MAX_MS)
    if None in (fps, cpu_ms, gpu_ms, frames) or not fps or not cpu_ms or (frames or 0) < MIN_FRAMES:
        return cost
    cpu, gpu = cpu_ms * fps / 1e3, (gpu_ms or 0.0) * fps / 1e3
    if not cost.is_measured:
        return Cost(cpu, gpu, True)
    share = SHARE_OF_NEW
    return Cost(cost.cpu + share * (cpu - cost.cpu), cost.gpu + share * (gpu - cost.gpu), True)


def _number(value: Any, most: float) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= most else None
