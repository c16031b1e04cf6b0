"""Watches a stream or a clip against the reference of a release."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.sources.open import open_source
from engine.wire import FrameMessage
from pipelines.learning.json_files import read_json, write_json
from pipelines.learning.monitor.drift import (
    WINDOW,
    DriftMonitor,
    FrameFacts,
    Reference,
    frame_facts,
    make_reference,
    reference_from,
)
from pipelines.learning.monitor.stream_facts import facts_of_message, light_of, messages_from

Alarm = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch.

    Attributes:
        place: address of a stream, file of its JSON lines, or, with a model, a source.
        model: detects on the source here, which also measures the brightness.
        against: reference file, or folder of a release; None: the first frames.
        learn: number of frames for the reference if no file is given.
        classes: names by class id, for a stream; otherwise those of the model.
        source_id: only this source of the stream.
        window: frames compared.
        count: frames to read; None: until the end.
        timeout_s: silence of the stream that ends the watch with an error.
    """

    place: str
    model: str | None = None
    against: Path | None = None
    learn: int = 100
    classes: tuple[str, ...] = ()
    source_id: str | None = None
    window: int = WINDOW
    count: int | None = None
    timeout_s: float = 60.0


def watch(request: WatchRequest, on_alarm: Alarm, on_frame: Callable[[DriftMonitor], None]) -> dict[str, Any]:
    """Watch until the end and return the summary: frames, alarms, and the latest indexes.

    Raises:
        ConfigError: the reference, the place or a number is invalid.
        NoMessageError: the stream is silent.
    """
    if request.window < 5 or request.learn < 10:
        raise ConfigError(f"window {request.window}, learn {request.learn}: expected at least 5 and 10 frames")
    frames = islice(_frames(request), request.count)
    reference = _reference(request, frames)
    monitor, alarms, number = DriftMonitor(reference, request.window), [], 0
    for number, facts in enumerate(frames, 1):
        fresh = monitor.update(facts)
        if fresh:
            alarms.append({"frame": number, **fresh})
            on_alarm(number, fresh)
        on_frame(monitor)
    return {"frames": number, "alarms": alarms, "psi": monitor.indexes(), "in_alarm": sorted(monitor.raised)}


def save_reference(request: WatchRequest, path: Path) -> dict[str, Any]:
    """Build a reference from the first frames and write it. Raises as `watch` does."""
    reference = _reference(request, islice(_frames(request), request.count))
    write_json(path, reference.as_dict())
    return {"reference": str(path), "frames": reference.frames}


def _reference(request: WatchRequest, frames: Iterator[FrameFacts]) -> Reference:
    if request.against is None:
        first = list(islice(frames, request.learn))
        highest = max((int(one.classes.max()) for one in first if len(one.classes)), default=0)
        return make_reference(first, max(highest + 2, len(request.classes) + 1))
    path = request.against / "reference.json" if request.against.is_dir() else request.against
    return reference_from(read_json(path))


def _frames(request: WatchRequest) -> Iterator[FrameFacts]:
    if request.model is not None:
        yield from _detected(request.place, request.model)
        return
    light: dict[str, float | None] = {}
    names = list(request.classes)
    for message in messages_from(request.place, request.source_id, request.timeout_s):
        if not isinstance(message, FrameMessage):
            light[message.source_id] = light_of(message)
            continue
        if not request.classes:  # numbered in the order in which they appear
            names += [o.class_name for o in message.objects if o.class_name not in names and len(names) < 1000]
            names = list(dict.fromkeys(names))
        yield facts_of_message(message, names, light.pop(message.source_id, None))


def _detected(place: str, model: str) -> Iterator[FrameFacts]:
    with load_detector(model, try_first=True) as detector:
        for frame in open_source(place):
            [found] = detector.detect([frame])
            yield frame_facts(found, (frame.width, frame.height), frame.image)


def prometheus_text(monitor: DriftMonitor, alarms: int) -> str:
    """Return the indexes and alarms in Prometheus's text format, for a textfile collector."""
    lines = ["# HELP framewire_drift_psi Population stability index of the last frames against the release."]
    lines.append("# TYPE framewire_drift_psi gauge")
    lines += [f'framewire_drift_psi{{quantity="{name}"}} {value}' for name, value in monitor.indexes().items()]
    lines += ["# HELP framewire_drift_alarm Whether a quantity is in alarm.", "# TYPE framewire_drift_alarm gauge"]
    lines += [
        f'framewire_drift_alarm{{quantity="{name}"}} {int(name in monitor.raised)}' for name in monitor.reference.edges
    ]
    lines += ["# HELP framewire_drift_alarms_total Alarms so far.", "# TYPE framewire_drift_alarms_total counter"]
    return "\n".join([*lines, f"framewire_drift_alarms_total {alarms}", ""])
