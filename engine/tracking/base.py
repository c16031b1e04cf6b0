"""The base of all trackers: time, track life cycle, ids and output. Subclasses implement the matching of boxes."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import NO_DETECTION, Detections, Frame, TrackEvent, TrackEventKind, Tracks
from engine.errors import ConfigError
from engine.tracking import kalman
from engine.tracking.assignment import Blocks, Pairs, Rounds, overlapping_pairs
from engine.tracking.camera_motion import CameraMotion
from engine.tracking.fleet import Fleet, Times
from engine.tracking.table import CONFIRMED, LOST, TENTATIVE, UNNAMED, Found, Rows, joined, row_dtype, usable
from engine.tracking.track_events import EventLog

if TYPE_CHECKING:
    from typing_extensions import Self

Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

PREDICTED_S = 1.0
"""Without detections a track is shown as predicted for at least this long.

A guess further ahead carries no information.
"""

_SLOW_STREAM = 3
"""Multiple of the last interval between detections; a longer pause is a gap in the stream."""


_KINDS: dict[Hashable, object] = {}

_SHOWN = ("score", "class_id", "track_id", "age", "detection")

DEFAULT_INTERVAL_NS = NS_PER_S // 25
"""Assumed interval between two frames if time does not increase and no interval is known yet."""


class Matches(NamedTuple):
    """The result of matching: matched rows of the table and of `Found`, and the detections that begin a track."""

    rows: Index
    cols: Index
    births: Index


def blocks(rows: Index | None, found: Index | None) -> Blocks | None:
    """Return the cameras of (N,) tracks and (M,) detections; None if there is only one."""
    return None if rows is None or found is None else (rows, found)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}: choose a value from {low:g} to {high:g}")


class BaseTracker(ABC):
    """A tracker of one source; subclasses match detections to tracks.

    Every constructor argument is kept as an attribute of the same name, so that `clone()` can repeat it. Call all
    methods from one thread.
    """

    def __init__(
        self,
        *,
        motion: kalman.MotionModel,
        lost_s: float,
        confirm_hits: int,
        class_aware: bool,
        max_objects: int,
        min_score: float = 0.0,
        more_columns: list[tuple[Any, ...]] | None = None,
    ) -> None:
        check_range("lost_s", lost_s, 0.0, 3600.0)
        check_range("confirm_hits", confirm_hits, 1, 1000)
        check_range("max_objects", max_objects, 1, 100_000)
        self.lost_s = lost_s
        self.confirm_hits = confirm_hits
        self.class_aware = class_aware
        self.max_objects = max_objects
        self._min_score = min_score
        self._motion = motion
        self._rows: Rows = np.zeros(0, row_dtype(more_columns))
        self._log = EventLog(limit=10 * max_objects)
        self.camera_motion = False
        self._camera: CameraMotion | None = None
        self._next_id = 1
        self._now_ns: int | None = None
        self._detected_ns: int | None = None
        self._interval_ns = 0
        self._fleet: Fleet | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @cached_property
    def kind(self) -> Hashable:
        """A key shared by trackers of equal class and parameters, which can be updated together."""
        return _KINDS.setdefault((type(self), *self.parameters.values()), object())

    @property
    def size(self) -> int:
        """Number of remembered tracks (shown, tentative and lost); at most 2 * `max_objects`."""
        return len(self._rows)

    def clone(self) -> Self:
        """Return a new tracker with the same parameters and no tracks, for another source."""
        return type(self)(**self.parameters)

    def reset(self) -> None:
        """End all tracks; ids keep counting up."""
        self._end(self._rows, self._now_ns or 0)
        self._rows = self._rows[:0].copy()
        self._now_ns = self._detected_ns = None
        self._follow_camera(self.camera_motion)

    def events(self) -> list[TrackEvent]:
        """Return the track events since the last call, in order; at most the newest 10 * `max_objects`."""
        return self._log.drain()

    def _note(self, kind: TrackEventKind, captured_ns: Times, rows: Rows) -> None:
        if self._fleet is not None:
            self._fleet.note(kind, captured_ns, rows)
        elif isinstance(captured_ns, int):
            self._log.add(kind, captured_ns, rows)

    def _follow_camera(self, camera_motion: bool) -> None:
        self.camera_motion = camera_motion
        self._camera = CameraMotion() if camera_motion else None

    @property
    def wants_frames(self) -> bool:
        """Whether `observe` must be called with each frame before `update`."""
        return self._camera is not None

    def observe(self, frame: Frame) -> None:
        """Process the frame of the next `update`; does nothing unless `wants_frames`."""
        if self._camera is not None:
            self._camera.observe(frame.image, self._motion.decode(self._rows["mean"]))

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        """Return the tracks on this frame.

        Args:
            detections: detections on the frame; boxes that are not finite or have no area are ignored. `None`
                means that the detector did not run: the tracks are returned as predicted.
            captured_ns: capture time of the frame on a monotonic clock, or its stream time. If time does not increase
                (joined recordings, frames without times), the frame counts as the next one.
        """
        self._follow_time(captured_ns)
        self._predict(captured_ns)
        if detections is None:
            return self._predicted_tracks(captured_ns)
        self._expire(captured_ns)
        found = usable(detections, self._min_score, self.max_objects)
        matches = self._match(found)
        self._correct(matches, found, captured_ns)
        self._rename_confirmed(captured_ns)
        self._retire(captured_ns)
        self._bear(matches.births, found, captured_ns)
        self._interval_ns = 0 if self._detected_ns is None else captured_ns - self._detected_ns
        self._detected_ns = captured_ns
        return self._tracks(self._rows["state"] == CONFIRMED)

    def _proven(self, rows: Rows) -> Mask:
        """Return a mask of the tracks that were detected often enough to be shown."""
        proven: Mask = rows["hits"] >= self.confirm_hits
        return proven

    def _stays(self, unseen: Index, unseen_s: NDArray[np.float64]) -> Mask:
        """Return which of the `unseen` rows are still shown at their predicted position; none by default."""
        return np.zeros(len(unseen), np.bool_)

    def _prepare(self, rows: Rows) -> None:  # noqa: B027 - most trackers have no columns of their own
        """Fill the columns of a subclass in the rows of new tracks."""

    @abstractmethod
    def _match(self, found: Found) -> Matches:
        """Return which of the predicted tracks in `self._rows` each detection belongs to."""

    def _rounds(self, found: Found) -> Rounds:
        """Return the overlapping pairs of predicted tracks and detections, of equal class if `class_aware`."""
        rows, camera = self._rows, self._cameras(self._rows)
        pairs = overlapping_pairs(self._motion.decode(rows["mean"]), found.xyxy, blocks(camera, found.camera))
        return Rounds(self._of_equal_class(pairs, found), len(rows), len(found.xyxy), camera)

    def _cameras(self, rows: Rows) -> Index | None:
        """Return the (N,) index of each row's tracker; None if all belong to this one."""
        return None if self._fleet is None else rows["camera"].astype(np.intp)

    def _of_rows(self, times: Times, camera: NDArray[np.int32]) -> Times:
        """Return the time of the camera of each row, given that column."""
        return times if isinstance(times, int) else times.take(camera)

    def _of_equal_class(self, pairs: Pairs, found: Found) -> Pairs:
        if not self.class_aware:
            return pairs
        return pairs.kept(np.flatnonzero(self._rows["class_id"][pairs.row] == found.class_id[pairs.col]))

    def _missed(self) -> Mask:
        """Return which tracks were not detected when the detector last ran."""
        detected_ns: Times = (self._detected_ns or 0) if self._fleet is None else self._fleet.detected_ns
        missed: Mask = self._rows["seen_ns"] < self._of_rows(detected_ns, self._rows["camera"])
        return missed

    def _follow_time(self, captured_ns: int) -> None:
        """If time goes back, shift all remembered times so that the last frame was one interval ago."""
        if self._now_ns is None or captured_ns > self._now_ns:
            return
        moved_ns = captured_ns - (self._interval_ns or DEFAULT_INTERVAL_NS) - self._now_ns
        self._move_times(self._rows, moved_ns)
        self._now_ns += moved_ns
        if self._detected_ns is not None:
            self._detected_ns += moved_ns

    def _move_times(self, rows: Rows, moved_ns: int) -> None:
        """Add to all times in the table; a subclass adds those of its own columns."""
        rows["seen_ns"] += moved_ns
        rows["first_ns"] += moved_ns

    def _predict(self, captured_ns: int) -> None:
        rows = self._rows
        seconds = 0.0 if self._now_ns is None else max(captured_ns - self._now_ns, 0) / NS_PER_S
        self._now_ns = captured_ns
        if seconds > 0:
            self._move(seconds)
        rows["age"] += 1
        rows["detection"] = NO_DETECTION
        affine = self._camera.take() if self._camera is not None else None
        if affine is not None:
            kalman.warp(rows["mean"], rows["cov"], affine, self._motion.size_powers)

    def _move(self, seconds: float | NDArray[np.float64]) -> None:
        """Move all tracks by their motion; `seconds` is a number or (N, 1)."""
        rows = self._rows
        if not len(rows):
            return
        mean, cov, missed = rows["mean"].copy("F"), rows["cov"].copy("F"), self._missed()
        if missed.any():
            mean[:, 6:] *= ~missed[:, None]
        kalman.predict(mean, cov, self._motion.process(mean), seconds)
        rows["mean"], rows["cov"] = mean, cov

    def _expire(self, captured_ns: Times) -> None:
        """End tracks after a stream gap longer than `lost_s`, unless frames normally arrive that slowly."""
        rows = self._rows
        if self._fleet is not None:
            limits_ns = self._fleet.limits_ns(self.lost_s, _SLOW_STREAM).take(rows["camera"])
            unseen_ns = self._of_rows(captured_ns, rows["camera"]) - rows["seen_ns"]
            self._remove((unseen_ns > limits_ns).nonzero()[0], captured_ns)
        elif self._interval_ns > 0:
            limit_ns = max(self.lost_s * NS_PER_S, _SLOW_STREAM * self._interval_ns)
            self._remove((captured_ns - rows["seen_ns"] > limit_ns).nonzero()[0], captured_ns)

    def _correct(self, matches: Matches, found: Found, captured_ns: Times) -> None:
        at: Index | slice = matches.rows
        cols, rows = matches.cols, self._rows
        if not len(cols):
            return
        if len(cols) == len(rows):  # usually every track is seen: whole columns, which are faster than indexed ones
            at, cols = slice(None), cols.take(matches.rows.argsort())
        xyxy = found.xyxy.take(cols, axis=0)
        mean, cov = rows["mean"][at].copy("F"), rows["cov"][at].copy("F")
        kalman.correct(mean, cov, self._motion.encode(xyxy), self._motion.measurement(mean))
        rows["mean"][at], rows["cov"][at] = mean, cov
        rows["observed"][at] = xyxy
        rows["seen_ns"][at] = self._of_rows(captured_ns, rows["camera"][at])
        score = found.score.take(cols)
        rows["score"][at] = score
        rows["score_sum"][at] += score
        rows["hits"][at] += 1
        rows["class_id"][at] = found.class_id.take(cols)
        rows["detection"][at] = found.source_row.take(cols)

    def _rename_confirmed(self, captured_ns: Times) -> None:
        """Move detected tracks to `CONFIRMED`; newly confirmed ones get their id."""
        rows = self._rows
        detected = rows["detection"] != NO_DETECTION
        resumed = (detected & (rows["state"] == LOST)).nonzero()[0]
        if len(resumed):
            rows["state"][resumed] = CONFIRMED
            self._note("resumed", captured_ns, rows.take(resumed))
        new = (detected & (rows["state"] == TENTATIVE) & self._proven(rows)).nonzero()[0]
        if len(new):
            self._name(rows, new, captured_ns)
            self._rows = self._in_order(rows)

    def _in_order(self, rows: Rows) -> Rows:
        """Return the rows sorted by camera and id."""
        if self._fleet is not None:
            return rows.take(np.lexsort((rows["track_id"], rows["camera"])))
        return rows.take(np.argsort(rows["track_id"], kind="stable"))

    def _name(self, rows: Rows, new: Index, captured_ns: Times) -> None:
        rows["state"][new] = CONFIRMED
        rows["track_id"][new] = self._numbers(rows["camera"].take(new))
        self._note("new", captured_ns, rows.take(new))

    def _numbers(self, camera: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the next ids, one for each row, given the column of their cameras."""
        if self._fleet is not None:
            return self._fleet.numbers(camera)
        first, self._next_id = self._next_id, self._next_id + len(camera)
        return np.arange(first, self._next_id)

    def _retire(self, captured_ns: Times) -> None:
        """Mark undetected tracks as lost, forget tentative ones immediately and lost ones after `lost_s`."""
        rows = self._rows
        unseen = (rows["detection"] == NO_DETECTION).nonzero()[0]
        if not len(unseen):
            return
        now_ns = self._of_rows(captured_ns, rows["camera"].take(unseen))
        state, unseen_s = rows["state"][unseen], (now_ns - rows["seen_ns"][unseen]) / NS_PER_S
        gone = (state == TENTATIVE) | (unseen_s > self.lost_s)
        lost = unseen[(state == CONFIRMED) & ~gone & ~self._stays(unseen, unseen_s)]
        if len(lost):
            rows["state"][lost] = LOST
            self._note("lost", captured_ns, rows.take(lost))
        self._remove(unseen[gone], captured_ns)

    def _remove(self, gone: Index, captured_ns: Times) -> None:
        if not len(gone):
            return
        self._end(self._rows.take(gone), captured_ns)
        keep = np.ones(len(self._rows), np.bool_)
        keep[gone] = False
        self._rows = self._rows.compress(keep)

    def _end(self, rows: Rows, captured_ns: Times) -> None:
        self._note("ended", captured_ns, rows.compress(rows["state"] != TENTATIVE))

    def _bear(self, births: Index, found: Found, captured_ns: Times) -> None:
        """Begin tracks; those on the first frame, or for which one detection suffices, are confirmed immediately."""
        if not len(births):
            return
        rows = np.zeros(len(births), self._rows.dtype)
        if found.camera is not None:
            rows["camera"] = found.camera.take(births)
        self._make_room(rows, captured_ns)
        rows["track_id"], rows["state"], rows["age"], rows["hits"] = UNNAMED, TENTATIVE, 1, 1
        rows["observed"] = xyxy = found.xyxy.take(births, axis=0)
        rows["mean"], rows["cov"] = kalman.start(self._motion, self._motion.encode(xyxy))
        rows["first_ns"] = rows["seen_ns"] = self._of_rows(captured_ns, rows["camera"])
        rows["score"] = rows["score_sum"] = found.score[births]
        rows["class_id"] = found.class_id[births]
        rows["detection"] = found.source_row[births]
        self._prepare(rows)
        sure = self._sure_at_birth(rows)
        if len(sure):
            self._name(rows, sure, captured_ns)
        self._rows = joined(self._rows, rows)
        if self._fleet is not None:
            self._rows = self._rows.take(np.argsort(self._rows["camera"], kind="stable"))

    def _sure_at_birth(self, rows: Rows) -> Index:
        """Return which rows are confirmed by their first detection."""
        if self._fleet is not None and self.confirm_hits > 1:
            return self._fleet.is_first.take(rows["camera"]).nonzero()[0]
        return np.arange(len(rows) if self.confirm_hits == 1 or self._detected_ns is None else 0)

    def _make_room(self, births: Rows, captured_ns: Times) -> None:
        if self._fleet is not None:
            self._remove(self._fleet.excess(self._rows, births, 2 * self.max_objects), captured_ns)
            return
        excess = len(self._rows) + len(births) - 2 * self.max_objects
        if excess > 0:
            longest_unseen = np.argsort(self._rows["seen_ns"], kind="stable")[:excess]
            self._remove(longest_unseen, captured_ns)

    def _tracks(self, visible: Mask) -> Tracks:
        rows = self._rows if visible.all() else self._rows.compress(visible)
        xyxy = self._motion.decode(rows["mean"]).astype(np.float32, order="C")
        return Tracks(xyxy, *(rows[name].copy() for name in _SHOWN))

    def _predicted_tracks(self, captured_ns: int) -> Tracks:
        limit_ns = max(self.lost_s, PREDICTED_S) * NS_PER_S
        recent = captured_ns - self._rows["seen_ns"] <= limit_ns
        return self._tracks((self._rows["state"] == CONFIRMED) & recent)
