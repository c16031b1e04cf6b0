"""Many cameras on one detector that is too slow for all of them: does each get its share, and does anything grow?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.wire import FrameMessage
from tests.faults.lab import is_accounted
from tests.freshness.ages import Ages, Part
from tests.freshness.engine_process import EngineProcess, watch
from tests.freshness.growth import Growth, Slope


@dataclass(frozen=True)
class ManyCameras:
    """The results of an engine with many cameras.

    Attributes:
        cameras: number of cameras.
        captured: frames that arrived after the warm-up, by `frame_id`.
        published: those of them that were published.
        silent: cameras of which no frame was published after the warm-up.
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
    captured: int
    published: int
    silent: int
    fairness: float
    fps: float
    captured_fps: float
    ages: tuple[Part, ...]
    slopes: tuple[Slope, ...]
    is_accounted: bool
    stop_s: float
    left_behind: int
    sources: dict[str, Any]


class Arrivals:
    """Counts frames by camera."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, int], list[int]] = {}

    def add(self, source_id: str, stream_epoch: int, frame_id: int) -> None:
        """Count a published frame."""
        self._ids.setdefault((source_id, stream_epoch), []).append(frame_id)

    def note(self, message: FrameMessage) -> None:
        """Count the frame of a message."""
        self.add(message.source_id, message.stream_epoch, message.frame_id)

    @property
    def cameras(self) -> int:
        """Cameras of which a frame was published."""
        return len({source_id for source_id, _ in self._ids})

    @property
    def captured(self) -> int:
        """Frames from the first to the last published one of each camera and connection."""
        return sum(max(ids) - min(ids) + 1 for ids in self._ids.values())

    @property
    def published(self) -> int:
        """Frames published."""
        return sum(map(len, self._ids.values()))


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
    warm_up_s: float = 0.0,
    csv: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ManyCameras:
    """Run `framewire run` on all cameras for this many seconds after a warm-up, and return the results.

    Ages and counts are those after the warm-up; growth, fairness and the figures of each camera those of the whole run.
    """
    ages, arrivals, due = Ages(), Arrivals(), part_s
    with EngineProcess(uris, *settings, model=model) as engine, engine.subscriber() as subscriber:
        growth = Growth(engine.pid)
        for _ in watch(subscriber, growth, Ages(), warm_up_s):
            pass
        for now, rss_mb in watch(subscriber, growth, ages, seconds, arrivals.note):
            if now >= warm_up_s + due:
                due += part_s
                say(f"{now:5.0f} s  {ages.parts(part_s)[-1]}, engine {rss_mb:.1f} MB")
        summary = engine.end()
    if csv is not None:
        growth.save(csv)
    sources = summary["sources"]
    return ManyCameras(
        len(uris),
        arrivals.captured,
        arrivals.published,
        len(uris) - arrivals.cameras,
        fairness(sources),
        len(ages.values) / seconds,
        arrivals.captured / seconds,
        tuple(ages.parts(part_s)),
        growth.slopes(),
        is_accounted(sources),
        engine.stop_s,
        engine.left_behind,
        sources,
    )
