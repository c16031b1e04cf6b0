from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait

import numpy as np
import pytest

from engine.data import Detections, Frame
from engine.errors import ModelError
from pipelines.serving.budget import Budget
from pipelines.serving.refusals import BusyError, NotReadyError
from pipelines.serving.worker import Found, ModelWorker
from tests.fakes import PixelDetector
from tests.serving import worker_of
from tests.web_server import PATIENCE_S


class HeldDetector(PixelDetector):
    """Detects only while `go` is set."""

    def __init__(self, max_batch: int = 1) -> None:
        super().__init__(depth=1, max_batch=max_batch)
        self.go = threading.Event()
        self.began = threading.Event()

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self.began.set()
        assert self.go.wait(PATIENCE_S)
        return super().detect(frames)


def _started(worker: ModelWorker) -> ModelWorker:
    worker.start()
    worker.opened.result(PATIENCE_S)
    return worker


def _image(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def _class_of(future: Future[Found]) -> int:
    return int(future.result(PATIENCE_S).detections.class_id[0])


@pytest.mark.parametrize(("depth", "max_batch"), [(1, 1), (3, 1), (2, 4)])
def test_each_request_gets_the_result_of_its_own_image(depth: int, max_batch: int) -> None:
    worker = _started(worker_of(PixelDetector(depth=depth, max_batch=max_batch, work_s=0.001), places=200))
    futures = [worker.submit(_image(value)) for value in range(200)]
    assert [_class_of(future) for future in futures] == list(range(200))
    assert worker.done == 200
    worker.close()


def test_requests_that_wait_share_a_batch() -> None:
    detector = HeldDetector(max_batch=4)
    worker = _started(worker_of(detector, places=9))
    first = worker.submit(_image(0))
    assert detector.began.wait(PATIENCE_S)
    others = [worker.submit(_image(value)) for value in range(1, 9)]
    detector.go.set()
    assert [_class_of(future) for future in [first, *others]] == list(range(9))
    assert [len(batch) for batch in detector.batches] == [1, 4, 4]
    worker.close()


def test_without_a_place_a_request_is_refused_at_once_and_places_come_back() -> None:
    detector = HeldDetector()
    worker = _started(worker_of(detector, places=2))
    held = [worker.submit(_image(value)) for value in range(2)]
    with pytest.raises(BusyError) as refused:
        worker.submit(_image(9))
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    detector.go.set()
    wait(held, PATIENCE_S)
    assert _class_of(worker.submit(_image(3))) == 3
    assert worker.refused == 1
    worker.close()


def test_a_request_that_waited_too_long_is_refused_and_not_run() -> None:
    detector = HeldDetector()
    worker = _started(worker_of(detector, places=4, max_wait_ms=1.0))
    first = worker.submit(_image(0))
    if not detector.began.wait(PATIENCE_S):
        pytest.skip("the first one waited longer than a millisecond")
    late = [worker.submit(_image(1)), worker.submit(_image(2))]
    threading.Event().wait(0.01)
    detector.go.set()
    for future in late:
        with pytest.raises(BusyError, match="waited longer"):
            future.result(PATIENCE_S)
    assert [len(batch) for batch in detector.batches] == [1]
    assert first.done()
    worker.close()


def test_a_failure_is_told_to_those_whom_it_concerns_and_the_next_goes_on() -> None:
    detector = PixelDetector(error=RuntimeError("broken"))
    worker = _started(worker_of(detector))
    with pytest.raises(ModelError, match="broken"):
        worker.submit(_image(1)).result(PATIENCE_S)
    detector.error = None
    assert _class_of(worker.submit(_image(2))) == 2
    assert worker.failed == 1
    worker.close()


def test_nobody_is_left_without_an_answer_at_the_end() -> None:
    detector = HeldDetector()
    worker = _started(worker_of(detector, places=4))
    futures = [worker.submit(_image(value)) for value in range(4)]
    assert detector.began.wait(PATIENCE_S)
    closing = threading.Thread(target=worker.close)
    closing.start()
    detector.go.set()
    closing.join(PATIENCE_S)
    assert all(future.done() for future in futures)
    assert futures[0].exception() is None
    assert isinstance(futures[3].exception(), NotReadyError)
    assert detector.events[-1] == "close on serve-model"
    with pytest.raises(NotReadyError):
        worker.submit(_image(1))


def test_a_request_whose_client_left_frees_its_place() -> None:
    detector = HeldDetector()
    worker = _started(worker_of(detector, places=2))
    gone = [worker.submit(_image(0)), worker.submit(_image(1))]
    assert gone[1].cancel()
    detector.go.set()
    wait([gone[0]], PATIENCE_S)
    while True:
        try:
            assert _class_of(worker.submit(_image(5))) == 5
            break
        except BusyError:
            continue
    worker.close()


def test_a_model_that_does_not_load_says_why() -> None:
    class Broken(PixelDetector):
        def open(self) -> None:
            raise ModelError("no such thing")

    worker = worker_of(Broken())
    worker.start()
    with pytest.raises(ModelError, match="no such thing"):
        worker.opened.result(PATIENCE_S)
    with pytest.raises(NotReadyError):
        worker.submit(_image(1))
    worker.close()


def test_a_budget_is_shared_and_given_back() -> None:
    budget = Budget(100)
    with budget.share() as first:
        first.take(90)
        with budget.share() as second:
            second.take(10)
            with pytest.raises(BusyError):
                second.take(1)
        first.give(40)
        assert budget.held == 50
    assert budget.held == 0
    with budget.share() as alone:
        alone.take(1000)  # one alone always fits
    assert budget.held == 0
