"""What the pipeline relies on in a detector and in a head."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from engine.data import Detections, Frame
from engine.detection.heads.base import Head, Outputs
from engine.protocols import Detector
from engine.testing.contracts.base import PATIENCE_S, ensure, frame, run_all

MakeDetector = Callable[[], Detector]


def it_says_what_it_is(make: MakeDetector) -> None:
    """Name, classes, batch and depth are known before it is open."""
    detector = make()
    ensure(isinstance(detector, Detector), f"the members of engine.Detector; found {type(detector).__name__}")
    ensure(detector.name, "a name")
    ensure(all(isinstance(name, str) for name in detector.class_names), "class_names are texts")
    ensure(detector.max_batch >= 1, f"max_batch is 1 or more; found {detector.max_batch}")


def any_number_of_frames_gives_a_result_each_in_order(make: MakeDetector) -> None:
    """`detect` takes frames of any size and number and opens the detector by itself."""
    detector = make()
    frames = [frame(0), frame(1, width=160, height=48), frame(2, width=33, height=97)]
    try:
        _check_results(detector, frames, detector.detect(frames))
        ensure(list(detector.detect([])) == [], "no frames give no results")
    finally:
        detector.close()


def submissions_give_what_detect_gives(make: MakeDetector) -> None:
    """`depth` submissions of `max_batch` frames are in flight; results are taken in order on another thread."""
    detector = make()
    detector.open()
    try:
        ensure(detector.depth >= 1, f"depth is 1 or more once it is open; found {detector.depth}")
        batches = [
            [frame(batch * detector.max_batch + index) for index in range(detector.max_batch)]
            for batch in range(min(detector.depth, 4))
        ]
        pending = [detector.submit(batch) for batch in batches]
        results: list[list[Detections]] = []
        thread = threading.Thread(target=lambda: results.extend(one.result() for one in pending), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        ensure(len(results) == len(batches), f"results come on another thread within {PATIENCE_S:.0f} s")
        for batch, found, one in zip(batches, results, pending, strict=True):
            _check_results(detector, batch, found)
            ensure(all(spent >= 0 for spent in one.stage_ms.values()), "stage_ms has milliseconds by step")
            expected = detector.detect(batch)
            same = all(np.allclose(a.xyxy, b.xyxy, atol=0.5) for a, b in zip(found, expected, strict=True) if len(a))
            ensure(same, "submit and detect find the same boxes")
    finally:
        detector.close()


def frames_are_not_changed(make: MakeDetector) -> None:
    """Images are shared and read-only."""
    detector, given = make(), frame(3)
    before = given.image.copy()
    try:
        detector.detect([given])
    finally:
        detector.close()
    ensure((given.image == before).all(), "the pixels of a frame stay as they are")


def closing_is_harmless_when_repeated(make: MakeDetector) -> None:
    """`close` may come before `open`, and twice; the detector opens again after it."""
    detector = make()
    detector.close()
    detector.open()
    detector.close()
    detector.close()
    detector.open()
    detector.close()


def _check_results(detector: Detector, frames: Sequence[Frame], results: Sequence[Detections]) -> None:
    ensure(len(results) == len(frames), f"one result per frame: {len(results)} for {len(frames)} frames")
    for shown, found in zip(frames, results, strict=True):
        ensure(isinstance(found, Detections), f"results are Detections; found {type(found).__name__}")
        ensure(np.isfinite(found.xyxy).all(), "boxes are finite")
        ensure((found.xyxy[:, 2:] >= found.xyxy[:, :2]).all(), "x2 and y2 are not below x1 and y1")
        ensure((found.xyxy >= -1).all(), "boxes begin on the frame")
        ensure(
            (found.xyxy <= np.array([shown.width, shown.height] * 2, np.float32) + 1).all(), "boxes end on the frame"
        )
        ensure(((found.score >= 0) & (found.score <= 1)).all(), "scores are in [0, 1]")
        count = len(detector.class_names)
        ensure(not count or (found.class_id < count).all(), f"class ids are below {count}, as there are names")


DETECTOR_CHECKS = (
    it_says_what_it_is,
    any_number_of_frames_gives_a_result_each_in_order,
    submissions_give_what_detect_gives,
    frames_are_not_changed,
    closing_is_harmless_when_repeated,
)


def check_detector(make: MakeDetector) -> None:
    """Check a detector against its contract.

    Args:
        make: returns a new detector each time, not yet open.

    Raises:
        ContractError: the detector breaks its contract.
    """
    run_all(DETECTOR_CHECKS, make)


def candidates_are_rows_above_the_threshold(head: Head, outputs: Outputs) -> None:
    """All columns have equally many rows, of the right types, and scores above the threshold."""
    for threshold in (0.0, 0.25, 0.9):
        found = head.find(outputs, 0, threshold)
        ensure(found.xyxy.shape == (len(found), 4), f"xyxy is ({len(found)}, 4); found {found.xyxy.shape}")
        ensure(found.class_id.shape == (len(found),), "class_id has a row per box")
        ensure(found.xyxy.dtype == np.float32 and found.class_id.dtype == np.int32, "float32 boxes, int32 classes")
        ensure((found.score > threshold).all(), f"scores are above {threshold}")


def values_that_are_no_number_give_no_box(head: Head, outputs: Outputs) -> None:
    """A model that computes NaN or infinity yields no candidates and does not fail."""
    for value in (np.nan, np.inf, -np.inf):
        wrong = [np.full_like(one, value) if one.dtype.kind == "f" else one for one in outputs]
        found = head.find(wrong, 0, 0.25)
        ensure(np.isfinite(found.xyxy).all(), f"outputs of {value} give no boxes")


def nms_keeps_rows_that_exist(head: Head, outputs: Outputs) -> None:
    """`suppress` returns row numbers, each once, the best score first."""
    found = head.find(outputs, 0, 0.05)
    kept = head.suppress(found, 0.5)
    ensure(len(set(kept.tolist())) == len(kept), "no row is kept twice")
    ensure(((kept >= 0) & (kept < len(found))).all(), "kept rows exist")
    ensure((np.diff(found.score[kept]) <= 0).all(), "kept rows come in descending order of score")


HEAD_CHECKS = (
    candidates_are_rows_above_the_threshold,
    values_that_are_no_number_give_no_box,
    nms_keeps_rows_that_exist,
)


def check_head(head: Head, outputs: Outputs) -> None:
    """Check a head against its contract.

    Args:
        head: decodes the outputs.
        outputs: of a model of its layout, (1, ...) each, with at least one object.

    Raises:
        ContractError: the head breaks its contract.
    """
    run_all(HEAD_CHECKS, head, outputs)
