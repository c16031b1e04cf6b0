"""How frames are queued, bounded and chosen for detection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError
from engine.flow.channel import Overflow
from engine.flow.recovery import OnInferenceError

LIVE_CAPACITY = 1
PREDICT_CAPACITY = 8
FILE_CAPACITY = 4


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How frames are queued and bounded.

    Attributes:
        overflow: policy of each source's first channel; None: newest frame of live sources, every frame of files.
        max_age_ms: live frames older than this are dropped before inference; None: no limit.
        batch_wait_ms: how long the first frame of a batch waits for other cameras.
        max_frames: maximum frames captured per source; None: no limit.
        detect_every: detect on every n-th frame and predict the tracks in between; `auto`: detect as often as the
            hardware allows and predict on the live frames that would be dropped otherwise.
        keep_running: continue without any source, because sources can be added while running.
        on_inference_error: `stop` the run, or `restart` the model, then try another backend; frames are lost meanwhile.
    """

    overflow: Overflow | None = None
    max_age_ms: float | None = 1000.0
    batch_wait_ms: float = 5.0
    max_frames: int | None = None
    detect_every: int | Literal["auto"] = 1
    keep_running: bool = False
    on_inference_error: OnInferenceError = "stop"

    def __post_init__(self) -> None:
        if self.detect_every != "auto" and self.detect_every < 1:
            raise ConfigError(f"detect_every is {self.detect_every}: expected 1 or more, or auto")

    def queue(self, *, is_live: bool) -> tuple[int, Overflow]:
        """Return how many frames of a source may wait for the detector, and what happens to further ones."""
        overflow: Overflow = self.overflow or ("drop_oldest" if is_live else "block")
        if overflow == "block":
            return FILE_CAPACITY, overflow
        return PREDICT_CAPACITY if self.predicts_in_between else LIVE_CAPACITY, overflow

    @property
    def predicts_in_between(self) -> bool:
        """Whether live frames that the detector cannot keep up with are tracked instead of dropped."""
        return self.detect_every == "auto"


_PARTS = {
    "source": (("info", "attach", "interrupt", "__iter__"), 'open_source("clip.mp4")'),
    "detector": (("open", "submit", "close", "class_names"), 'load_detector("model.onnx")'),
    "tracker": (("update", "reset", "clone"), "ByteTrack()"),
    "sink": (("open", "write", "status", "tick", "close"), 'ZmqPublisher("tcp://127.0.0.1:5555")'),
}


def check_part(kind: str, part: object) -> None:
    """Raise ConfigError unless an object can be the `source`, `detector`, `tracker` or `sink` of a pipeline."""
    members, example = _PARTS[kind]
    if isinstance(part, type):
        raise ConfigError(f"the {kind} is the class {part.__name__}: expected an object of it, such as {example}")
    missing = [name for name in members if not hasattr(part, name)]
    if missing:
        found = repr(part) if isinstance(part, str | int | float | None) else f"a {type(part).__name__}"
        raise ConfigError(f"the {kind} is {found}, without {missing[0]}: expected an object such as {example}")


def check_parts(
    sources: Sequence[object], detectors: Sequence[object], tracker: object, sinks: Sequence[object]
) -> None:
    """Raise ConfigError for the first invalid part: swapped arguments, a path, a class."""
    for kind, parts in (("source", sources), ("detector", detectors), ("tracker", [tracker]), ("sink", sinks)):
        for part in parts:
            check_part(kind, part)


def check_names(source_ids: Sequence[str], *, may_be_none: bool) -> None:
    """Raise ConfigError unless there is a source and each has a unique name."""
    if not source_ids and not may_be_none:
        raise ConfigError("a pipeline needs at least one source")
    twice = [name for name, n in Counter(source_ids).items() if n > 1]
    if twice:
        raise ConfigError(f"two sources are named {twice[0]}: give each its own source_id")
