"""Watches a stream or a clip against the reference of a release."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from engine.data import Detections
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.sources.open import open_source
from engine.wire import FrameMessage, ImageMessage
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
Message = FrameMessage | ImageMessage
MAX_NAMES = 1000


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch.

    Attributes:
        place: address of a stream, file of its JSON lines, or, with a model, a source.
        model: detects on the source here, which also measures the brightness.
        against: reference file, or folder of a release; None: the first frames.
        learn: number of frames for the reference if no file is given.
        classes: names by class id; empty: those of the reference, or of the model; for a stream without a reference of
            its classes, in the order in which they appear.
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


def watch(
    request: WatchRequest,
    on_alarm: Alarm,
    on_frame: Callable[[DriftMonitor], None],
    on_message: Callable[[Message], None] = lambda message: None,
) -> dict[str, Any]:
    """Watch until the end and return the summary: frames, alarms, and the latest indexes.

    Args:
        request: what to watch.
        on_alarm: receives the number of the frame and the quantities that went into alarm with it.
        on_frame: receives the monitor after each frame.
        on_message: receives each frame and image of a stream before it is judged.

    Raises:
        ConfigError: the reference, the place or a number is invalid.
        NoMessageError: the stream is silent.
    """
    if request.window < 5 or request.learn < 10:
        raise ConfigError(f"window {request.window}, learn {request.learn}: expected at least 5 and 10 frames")
    given = _given(request)
    frames = islice(_frames(request, given, on_message), request.count)
    reference = given or _learnt(request, frames)
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
    names = list(request.classes)
    learnt = _learnt(request, islice(_frames(request, None, lambda message: None, names), request.count))
    reference = replace(learnt, class_names=tuple(names))
    write_json(path, reference.as_dict())
    return {"reference": str(path), "frames": reference.frames}


def _given(request: WatchRequest) -> Reference | None:
    """Return the reference of a release or a file, None if there is none. Raises `ConfigError`."""
    if request.against is None:
        return None
    path = request.against / "reference.json" if request.against.is_dir() else request.against
    return reference_from(read_json(path))


def classes_of(request: WatchRequest) -> tuple[str, ...]:
    """Return the class names of the reference, empty if it states none. Raises `ConfigError`."""
    given = _given(request)
    return () if given is None else given.class_names


def _learnt(request: WatchRequest, frames: Iterator[FrameFacts]) -> Reference:
    """Return the reference of the first frames."""
    first = list(islice(frames, request.learn))
    highest = max((int(one.classes.max()) for one in first if len(one.classes)), default=0)
    return make_reference(first, max(highest + 2, len(request.classes) + 1))


def _frames(
    request: WatchRequest,
    given: Reference | None,
    on_message: Callable[[Message], None],
    names: list[str] | None = None,
) -> Iterator[FrameFacts]:
    """Yield the quantities of each frame; `names` collects the classes in the order of their numbers."""
    fixed = request.classes or (given.class_names if given is not None else ())
    names = [] if names is None else names
    names[:] = fixed
    if request.model is not None:
        yield from _detected(request.place, request.model, names)
        return
    light: dict[str, float | None] = {}
    for message in messages_from(request.place, request.source_id, request.timeout_s):
        on_message(message)
        if not isinstance(message, FrameMessage):
            light[message.source_id] = light_of(message)
            continue
        if not fixed:  # numbered in the order in which they appear
            new = dict.fromkeys(one.class_name for one in message.objects if one.class_name not in names)
            names += list(new)[: MAX_NAMES - len(names)]
        yield facts_of_message(message, names, light.pop(message.source_id, None))


def _detected(place: str, model: str, names: list[str]) -> Iterator[FrameFacts]:
    """Yield the quantities of what a model finds, its classes numbered as in `names`, which it fills if empty."""
    with load_detector(model, try_first=True) as detector:
        names[:] = names or detector.class_names
        numbers = {name: number for number, name in enumerate(names)}
        class_id = np.array([numbers.get(name, len(numbers)) for name in detector.class_names], np.int32)
        for frame in open_source(place):
            [found] = detector.detect([frame])
            found = Detections(found.xyxy, found.score, class_id[found.class_id])
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
