"""Opens and closes one camera repeatedly: what does each cycle leave behind?"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

from engine.sources.open import open_source
from tests.processes import running_children


@dataclass(frozen=True)
class Cycles:
    """What opening and closing left behind in this process, in the second half (caches fill in the first).

    Attributes:
        count: number of cycles.
        kb_per_cycle: slope of the resident memory by least squares.
        rss_mb: resident memory at the start of that half and at the end.
        threads: the same for threads.
        descriptors: the same for file descriptors.
        children: reader processes that still exist at the end.
        seconds_per_cycle: mean time of opening, one frame and closing.
    """

    count: int
    kb_per_cycle: float
    rss_mb: tuple[float, float]
    threads: tuple[int, int]
    descriptors: tuple[int, int]
    children: int
    seconds_per_cycle: float


def open_and_close(uri: str, reader: str, count: int, say: Callable[[str], None] = lambda text: None) -> Cycles:
    """Open a camera, take one frame, close it; `count` times."""
    me, begun = psutil.Process(), time.monotonic()
    samples = []
    for number in range(count):
        source = open_source(uri, reader=reader, reconnect=False)
        for _ in source:
            source.interrupt()
        gc.collect()
        samples.append((me.memory_info().rss / 1e3, me.num_threads(), me.num_fds()))
        if (number + 1) % 100 == 0:
            say(f"{number + 1}: {samples[-1][0] / 1e3:.1f} MB, {samples[-1][1]} threads, {samples[-1][2]} descriptors")
    kept = samples[count // 2 :]
    (rss, threads, descriptors), (rss_end, threads_end, descriptors_end) = kept[0], kept[-1]
    return Cycles(
        count,
        float(np.polyfit(np.arange(len(kept)), [row[0] for row in kept], 1)[0]),
        (round(rss / 1e3, 1), round(rss_end / 1e3, 1)),
        (threads, threads_end),
        (descriptors, descriptors_end),
        len(running_children("reader_process")),
        (time.monotonic() - begun) / count,
    )
