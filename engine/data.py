"""The data that travels through a pipeline: frozen objects holding read-only numpy columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.boxes import checked_column
from engine.errors import ConfigError
from engine.interop import columns_from_supervision, png_of, to_supervision
from engine.lazy_image import LazyImage, MayBeLazy, why_no_image
from engine.source_state import NO_ANALYSES
from engine.source_state import SourceInfo as SourceInfo
from engine.source_state import SourceState as SourceState
from engine.source_state import SourceStatus as SourceStatus

if TYPE_CHECKING:
    from typing_extensions import Self

CapturedSource = Literal["arrival", "rtcp", "file", "segment"]
NO_DETECTION = -1
NO_IDENTITY = -1
DEFAULT_MODEL = "detector"
"""Name of the model in a run with only one, after its configuration key."""
UNTIMED_INTERVAL_NS = 40_000_000
"""Interval between images without timestamps: the rate at which players show them."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame(MayBeLazy):
    """One decoded image and its capture time; `Frame(image)` is enough for a single image.

    Attributes:
        image: (H, W, 3) uint8 BGR; a read-only view, shared by every consumer and never copied. Do not change the
            array that it was made from while the frame is in use. Sources may give a `LazyImage` instead: it is
            converted when `image` is first read.
        source_id: the camera or file as configured.
        frame_id: counter per source from 0, +1 per captured frame: a gap downstream is a drop.
        captured_ns: monotonic clock, right after the blocking read returned.
        captured_utc_ns: wall clock of the capture; `captured_source` and `captured_error_ns` say how accurate it is.
        pts_ns: stream time. Video files always have one, and it always rises: it continues at the declared rate if the
            file has no times or jumps back. None if a camera or a folder of images has none.
        captured_source: how `captured_utc_ns` is known.
        captured_error_ns: bound of its error, None if unknown.
        stream_epoch: +1 for each reconnect of a live source, and each time a source is added back to a run.
        pixel_aspect: width by height of a pixel; 1 is square. Boxes are in stored pixels.
    """

    image: NDArray[np.uint8]
    source_id: str = "image"
    frame_id: int = 0
    captured_ns: int = 0
    captured_utc_ns: int = 0
    pts_ns: int | None = None
    captured_source: CapturedSource = "arrival"
    captured_error_ns: int | None = None
    stream_epoch: int = 0
    pixel_aspect: float = 1.0

    def __post_init__(self) -> None:
        given: Any = self.image
        if not isinstance(self.source_id, str) or not self.source_id:
            raise ConfigError(f"source_id is {self.source_id!r}: expected a text such as 'gate'")
        is_lazy = isinstance(given, LazyImage)
        object.__setattr__(self, "_lazy", given if is_lazy else None)
        if is_lazy:
            object.__delattr__(self, "image")
            return
        if (problem := why_no_image(given)) is not None:
            raise ConfigError(f"frame image is {problem}")
        if self.image.flags.writeable:
            object.__setattr__(self, "image", self.image.view())
            self.image.flags.writeable = False

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Convert the image when `image` is first read; called only for attributes that are not set."""
            if name == "_lazy":  # of an unpickled frame
                return None
            lazy = self._lazy if name == "image" else None
            if lazy is None:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            image = lazy.image()
            object.__setattr__(self, "image", image)
            object.__setattr__(self, "_lazy", None)
            return image

    @property
    def scene_ns(self) -> int:
        """When the scene happened: stream time for a file, capture time for a camera; only differences are meaningful.

        A file may be read faster or slower than it was recorded, and its results must not depend on that. Images
        without times are 1/25 s apart.
        """
        if self.captured_source != "file":
            return self.captured_ns
        return self.pts_ns if self.pts_ns is not None else self.frame_id * UNTIMED_INTERVAL_NS

    @property
    def width(self) -> int:
        """Pixels per row."""
        lazy = self._lazy
        return int(self.image.shape[1]) if lazy is None else lazy.width

    @property
    def height(self) -> int:
        """Rows."""
        lazy = self._lazy
        return int(self.image.shape[0]) if lazy is None else lazy.height


class Detections:
    """The objects that a detector found on one frame: N rows; every column is always present.

    Attributes:
        xyxy: (N, 4) float32 pixels of the source frame, right and bottom exclusive.
        score: (N,) float32 in [0, 1].
        class_id: (N,) int32.
        extra: further columns of a task, each with N rows (`mask`, `keypoints`, `xyxyxyxy`); usually empty.
        class_names: name by class id, for `to_supervision`; empty until a `Packet` sets them.
        unreported: further objects, for privacy alone: those below the threshold, of classes that were not chosen, or
            outside the chosen regions; None if there are none or they were not requested. Selecting rows drops it.

    Raises:
        ConfigError: a column does not have one row per score, or does not fit its shape.

    >>> len(Detections.empty())
    0
    >>> found = Detections([[0, 0, 4, 4], [2, 2, 8, 8]], [0.9, 0.4], [0, 2])
    >>> found[found.score > 0.5].xyxy
    array([[0., 0., 4., 4.]], dtype=float32)
    """

    __slots__ = ("class_id", "class_names", "extra", "score", "unreported", "xyxy")

    def __init__(self, xyxy: Any, score: Any, class_id: Any, extra: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.score: NDArray[np.float32] = np.asarray(score, dtype=np.float32).reshape(-1)
        count = len(self.score)
        self.xyxy: NDArray[np.float32] = checked_column(xyxy, np.float32, (count, 4), "xyxy")
        self.score = checked_column(self.score, np.float32, (count,), "score")
        self.class_id: NDArray[np.int32] = checked_column(class_id, np.int32, (count,), "class_id")
        self.extra: Mapping[str, NDArray[Any]] = extra or {}
        self.class_names: Sequence[str] = ()
        self.unreported: Detections | None = None
        for name, column in self.extra.items():
            if len(column) != count:
                raise ConfigError(f"column {name} has {len(column)} rows: expected {count}")

    @classmethod
    def empty(cls) -> Self:
        """Return no rows."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    @staticmethod
    def joined(*parts: Detections | None) -> Detections | None:
        """Return the rows of all parts without their `extra`, or None if there are none."""
        given = [part for part in parts if part is not None and len(part)]
        if not given:
            return None
        xyxy, score, class_id = ([getattr(part, name) for part in given] for name in ("xyxy", "score", "class_id"))
        return Detections(np.concatenate(xyxy), np.concatenate(score), np.concatenate(class_id))

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows)"

    def __getitem__(self, rows: Any) -> Detections:
        """Return the rows that a mask, slice or index array chooses."""
        extra = {name: column[rows] for name, column in self.extra.items()}
        chosen = Detections(self.xyxy[rows], self.score[rows], self.class_id[rows], extra)
        chosen.class_names = self.class_names
        return chosen

    def to_supervision(self) -> Any:
        """Return the same rows as `supervision.Detections`, with `class_name` where known (copies)."""
        return to_supervision(self)

    @classmethod
    def from_supervision(cls, detections: Any) -> Detections:
        """Return the rows of a `supervision.Detections`; missing scores are 1, missing classes 0."""
        return Detections(*columns_from_supervision(detections))


