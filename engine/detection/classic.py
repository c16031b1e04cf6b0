"""Detectors without a neural network: moving blobs, and people by HOG and a linear SVM.

Both run synchronously, so a pending is already finished; both need only OpenCV.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from engine.boxes import clip
from engine.data import Detections, Frame
from engine.detection.nms import nms
from engine.errors import ConfigError, MissingDependencyError
from engine.protocols import DetectorFacts

MS_PER_S = 1e3
FORGET_NS = 10_000_000_000
"""Checked when a new source appears."""
PERSON_INSET = np.array([0.235, 0.127, 0.235, 0.16], np.float32)
"""From the SVM's window to the person in it, as shares of its width and height: left, top, right, bottom. The SVM was
trained on people with a border around them; medians against yolo11n on 42 frames of two videos and two images."""
WINDOW_IOU = 0.3
"""Windows that overlap by more are the same person. On those frames, at a score of 0.5, this finds 61 people with 12
errors; OpenCV's own grouping of windows 42 with 34."""
SCORE_SLOPE, SCORE_MIDDLE = np.float32(2.43), np.float32(0.58)
"""Logistic regression from the distance to the SVM's plane to the share of windows that show a person, likewise."""
HOG_REMEDY = (
    "install OpenCV with its contrib modules instead, pip install --force-reinstall --no-deps opencv-contrib-python, "
    "or use a model"
)


class ReadyDetections:
    """Detections that are already available."""

    def __init__(self, detections: list[Detections], stage_ms: dict[str, float]) -> None:
        self._detections = detections
        self.stage_ms = stage_ms

    def result(self) -> list[Detections]:
        """Return one `Detections` per submitted frame."""
        return self._detections


