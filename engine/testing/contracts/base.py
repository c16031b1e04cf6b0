"""Helpers that all contract suites share."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceState, SourceStatus, Tracks

FRAME_NS = 40_000_000
UTC_NS = 1_790_000_000 * NS_PER_S
PATIENCE_S = 20.0
RUN = Run("engine", UTC_NS, "model.onnx", ("person", "bicycle"))


class ContractError(AssertionError):
    """A part does not do what the pipeline relies on."""


def ensure(is_so: object, expected: str) -> None:
    """Raise `ContractError` unless a condition holds."""
    if not is_so:
        raise ContractError(f"contract broken: {expected}")


def name_of(check: Callable[..., None]) -> str:
    """Return the name of a check as a sentence, for the ids of parametrized tests."""
    return check.__name__.replace("_", " ")


def run_all(checks: Iterable[Callable[..., None]], *arguments: object) -> None:
    """Run checks in order. Raises `ContractError` with the name of the first check that fails."""
    for check in checks:
        try:
            check(*arguments)
        except ContractError as error:
            raise ContractError(f"{name_of(check)}: {error}\n{inspect.getdoc(check) or ''}") from error


def image(width: int = 96, height: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Return a (height, width, 3) image with content, the same for the same arguments."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 64, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 220
    return pixels


def frame(number: int = 0, source_id: str = "gate", width: int = 96, height: int = 64) -> Frame:
    """Return a frame of a file, the same for the same arguments."""
    at = number * FRAME_NS
    return Frame(image(width, height, number), source_id, number, at, UTC_NS + at, at, "file")


def packet(number: int = 0, objects: int = 2, source_id: str = "gate", run: Run = RUN) -> Packet:
    """Return a packet with this many tracks, the same for the same arguments."""
    rows = np.arange(objects)
    corner = np.stack((8.0 * rows, 4.0 * rows), axis=1)
    xyxy = np.hstack((corner, corner + 16))
    score, class_id = np.full(objects, 0.75), rows % 2
    tracks = Tracks(xyxy, score, class_id, rows + 1, rows + 5, rows)
    spent = {"queue": 0.25, "infer": 16.125, "track": 0.5}
    return Packet(frame(number, source_id), Detections(xyxy, score, class_id), tracks, run, spent, seq=number)


def status(state: SourceState, source_id: str = "gate") -> SourceStatus:
    """Return a state of a camera."""
    return SourceStatus(SourceInfo(source_id, f"rtsp://{source_id}/stream", True, 96, 64, 25.0), state)


class Recorder:
    """A source's listener that stores everything it receives."""

    def __init__(self) -> None:
        self.statuses: list[SourceStatus] = []
        self.losses: Counter[str] = Counter()
        self._changed = threading.Condition()

    def status(self, status: SourceStatus) -> None:
        """Keep a state."""
        with self._changed:
            self.statuses.append(status)
            self._changed.notify_all()

    def lost(self, count: int, cause: str) -> None:
        """Keep a loss."""
        with self._changed:
            self.losses[cause] += count

    @property
    def states(self) -> list[str]:
        """Names of the states so far."""
        return [status.state for status in self.statuses]

    def wait_for_first(self) -> None:
        """Wait until a state has been reported."""
        with self._changed:
            self._changed.wait_for(lambda: self.statuses, PATIENCE_S)