class Tracks:
    """The objects that a tracker follows on one frame: N rows, ordered by `track_id`.

    Attributes:
        xyxy: (N, 4) float32 pixels of the source frame.
        score: (N,) float32 of the last detection.
        class_id: (N,) int32.
        track_id: (N,) int64, unique per source and run, never reused.
        age: (N,) int32 frames since the track began.
        detection_index: (N,) int32, row of this frame's detections, or -1 if the box is a prediction.
        class_names: name by class id, for `to_supervision`; empty until a `Packet` sets them.

    >>> Tracks.empty().track_id
    array([], dtype=int64)
    """

    __slots__ = ("age", "class_id", "class_names", "detection_index", "score", "track_id", "xyxy")

    def __init__(
        self, xyxy: Any, score: Any, class_id: Any, track_id: Any, age: Any = None, detection_index: Any = None
    ) -> None:
        ids = np.asarray(track_id, dtype=np.int64).reshape(-1)
        count = len(ids)
        age = np.ones(count, np.int32) if age is None else age
        index = np.full(count, NO_DETECTION, np.int32) if detection_index is None else detection_index
        self.track_id: NDArray[np.int64] = checked_column(ids, np.int64, (count,), "track_id")
        self.xyxy: NDArray[np.float32] = checked_column(xyxy, np.float32, (count, 4), "xyxy")
        self.score: NDArray[np.float32] = checked_column(score, np.float32, (count,), "score")
        self.class_id: NDArray[np.int32] = checked_column(class_id, np.int32, (count,), "class_id")
        self.age: NDArray[np.int32] = checked_column(age, np.int32, (count,), "age")
        self.detection_index: NDArray[np.int32] = checked_column(index, np.int32, (count,), "detection_index")
        self.class_names: Sequence[str] = ()

    @classmethod
    def empty(cls) -> Self:
        """Return no rows."""
        return cls(np.zeros((0, 4), np.float32), [], [], [])

    def __len__(self) -> int:
        return len(self.track_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows)"

    def __getitem__(self, rows: Any) -> Tracks:
        """Return the rows that a mask, slice or index array chooses."""
        columns = (self.xyxy, self.score, self.class_id, self.track_id, self.age, self.detection_index)
        chosen = Tracks(*(column[rows] for column in columns))
        chosen.class_names = self.class_names
        return chosen

    def split(self, at: Sequence[int]) -> list[Tracks]:
        """Return the rows in parts that begin at the given rows, the first at row 0; views of these columns."""
        parts = []
        for rows in map(slice, (0, *at), (*at, len(self))):
            part = object.__new__(Tracks)  # the columns have been checked
            part.xyxy, part.score, part.class_id = self.xyxy[rows], self.score[rows], self.class_id[rows]
            part.track_id, part.age = self.track_id[rows], self.age[rows]
            part.detection_index, part.class_names = self.detection_index[rows], self.class_names
            parts.append(part)
        return parts

    def to_supervision(self) -> Any:
        """Return the same rows as `supervision.Detections` with `tracker_id`, and `class_name` where known (copies)."""
        return to_supervision(self, tracker_id=self.track_id.astype(int))

    @classmethod
    def from_supervision(cls, detections: Any) -> Tracks:
        """Return the rows of a `supervision.Detections`; raises `ConfigError` where it carries no `tracker_id`."""
        if detections.tracker_id is None:
            raise ConfigError("supervision.Detections has no tracker_id: run it through a tracker first")
        order = np.argsort(detections.tracker_id, kind="stable")
        xyxy, score, class_id = (column[order] for column in columns_from_supervision(detections))
        return Tracks(xyxy, score, class_id, detections.tracker_id[order], None, order)


