"""Cameras of further aspect ratios: detected on a loaded size at once, while theirs loads in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.base import Backend, BackendOptions
from engine.data import Detections, Frame
from engine.detection import load
from engine.detection.detector import ModelDetector, PendingBatch
from engine.detection.load import load_detector
from engine.errors import ModelError
from tests.detection.test_shapes import save_cells

WIDE, TALL, OWN = (32, 64), (64, 32), (64, 64)
LIMIT_S = 30.0


class SlowBackends:
    """Real backends whose `open` waits at one size until the test lets it go on, and fails there if told to."""

    def __init__(self, create: Any, slow_hw: tuple[int, int]) -> None:
        self._create = create
        self._slow_hw = slow_hw
        self.may_open = threading.Event()
        self.failure: Exception | None = None
        self.closed: list[tuple[int, int]] = []

    def create(self, name: str, path: Path, options: BackendOptions) -> Backend:
        backend: Any = self._create(name, path, options)
        size_hw, opened, closed = options.image.size_hw, backend.open, backend.close

        def open_slowly() -> None:
            if size_hw == self._slow_hw:
                assert self.may_open.wait(LIMIT_S)
                if self.failure is not None:
                    raise self.failure
            opened()

        def close() -> None:
            self.closed.append(size_hw)
            closed()

        backend.open, backend.close = open_slowly, close
        return backend  # type: ignore[no-any-return]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowBackends]:
    """The tall size opens slowly."""
    backends = SlowBackends(load.create_backend, TALL)
    monkeypatch.setattr(load, "create_backend", backends.create)
    yield backends
    backends.may_open.set()
    loaders_end()


def loaders_end() -> None:
    for thread in threading.enumerate():
        if thread.name == "size-loader":
            thread.join(LIMIT_S)
            assert not thread.is_alive()


def detector_of(tmp_path: Path, **options: Any) -> ModelDetector:
    given: dict[str, Any] = {"backend": "onnxruntime", "score_threshold": 0.6, "letterbox": "top_left", "size": "auto"}
    given |= {"waits": lambda source_id: source_id == "file"}
    return load_detector(save_cells(tmp_path / "m.onnx"), **given | options)


def wide(source_id: str = "wide") -> Frame:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:32, 32:64] = 255
    return Frame(image, source_id, 0, 0, 0)


def tall(source_id: str = "tall") -> Frame:
    image = np.zeros((128, 64, 3), np.uint8)
    image[32:64, :32] = 255
    return Frame(image, source_id, 0, 0, 0)


def size_of(pending: PendingBatch) -> tuple[int, int]:
    [(sized, _, _)] = pending._parts
    return sized.facts.size_hw


def sizes_of_both(detector: ModelDetector) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the sizes at which the objects of both cameras are found, both frames in flight at once."""
    pending = detector.submit([tall()]), detector.submit([wide()])
    used = size_of(pending[0]), size_of(pending[1])
    assert has_box(pending[0].result()[0], 0, 32, 32, 64)
    assert has_box(pending[1].result()[0], 32, 0, 64, 32)
    return used


def has_box(found: Detections, *xyxy: float) -> bool:
    return bool(np.isclose(found.xyxy, xyxy, atol=1e-3).all(axis=1).any())


def test_a_camera_of_another_aspect_holds_up_nobody_and_is_detected_at_once(tmp_path: Path, slow: SlowBackends) -> None:
    with detector_of(tmp_path, expected_wh=[(128, 64)]) as detector:
        for _ in range(3):
            assert sizes_of_both(detector) == (WIDE, WIDE)
        slow.may_open.set()
        loaders_end()
        assert sizes_of_both(detector) == (TALL, WIDE)


def test_a_batch_in_flight_keeps_its_size_when_another_is_ready(tmp_path: Path, slow: SlowBackends) -> None:
    with detector_of(tmp_path) as detector:
        assert detector.size_hw == OWN  # the guess: 16:9 of 64 pixels is 36 rows
        first = detector.submit([tall()])
        slow.may_open.set()
        loaders_end()
        second = detector.submit([tall()])
        assert (size_of(first), size_of(second)) == (OWN, TALL)
        assert OWN not in slow.closed
        assert all(has_box(pending.result()[0], 0, 32, 32, 64) for pending in (first, second))
        detector.detect([tall()])
        assert slow.closed == [OWN]
        assert detector.size_hw == TALL