class ClassicDetector:
    """Base of both: one frame at a time, nothing to load. Subclasses define `find`."""

    name = "classic"
    class_names: tuple[str, ...] = ()
    backend = "opencv"
    backend_reason = "needs no network"
    precision = "uint8"
    max_batch = 1
    depth = 1

    def describe(self) -> DetectorFacts:
        """Return OpenCV as the backend."""
        return DetectorFacts(self.backend, reason=self.backend_reason)

    def open(self) -> None:
        """Nothing to load."""

    def find(self, frame: Frame) -> Detections:
        """Return the objects on a frame."""
        raise NotImplementedError

    def submit(self, frames: Sequence[Frame]) -> ReadyDetections:
        """Detect on one frame, now. Raises `ConfigError` for more or fewer frames."""
        if len(frames) != 1:
            raise ConfigError(f"{len(frames)} frames submitted: expected 1")
        started = time.perf_counter()
        found = self.find(frames[0])
        return ReadyDetections([found], {"infer": (time.perf_counter() - started) * MS_PER_S})

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect on any number of frames, in order."""
        self.open()
        return [self.find(frame) for frame in frames]

    def close(self) -> None:
        """Nothing to free."""


class MotionDetector(ClassicDetector):
    """Blobs that differ from a background learnt per source (MOG2, Zivkovic 2004).

    The score of a blob is the share of its box that moves. Needs a fixed camera.

    Args:
        min_area: smallest blob, as a share of the frame.
        history: frames over which the background is learnt.
        sensitivity: squared distance from the background, in variances, that counts as motion; lower is more sensitive.
        scale_to: length of the longer side, in pixels, at which motion is detected.

    Raises:
        ConfigError: a number is out of range.
    """

    name = "motion"
    class_names = ("motion",)

    def __init__(
        self, *, min_area: float = 0.0005, history: int = 300, sensitivity: float = 25.0, scale_to: int = 480
    ) -> None:
        if not 0 < min_area < 1 or history < 2 or sensitivity <= 0 or scale_to < 32:
            raise ConfigError(
                f"min_area {min_area}, history {history}, sensitivity {sensitivity}, scale_to {scale_to}: "
                "expected a share below 1, at least 2 frames, a positive number, and at least 32 pixels"
            )
        self._min_area = min_area
        self._history = history
        self._sensitivity = sensitivity
        self._scale_to = scale_to
        self._backgrounds: dict[str, Any] = {}
        self._seen_ns: dict[str, int] = {}
        self._kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))

    def find(self, frame: Frame) -> Detections:
        """Return the moving blobs of a frame and learn from it; the first frame of a source shows none."""
        scale = min(1.0, self._scale_to / max(frame.width, frame.height))
        size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        first = frame.source_id not in self._backgrounds
        if first:
            background = cv2.createBackgroundSubtractorMOG2(self._history, self._sensitivity, detectShadows=True)
            self._forget_before(frame.captured_ns - FORGET_NS)
            self._backgrounds[frame.source_id] = background
        self._seen_ns[frame.source_id] = frame.captured_ns
        mask = self._backgrounds[frame.source_id].apply(small)
        if first:
            return Detections.empty()
        moving = cv2.threshold(mask, 200, 255, cv2.THRESH_BINARY)[1]  # shadows are 127
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, self._kernel)
        moving = cv2.dilate(moving, self._kernel, iterations=2)
        return self._blobs(moving, frame)

    def _forget_before(self, limit_ns: int) -> None:
        """Free the backgrounds of inactive sources: each takes more than a megabyte."""
        for name in [name for name, seen_ns in self._seen_ns.items() if seen_ns < limit_ns]:
            del self._seen_ns[name], self._backgrounds[name]

    def _blobs(self, moving: Any, frame: Frame) -> Detections:
        """Return the connected parts of a mask, in pixels of the frame."""
        rows, columns = moving.shape
        stats = cv2.connectedComponentsWithStats(moving, connectivity=8)[2][1:]
        stats = stats[stats[:, cv2.CC_STAT_AREA] >= self._min_area * rows * columns].astype(np.float32)
        scale = np.array([frame.width / columns, frame.height / rows] * 2, np.float32)
        xyxy = np.concatenate((stats[:, :2], stats[:, :2] + stats[:, 2:4]), axis=1) * scale
        score = stats[:, 4] / np.maximum(stats[:, 2] * stats[:, 3], 1)
        order = np.argsort(-stats[:, 4], kind="stable")
        return Detections(xyxy[order], score[order], np.zeros(len(order), np.int32))

    def close(self) -> None:
        """Forget the backgrounds."""
        self._backgrounds.clear()
        self._seen_ns.clear()


class HogPeopleDetector(ClassicDetector):
    """Upright people of 128 rows and more, by HOG and OpenCV's linear SVM (Dalal and Triggs 2005).

    Args:
        score_threshold: lowest score, which approximates the probability that the box shows a person.
        stride: step of the search window in pixels, a multiple of 8; larger is faster and misses more.
        scale: step from one size of the search to the next.

    Raises:
        MissingDependencyError: this OpenCV has no HOG (version 5 has it in its contrib modules only).
    """

    name = "hog-people"
    class_names = ("person",)

    def __init__(self, *, score_threshold: float = 0.5, stride: int = 8, scale: float = 1.05) -> None:
        if not 0 <= score_threshold <= 1 or stride < 8 or stride % 8 or scale <= 1:
            raise ConfigError(
                f"score_threshold {score_threshold}, stride {stride}, scale {scale}: "
                "expected 0 to 1, a multiple of 8, and more than 1"
            )
        if not hasattr(cv2, "HOGDescriptor"):
            raise MissingDependencyError(f"OpenCV {cv2.__version__} has no HOG detector: {HOG_REMEDY}")
        self._score_threshold = score_threshold
        self._stride = stride
        self._scale = scale
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def find(self, frame: Frame) -> Detections:
        """Return the people on a frame."""
        step = (self._stride, self._stride)
        options = {"winStride": step, "padding": (8, 8), "scale": self._scale, "groupThreshold": 0}
        tlwh, weight = self._hog.detectMultiScale(frame.image, **options)
        windows = np.asarray(tlwh, np.float32).reshape(-1, 4)
        score = 1 / (1 + np.exp(SCORE_SLOPE * (SCORE_MIDDLE - np.asarray(weight, np.float32).ravel())))
        passed = score > self._score_threshold
        windows, score = windows[passed], score[passed]
        corner, size = windows[:, :2], windows[:, 2:]
        person = np.zeros(len(score), np.int32)
        kept = nms(np.concatenate((corner, corner + size), axis=1), score, person, WINDOW_IOU)
        xyxy = np.concatenate((corner + size * PERSON_INSET[:2], corner + size * (1 - PERSON_INSET[2:])), axis=1)
        return Detections(clip(xyxy[kept], frame.width, frame.height), score[kept], person[kept])