@dataclass(frozen=True, slots=True)
class Run:
    """The engine and run that a message comes from.

    Attributes:
        engine_id: name of this engine on the wire.
        run_epoch: wall clock at the start in ns; a new value tells readers that the publisher restarted.
        model: name of the model file.
        class_names: name by `class_id`.
        second_class_names: name by class id of the second stage, if there is one.
        model_id: name of the model in the configuration, for runs with several.
        owner_epoch: the epoch under which this engine owns the source of a packet; None outside a fleet.
    """

    engine_id: str
    run_epoch: int
    model: str = ""
    class_names: tuple[str, ...] = ()
    second_class_names: tuple[str, ...] = ()
    model_id: str = DEFAULT_MODEL
    owner_epoch: int | None = None

    def class_name(self, class_id: int) -> str:
        """Return the name of a class, or its number as text if the model does not name it."""
        return self.class_names[class_id] if 0 <= class_id < len(self.class_names) else str(class_id)


TrackEventKind = Literal["new", "lost", "resumed", "ended"]


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """One change in the life of a track, reported exactly once.

    A track is `new` when its id first appears in the `Tracks`, `lost` when the id disappears but may come back,
    `resumed` when it reappears, and `ended` when it never will. Nothing follows `ended`.

    Attributes:
        kind: what happened.
        track_id: id of the track.
        captured_ns: time of the frame on which it happened.
        class_id: class of the last detection.
        first_seen_ns: capture time of the first detection, which may precede the `new`.
        last_seen_ns: capture time of the last detection.
        mean_score: mean over all its detections.
        hits: number of its detections.
        xyxy: the last detected box in pixels.
    """

    kind: TrackEventKind
    track_id: int
    captured_ns: int
    class_id: int
    first_seen_ns: int
    last_seen_ns: int
    mean_score: float
    hits: int
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One frame with what was found on it, as sinks and consumers receive it.

    Attributes:
        frame: the image and its times.
        detections: rows of the detector on this frame.
        tracks: rows of the tracker on this frame.
        run: engine, run and model.
        stage_ms: milliseconds per stage (`queue`, `preprocess`, `infer`, `postprocess`, `track`).
        seq: counter of published packets per source.
        published_utc_ns: wall clock at publishing.
        latency_ms: from `frame.captured_ns` to publishing.
        dropped: frames of this source lost since the previous packet, by cause.
        is_detected: whether the detector ran on this frame; if not, all tracks are predictions, or held.
        is_held: nothing moved, so the detector did not run and the tracks are those of the previous frame.
        events: what happened to tracks on this frame.
        track_classes: (N, K, 2) float32, the second stage's result for each track, also for predicted boxes: class
            id and probability, best first, NaN if it has none; None without a second stage.
        analyses: what each analyser found on this frame, by its name; empty without analysers.
        hidden: the boxes that privacy made unrecognisable in `frame`, with their classes; None without privacy.
    """

    frame: Frame
    detections: Detections
    tracks: Tracks
    run: Run
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    seq: int = 0
    published_utc_ns: int = 0
    latency_ms: float = 0.0
    dropped: Mapping[str, int] = field(default_factory=dict)
    is_detected: bool = True
    is_held: bool = False
    events: tuple[TrackEvent, ...] = ()
    track_classes: NDArray[np.float32] | None = None
    analyses: Mapping[str, Any] = field(default_factory=lambda: NO_ANALYSES)
    hidden: Detections | None = None

    def __post_init__(self) -> None:
        if self.run.class_names:
            self.detections.class_names = self.tracks.class_names = self.run.class_names

    def _repr_png_(self) -> bytes:
        """Return a PNG for notebooks: the frame with its tracks drawn."""
        return png_of(self)

    @property
    def scene_utc_ns(self) -> int:
        """Wall clock of the scene: of the capture for a camera; for a file, the run's start plus stream time."""
        frame = self.frame
        return frame.captured_utc_ns if frame.captured_source != "file" else self.run.run_epoch + frame.scene_ns

    @property
    def analytics(self) -> Any:
        """The scene after this frame, an `engine.analytics.view.View`; None without analytics."""
        return self.analyses.get("analytics")

    @property
    def findings(self) -> tuple[Any, ...]:
        """What analytics found on this frame."""
        return () if self.analytics is None else tuple(self.analytics.findings)

    def with_analysis(self, name: str, found: Any) -> Packet:
        """Return this packet with the result of the analyser `name` added."""
        return replace(self, analyses={**self.analyses, name: found})