def test_a_wrong_guess_is_not_freed_under_a_batch_that_also_waits(tmp_path: Path, slow: SlowBackends) -> None:
    slow.may_open.set()
    with detector_of(tmp_path) as detector:
        detector._sizes.begin_batch()
        sizes = [detector._sizes.of(frame).facts.size_hw for frame in (tall(), tall("file"))]
        assert sizes == [OWN, TALL]
        assert slow.closed == []
        detector._sizes.begin_batch()
        assert slow.closed == [OWN]


def test_frames_of_a_file_wait_so_that_its_results_are_the_same_on_every_run(
    tmp_path: Path, slow: SlowBackends
) -> None:
    runs = []
    for may_open in (True, False):
        slow.may_open.clear()
        opener = threading.Timer(0.0 if may_open else 0.2, slow.may_open.set)
        opener.start()
        with detector_of(tmp_path, expected_wh=[(128, 64)]) as detector:
            pending = [detector.submit([tall("file")]) for _ in range(2)]
            assert [size_of(one) for one in pending] == [TALL, TALL]
            runs.append([one.result()[0] for one in pending])
        opener.join()
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.xyxy, other.xyxy)
        np.testing.assert_array_equal(one.score, other.score)


def test_a_file_waits_for_the_size_that_a_camera_has_begun_to_load(tmp_path: Path, slow: SlowBackends) -> None:
    with detector_of(tmp_path, expected_wh=[(128, 64)]) as detector:
        detector.submit([tall()]).result()
        slow.may_open.set()
        pending = detector.submit([tall("file")])
        assert size_of(pending) == TALL
        assert len(pending.result()[0])


def test_closing_does_not_wait_for_a_size_that_is_being_loaded(tmp_path: Path, slow: SlowBackends) -> None:
    detector = detector_of(tmp_path, expected_wh=[(128, 64)])
    with detector:
        detector.submit([tall()]).result()
    assert WIDE in slow.closed
    assert TALL not in slow.closed
    slow.may_open.set()
    loaders_end()
    assert TALL in slow.closed


def test_a_graph_that_fails_in_the_background_leaves_all_at_its_own_size(
    tmp_path: Path, slow: SlowBackends, caplog: pytest.LogCaptureFixture
) -> None:
    slow.failure = ModelError("no such size")
    slow.may_open.set()
    with caplog.at_level(logging.INFO, "engine.detection.input_size.sizes"), detector_of(tmp_path) as detector:
        for _ in range(2):
            assert has_box(detector.submit([tall()]).result()[0], 0, 32, 32, 64)
            loaders_end()
        assert sizes_of_both(detector) == (OWN, OWN)
    assert "stays at its own size: no such size" in caplog.text


def test_a_model_whose_own_size_fails_in_the_background_keeps_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backends = SlowBackends(load.create_backend, OWN)
    backends.failure = ModelError("out of memory")
    backends.may_open.set()
    monkeypatch.setattr(load, "create_backend", backends.create)
    square = Frame(np.full((64, 64, 3), 255, np.uint8), "square", 0, 0, 0)
    with detector_of(tmp_path, expected_wh=[(128, 64)]) as detector:
        for _ in range(3):
            pending = detector.submit([square])
            assert size_of(pending) == WIDE
            assert len(pending.result()[0])
            loaders_end()
    assert caplog.text.count("out of memory") == 1


def test_another_error_in_the_background_is_raised(tmp_path: Path, slow: SlowBackends) -> None:
    slow.failure = RuntimeError("a mistake")
    slow.may_open.set()
    with detector_of(tmp_path, expected_wh=[(128, 64)]) as detector:
        detector.submit([tall()]).result()
        loaders_end()
        with pytest.raises(RuntimeError, match="a mistake"):
            detector.submit([wide()])
