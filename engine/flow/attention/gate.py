"""Per-camera gating: ignore uninteresting regions and motionless frames.

rules = {"gate": FrameGate(regions=[[(0, 200), (640, 200), (640, 480), (0, 480)]], motion_gate=MotionGate())}
Pipeline(sources, detector, tracker, rules=rules)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import Detections
from engine.errors import ConfigError
from engine.flow.attention.planner import RegionWindows
from engine.flow.attention.small import small_copy

logger = logging.getLogger(__name__)
Polygon = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class FrameGate:
    """Rules of one source; polygons are in pixels of the source frame.

    Attributes:
        regions: keep detections that stand in one of these; empty keeps all.
        ignore: drop detections that stand in one of these.
        motion_gate: skip the detector while nothing moves; None always detects.
        classes: names or ids to keep; None keeps all.
        score_threshold: drop detections with a lower score.
        min_area: drop boxes with a smaller area, in square pixels.
        max_fps: maximum frames per second; excess frames are dropped before detection, under the cause `max_fps`.
        detect_hz: maximum detections per second; tracks are predicted on the frames in between. `auto`: as many as
            the tracks need (`engine.flow.attention.pace`). None: the pipeline's `detect_every` applies.
        windows: detect on parts of the frames where little happens, in place of the motion gate; None: on whole frames.
    """

    regions: Sequence[Polygon] = ()
    ignore: Sequence[Polygon] = ()
    motion_gate: MotionGate | None = None
    classes: tuple[str | int, ...] | None = None
    score_threshold: float = 0.0
    min_area: float = 0.0
    max_fps: float | None = None
    detect_hz: float | Literal["auto"] | None = None
    windows: RegionWindows | None = None

    def __post_init__(self) -> None:
        if self.windows is not None and self.motion_gate is not None:
            raise ConfigError("windows already skip frames without motion: leave out motion_gate")
        for polygon in (*self.regions, *self.ignore):
            if len(polygon) < 3 or not np.isfinite(np.asarray(polygon, float)).all():
                raise ConfigError(f"polygon {polygon} encloses no area: give 3 or more points as [x, y] in pixels")
            if np.max(polygon) <= 1:
                raise ConfigError(
                    f"polygon {polygon} is one pixel: points are [x, y] in pixels of the frame, not shares of it"
                )

    def outside(self, width: int, height: int) -> list[Polygon]:
        """Return the polygons that lie entirely outside a frame and so match nothing."""
        corners = ((polygon, np.asarray(polygon, float)) for polygon in (*self.regions, *self.ignore))
        return [
            polygon
            for polygon, points in corners
            if (points.min(axis=0) >= (width, height)).any() or (points.max(axis=0) < 0).any()
        ]

    def keep(self, detections: Detections, class_names: Sequence[str] = ()) -> Detections:
        """Return the detections of interest; an object stands at the middle of its lower edge.

        >>> square = [(0, 0), (10, 0), (10, 10), (0, 10)]
        >>> FrameGate(regions=[square]).keep(Detections([[2, 2, 6, 8], [2, 2, 6, 30]], [0.9, 0.9], [0, 0])).xyxy
        array([[2., 2., 6., 8.]], dtype=float32)
        """
        detections = self._keep_kinds(detections, class_names) if self._is_choosy else detections
        if not len(detections) or not (self.regions or self.ignore):
            return detections
        middle = (detections.xyxy[:, 0] + detections.xyxy[:, 2]) / np.float32(2)
        feet: NDArray[np.float32] = np.stack((middle, detections.xyxy[:, 3]), axis=1)
        wanted = _inside_any(feet, self.regions) if self.regions else np.ones(len(detections), np.bool_)
        return detections[wanted & ~_inside_any(feet, self.ignore)]

    @property
    def _is_choosy(self) -> bool:
        return self.classes is not None or self.score_threshold > 0 or self.min_area > 0

    def _keep_kinds(self, detections: Detections, class_names: Sequence[str]) -> Detections:
        """Return the detections of the wanted classes, scores and sizes."""
        sides = detections.xyxy[:, 2:] - detections.xyxy[:, :2]
        wanted = (detections.score >= self.score_threshold) & (sides[:, 0] * sides[:, 1] >= self.min_area)
        if self.classes is not None:
            wanted &= np.isin(detections.class_id, _ids_of(self.classes, tuple(class_names)))
        return detections[wanted]


@lru_cache(maxsize=256)
def _ids_of(classes: tuple[str | int, ...], names: tuple[str, ...]) -> list[int]:
    """Return the ids of classes given by name (case-insensitive) or id; a name that the model lacks is logged."""
    by_name = {name.lower(): index for index, name in enumerate(names)}
    ids = [entry if isinstance(entry, int) else by_name.get(entry.strip().lower(), -1) for entry in classes]
    unknown = [str(entry) for entry, index in zip(classes, ids, strict=True) if index < 0]
    if unknown:
        logger.error("the model has no class %s: no detection of it is kept", ", ".join(unknown))
    return ids


class RateLimit:
    """Selects the frames of a source that stay within a rate; bursts are thinned evenly.

    >>> limit = RateLimit()
    >>> [limit.admits(n * 40_000_000, 10) for n in range(6)]  # 25 frames per second
    [True, False, False, True, False, True]
    """

    def __init__(self) -> None:
        self._due_ns: int | None = None

    def admits(self, time_ns: int, max_fps: float) -> bool:
        """Return whether a frame of this time is within the rate; call from one thread only.

        Args:
            time_ns: time of the frame; a step back restarts the limit.
            max_fps: frames per second.
        """
        interval_ns = int(NS_PER_S / max_fps)
        due_ns = self._due_ns
        if due_ns is not None and due_ns - 2 * interval_ns <= time_ns < due_ns:
            return False
        is_on_time = due_ns is not None and due_ns <= time_ns < due_ns + interval_ns
        self._due_ns = (due_ns if is_on_time and due_ns is not None else time_ns) + interval_ns
        return True


def _inside_any(points: NDArray[np.float32], polygons: Sequence[Polygon]) -> NDArray[np.bool_]:
    """Return which of (N, 2) points lie in or on any polygon."""
    inside = np.zeros(len(points), np.bool_)
    for polygon in polygons:
        contour = np.asarray(polygon, np.float32)
        inside |= [cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in points]
    return inside


_VIDEO_RANGE = 219 / 255


@dataclass(slots=True)
class MotionGate:
    """Detects whether a frame differs from the last one that the detector ran on; 0.1 to 0.4 ms per frame.

    It compares a small grey copy with that frame, so that slow changes add up and are noticed. The copy is made from
    the decoded brightness plane if the frame has one, and from a subset of the rows.

    Attributes:
        min_share: share of the frame that must change; raise it to ignore more.
        min_difference: grey levels by which a pixel must change; raise it for noisy cameras.
        max_hold_s: seconds after which the detector runs even without motion.
    """

    min_share: float = 0.0005
    min_difference: int = 16
    max_hold_s: float = 2.0
    _reference: NDArray[np.uint8] | None = field(default=None, repr=False)
    _detected_ns: int = 0
    _shape: tuple[int, ...] = ()

    SIDE = 192  # longer side of the small copy in pixels: a distant person still covers a few pixels

    def __post_init__(self) -> None:
        if not 0 < self.min_share <= 1 or not 0 < self.min_difference < 256 or not self.max_hold_s > 0:
            raise ConfigError("motion gate: min_share must be in (0, 1], min_difference in 1..255, max_hold_s above 0")

    def is_due(self, image: NDArray[np.uint8], captured_ns: int) -> bool:
        """Return whether the detector must run on this frame; if so, it becomes the new reference.

        Args:
            image: (H, W, 3) BGR, or (H, W) brightness of video, whose 219 levels are scaled to 255.
            captured_ns: time of the frame.
        """
        small = self._small(image)
        before = self._reference
        held_s = (captured_ns - self._detected_ns) / NS_PER_S
        if before is not None and self._shape == image.shape and 0 <= held_s < self.max_hold_s:
            least = self.min_difference if image.ndim == 3 else round(self.min_difference * _VIDEO_RANGE)
            changed = cv2.compare(cv2.absdiff(small, before), max(least, 1), cv2.CMP_GE)
            if cv2.countNonZero(changed) < self.min_share * changed.size:
                return False
        self._reference, self._detected_ns, self._shape = small, captured_ns, image.shape
        return True

    def reset(self) -> None:
        """Forget the reference: the detector must run on the next frame."""
        self._reference = None

    def _small(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        scale = min(1.0, self.SIDE / max(height, width))
        return small_copy(image, (max(round(width * scale), 1), max(round(height * scale), 1)))


NO_RULES = FrameGate()


SourceRules = FrameGate
"""The name of `FrameGate` in version 0.1."""
