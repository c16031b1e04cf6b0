"""Hours of an engine with faulty cameras, in minutes: does anything grow, slow down or go missing?

The engine is `framewire run` in its own process; cameras, proxies and the subscriber are in this one. So only the
engine is measured.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.everything import Everything
from tests.faults.lab import is_accounted
from tests.faults.proxy import FaultProxy
from tests.freshness.ages import Ages, Part
from tests.freshness.engine_process import EngineProcess, watch
from tests.freshness.growth import WARM_UP, Growth, Slope
from tests.rtsp_server import RtspServer

MAX_FAULT_S = 12.0
LAST_QUARTER = 0.75
NAP_S = 0.05


@dataclass(frozen=True)
class Report:
    """The results of a soak test.

    Attributes:
        slopes: growth of the engine process and of its readers.
        ages_start: age at publishing in the first part of the run.
        ages_end: age at publishing in its last quarter.
        faults: number of faults.
        sources: captured, published, dropped by cause and reconnects of each camera.
        is_accounted: captured = published + dropped, for each camera.
        stop_s: seconds from SIGINT to the end of the engine.
        left_behind: processes that outlived the engine.
        late_start: how late a thread that only sleeps woke in the first part: what else the machine did.
        late_end: the same in the last quarter.
        used: with everything on: what the viewer got, and the answers of the page by kind and status.
    """

    slopes: tuple[Slope, ...]
    ages_start: Part
    ages_end: Part
    faults: int
    sources: dict[str, Any]
    is_accounted: bool
    stop_s: float
    left_behind: int
    late_start: Part
    late_end: Part
    used: dict[str, Any] = field(default_factory=dict)


class Camera:
    """An RTSP server behind a proxy, with the faults that it can have."""

    def __init__(self, number: int) -> None:
        self.server = RtspServer(size="320x240", fps=15, gop=15)
        self.proxy = FaultProxy(self.server.port, seed=number)

    @property
    def url(self) -> str:
        """Address behind the proxy."""
        return f"rtsp://127.0.0.1:{self.proxy.port}/stream"

    def mishaps(self) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
        """Return the name, begin and end functions of each fault."""
        proxy, server = self.proxy, self.server
        return [
            ("killed", server.kill, server.start),
            ("cut", proxy.cut, lambda: None),
            ("frozen", proxy.freeze, proxy.thaw),
            ("lost", proxy.lose, lambda: None),
            ("jitter", lambda: setattr(proxy, "jitter_s", 0.2), lambda: setattr(proxy, "jitter_s", 0.0)),
            ("corrupt", lambda: setattr(proxy, "corrupt", 1e-4), lambda: setattr(proxy, "corrupt", 0.0)),
            ("stopped", server.pause, server.resume),
        ]

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self.server.kill()


class Mishaps:
    """Starts a fault from time to time, which lasts a fifth of the interval."""

    def __init__(self, cameras: list[Camera], every_s: float, last_s: float, seed: int) -> None:
        self._cameras = cameras
        self._every_s = every_s
        self._last_s = last_s
        self._rng = random.Random(seed)
        self._due = every_s / 2
        self._ends: list[tuple[float, Callable[[], None]]] = []
        self.played = 0

    def play(self, now: float) -> str:
        """End and begin the faults that are due, and return camera and name of the one that began."""
        while self._ends and self._ends[0][0] <= now:
            self._ends.pop(0)[1]()
        if now < self._due or now >= self._last_s:
            return ""
        camera = self._rng.choice(self._cameras)
        name, begin, end = self._rng.choice(camera.mishaps())
        begin()
        self._ends.append((now + min(self._every_s / 5, MAX_FAULT_S), end))
        self._due += self._every_s
        self.played += 1
        return f"cam{self._cameras.index(camera)} {name}"

    def end(self) -> None:
        """End all of them."""
        for _, end in self._ends:
            end()


@contextmanager
def lateness() -> Iterator[Ages]:
    """Collect by how many milliseconds a thread that only sleeps is late."""
    late, is_over = Ages(), threading.Event()

    def sleep() -> None:
        due = time.monotonic() + NAP_S
        while not is_over.wait(max(due - time.monotonic(), 0.0)):
            now = time.monotonic()
            late.add(1000 * (now - due), now)
            due = now + NAP_S

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    try:
        yield late
    finally:
        is_over.set()
        thread.join()


def soak(
    seconds: float,
    *,
    cameras: int = 4,
    fault_every_s: float = 60.0,
    seed: int = 0,
    csv: Path | None = None,
    everything: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run an engine on faulty cameras and return what grew.

    With a folder as `everything`, rules, events, clips, recordings, the page with a viewer, metrics and traces are on,
    and files go there.
    """
    ages = Ages()
    with ExitStack() as stack:
        late = stack.enter_context(lateness())
        held = [stack.enter_context(closing(Camera(number))) for number in range(cameras)]
        mishaps = Mishaps(held, fault_every_s, seconds - 0.7 * fault_every_s, seed)
        urls = {f"cam{n}": camera.url for n, camera in enumerate(held)}
        more = Everything(list(urls), everything) if everything else None
        engine = stack.enter_context(EngineProcess(urls, *(more.settings if more else ())))
        subscriber = stack.enter_context(engine.subscriber())
        if more:
            more.start()
        growth = Growth(engine.pid)
        for now, rss_mb in watch(subscriber, growth, ages, seconds):
            if name := mishaps.play(now):
                say(f"{now:6.0f} s  {name}  engine {rss_mb:.1f} MB")
        mishaps.end()
        used = more.end() if more else {}
        sources = engine.end()["sources"]
    if csv is not None:
        growth.save(csv)
        csv.with_suffix(".log").write_text(engine.log)
    return Report(
        (*growth.slopes(), *(more.slopes() if more else ())),
        ages.share(0.0, WARM_UP),
        ages.share(LAST_QUARTER, 1.0),
        mishaps.played,
        sources,
        is_accounted(sources),
        engine.stop_s,
        engine.left_behind,
        late.share(0.0, WARM_UP),
        late.share(LAST_QUARTER, 1.0),
        used,
    )
