"""Many cameras on one detector that is too slow for all of them: does each get its share, and does anything grow?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.lab import is_accounted
from tests.freshness.ages import Ages, Part
from tests.freshness.engine_process import EngineProcess, watch
from tests.freshness.growth import Growth, Slope


@dataclass(frozen=True)
class ManyCameras:
    """The results of an engine with many cameras.

    Attributes:
        cameras: number of cameras.
        fairness: fewest frames published by a camera as a share of the most.
        fps: frames published per second, of all cameras.
        captured_fps: frames that arrived per second, of all cameras.
        ages: p50 and p99 of the age at publishing, in each part of the run.
        slopes: growth of the engine process.
        is_accounted: captured = published + dropped, for each camera.
        stop_s: seconds from SIGINT to the end.
        left_behind: processes that outlived the engine.
        sources: figures of each camera.
    """

    cameras: int
    fairness: float
    fps: float
    captured_fps: float
    ages: tuple[Part, ...]
    slopes: tuple[Slope, ...]
    is_accounted: bool
    stop_s: float
    left_behind: int
    sources: dict[str, Any]


def fairness(sources: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the fewest frames published by a camera as a share of the most."""
    published = [facts["published"] for facts in sources.values()]
    return min(published) / max(max(published), 1)


def many_cameras(
    uris: Mapping[str, str],
    seconds: float,
    *settings: str,
    model: str = "demo",
    part_s: float = 60.0,
    csv: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ManyCameras:
    """Run `framewire run` on all cameras for this many seconds, and return the results."""
    ages, due = Ages(), part_s
    with EngineProcess(uris, *settings, model=model) as engine, engine.subscriber() as subscriber:
        growth = Growth(engine.pid)
        for now, rss_mb in watch(subscriber, growth, ages, seconds):
            if now >= due:
                due += part_s
                say(f"{now:5.0f} s  {ages.parts(part_s)[-1]}, engine {rss_mb:.1f} MB")
        summary = engine.end()
    if csv is not None:
        growth.save(csv)
    sources = summary["sources"]
    return ManyCameras(
        len(uris),
        fairness(sources),
        len(ages.values) / seconds,
        sum(facts["captured"] for facts in sources.values()) / summary["wall_s"],
        tuple(ages.parts(part_s)),
        growth.slopes(),
        is_accounted(sources),
        engine.stop_s,
        engine.left_behind,
        sources,
    )
