"""A detector that is slower than its camera: how old are results, and do they grow older?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.data import Frame
from engine.flow.pipeline import Pipeline, PipelineOptions
from engine.protocols import Detector
from engine.sources.open import open_source
from engine.tracking.bytetrack import ByteTrack
from tests.faults.lab import is_accounted
from tests.freshness.ages import Ages, AgeSink, Part, seconds_of

SLOWER = 3.0
WARM_UP_FRAMES = 5


@dataclass(frozen=True)
class Overload:
    """The results of an overloaded engine.

    Attributes:
        name: camera and detector.
        camera_fps: frames per second that arrived.
        published_fps: frames per second that left.
        inference_ms: p50 and p99 of one inference in this run, from its submission to its result.
        max_age_ms: limit of the age at which a frame is still inferred.
        ages: p50 and p99 of the age at publishing, in each part of the run.
        p99_ms: over the whole run.
        dropped: frames by cause.
        is_accounted: captured = published + dropped.
    """

    name: str
    camera_fps: float
    published_fps: float
    inference_ms: tuple[float, float]
    max_age_ms: float
    ages: tuple[Part, ...]
    p99_ms: float
    dropped: dict[str, int]
    is_accounted: bool

    @property
    def limit_ms(self) -> float:
        """The promised age: the limit for inferring, plus one inference."""
        return self.max_age_ms + self.inference_ms[1]

    @property
    def slower(self) -> float:
        """Factor by which the detector was slower than the camera."""
        return self.camera_fps / max(self.published_fps, 1e-9)

    @property
    def is_fresh(self) -> bool:
        """Whether the promise was kept, in every part of the run."""
        return all(part.p99 < self.limit_ms for part in self.ages)


def overload(
    name: str,
    uri: str,
    detector: Detector,
    seconds: float,
    *,
    max_age_ms: float = 200.0,
    part_s: float = 60.0,
    say: Callable[[str], None] = lambda text: None,
) -> Overload:
    """Run an engine on a camera and a detector that cannot keep up with it."""
    sink = AgeSink()
    pipeline = Pipeline(
        open_source(uri, source_id="camera"),
        detector,
        ByteTrack(),
        sink,
        options=PipelineOptions(max_age_ms=max_age_ms),
    )
    pipeline.start()
    try:
        _wait_for_frames(sink)
        sink.ages = Ages()
        before = pipeline.stats.by_source()["camera"]
        begun = time.monotonic()
        for passed in seconds_of(seconds):
            if passed >= part_s and int(passed) % int(part_s) == 0:
                say(f"{name}: {passed:.0f} s  {sink.ages.parts(part_s)[-1]}")
        took_s = time.monotonic() - begun
        after = pipeline.stats.by_source()["camera"]
    finally:
        pipeline.stop()
    facts: dict[str, Any] = pipeline.stats.by_source()["camera"]
    infer = pipeline.stats.stages["infer"]
    return Overload(
        name,
        _rate(before, after, "captured", took_s),
        _rate(before, after, "published", took_s),
        (infer.percentile(0.5), infer.percentile(0.99)),
        max_age_ms,
        tuple(sink.ages.parts(part_s)),
        sink.ages.percentile(99),
        facts["dropped"],
        is_accounted({"camera": facts}),
    )


def seconds_per_inference(detector: Detector, width: int, height: int, count: int = 20) -> float:
    """Return the time of one inference with as many in flight as the detector allows."""
    image = np.zeros((height, width, 3), np.uint8)
    frames = [Frame(image, "calibration", number, 0, 0) for number in range(count + detector.depth)]
    detector.open()
    try:
        waiting = [detector.submit([frame]) for frame in frames[: detector.depth]]
        waiting.pop(0).result()
        begun = time.monotonic()
        for frame in frames[detector.depth :]:
            waiting.append(detector.submit([frame]))
            waiting.pop(0).result()
        took_s = time.monotonic() - begun
        for pending in waiting:
            pending.result()
    finally:
        detector.close()
    return took_s / count


def _wait_for_frames(sink: AgeSink, timeout_s: float = 60.0) -> None:
    for _ in seconds_of(timeout_s):
        if len(sink.ages.values) >= WARM_UP_FRAMES:
            return
    raise AssertionError(f"fewer than {WARM_UP_FRAMES} frames came within {timeout_s:.0f} s")


def _rate(before: dict[str, Any], after: dict[str, Any], what: str, seconds: float) -> float:
    return float(after[what] - before[what]) / seconds
