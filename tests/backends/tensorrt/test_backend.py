"""The TensorRT backend on the fake GPU: order, memory, graphs, failures, shutdown."""

from __future__ import annotations

import logging
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import BackendOptions, ClassScores, ImageInput, TensorSpec
from engine.backends.device import Pixels
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFile, read_plan_file, why_not_trusted, write_plan_file
from engine.backends.tensorrt import find_plan, read_plan
from engine.backends.tensorrt.backend import Parts, TensorRtBackend, TensorRtPending
from engine.backends.tensorrt.build_plan import BuildOptions
from engine.backends.tensorrt.find_plan import MissingPlan, plan_to_run
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.backends.tensorrt.results import Results
from engine.detection.letterbox import draw, fit
from engine.errors import ConfigError, ModelError
from engine.lazy_image import Chroma, YuvPlanes
from engine.testing.cuda import FAKE_GPU, FakeCuda
from engine.testing.tensorrt import FakeContext, FakePlan
from tests.backends.tensorrt.fake_gpu import PLAN, FakeMachine, doubled, plan_facts

SIDE = 8
OPTIONS = BackendOptions(image=ImageInput((SIDE, SIDE)), max_batch=4)


class FailAt:
    """Raises when the given operation occurs for the n-th time, and every time after that if `forever`."""

    def __init__(self, operation: str, number: int = 1, *, forever: bool = False) -> None:
        self.operation, self.left, self.forever = operation, number, forever

    def __call__(self, operation: str) -> None:
        if operation != self.operation and not (self.forever and self.left <= 0):
            return
        if operation == self.operation:
            self.left -= 1
        if self.left == 0 or (self.forever and self.left < 0):
            raise ModelError(f"{operation} failed: CUDA_ERROR_LAUNCH_FAILED (719)")


def batch_of(value: int, count: int = 1) -> NDArray[np.uint8]:
    return np.full((count, SIDE, SIDE, 3), value, np.uint8)


def value_of(pending: TensorRtPending) -> float:
    mean = float(pending.result()[1][0, 0]) * 255
    pending.release()
    return mean


def opened(machine: FakeMachine, options: BackendOptions = OPTIONS) -> TensorRtBackend:
    backend = machine.backend(options)
    backend.open()
    return backend


@pytest.mark.parametrize("is_integrated", [pytest.param(False, id="discrete"), pytest.param(True, id="integrated")])
def test_everything_taken_from_the_gpu_is_given_back(tmp_path: Path, is_integrated: bool):
    machine = FakeMachine(tmp_path, is_integrated=is_integrated)
    backend = opened(machine)
    backend.empty((4, SIDE, SIDE, 3), np.uint8)
    for value in range(12):
        value_of(backend.submit({"images": batch_of(value, 1 + value % 4)}))
    backend.submit({"images": batch_of(1)})  # still in flight when it closes
    backend.close()
    assert machine.cuda.live == 0
    assert not machine.cuda.is_open


def test_frames_under_load_come_back_in_order_and_unmixed(tmp_path: Path):
    backend = opened(FakeMachine(tmp_path))
    canvases = [backend.empty((4, SIDE, SIDE, 3), np.uint8) for _ in range(backend.depth)]
    free: Queue[NDArray[np.uint8]] = Queue()
    under_way: Queue[tuple[int, NDArray[np.uint8], TensorRtPending] | None] = Queue()
    for canvas in canvases:
        free.put(canvas)
    found: list[tuple[int, float]] = []

    def collect() -> None:
        while (entry := under_way.get()) is not None:
            number, canvas, pending = entry
            found.append((number, value_of(pending)))
            free.put(canvas)

    collector = threading.Thread(target=collect)
    collector.start()
    for number in range(400):
        canvas = free.get()
        count = 1 + number % 3
        canvas[:count] = number % 256
        under_way.put((number, canvas, backend.submit({"images": canvas[:count]})))
    under_way.put(None)
    collector.join()
    backend.close()
    assert [number for number, _ in found] == list(range(400))
    np.testing.assert_allclose([value for _, value in found], np.arange(400) % 256, atol=1e-3)


def test_a_feed_is_read_when_the_gpu_gets_to_it_and_not_before(tmp_path: Path):
    """The fake must catch the mistake that it exists for: a canvas reused too soon."""
    backend = opened(FakeMachine(tmp_path))
    canvas = backend.empty((1, SIDE, SIDE, 3), np.uint8)
    canvas[:] = 10
    pending = backend.submit({"images": canvas})
    canvas[:] = 20
    assert value_of(pending) == pytest.approx(20, abs=1e-3)
    backend.close()


def test_a_repeated_batch_size_becomes_a_graph_and_gives_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    operations: list[str] = []
    backend = opened(FakeMachine(tmp_path, before=operations.append))
    values = [value_of(backend.submit({"images": batch_of(value, 2)})) for value in range(20)]
    backend.close()
    np.testing.assert_allclose(values, range(20), atol=1e-3)
    assert operations.count("end_capture") == backend.depth
    assert "launch_graph" in operations
    assert operations[-20:].count("enqueue") == 0
    assert not caplog.records


def test_another_batch_size_leaves_the_graph_behind(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    backend = opened(machine)
    sizes = [2] * 8 + [3, 2] + [1] * 8
    values = [value_of(backend.submit({"images": batch_of(i, size)})) for i, size in enumerate(sizes)]
    backend.close()
    np.testing.assert_allclose(values, range(len(sizes)), atol=1e-3)
    assert machine.cuda.live == 0


def test_a_graph_that_gives_other_results_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    calls = 0

    def wrong_at_the_fourth(feeds):
        nonlocal calls
        calls += 1
        outputs = doubled(feeds)
        return (outputs[0] + 1, outputs[1] + 1) if calls == 4 else outputs

    backend = opened(FakeMachine(tmp_path, respond=wrong_at_the_fourth), BackendOptions(OPTIONS.image, depth=1))
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(10)]
    backend.close()
    np.testing.assert_allclose(values, range(10), atol=1e-3)
    assert "gives results that differ from the eager run" in caplog.text


@pytest.mark.parametrize("is_integrated", [pytest.param(False, id="discrete"), pytest.param(True, id="integrated")])
@pytest.mark.parametrize("kept", [0, 1], ids=["does nothing", "only the inference"])
@pytest.mark.parametrize("rows", [None, ClassScores(4, 3)], ids=["whole head", "candidates"])
def test_a_graph_that_leaves_things_out_is_found_while_the_scene_is_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: ClassScores | None, kept: int, is_integrated: bool
):
    class Lossy(FakeCuda):
        def end_capture(self, stream: int) -> int:
            graph = super().end_capture(stream)
            del self._graphs[graph][kept:]
            return graph

    score = 0.0

    def respond(feeds):
        head = np.zeros((len(feeds["images"]), 7, 21), np.float32)
        head[:, 5, 3] = score
        return [head]

    inputs = (TensorSpec("images", (None, 3, SIDE, SIDE), "float32"),)
    outputs = (TensorSpec("output0", (None, 7, 21), "float32"),)
    path = tmp_path / "empty.plan"
    write_plan_file(path, PLAN, plan_facts(inputs=inputs, outputs=outputs), {})
    parts = Parts(
        lambda: Lossy(replace(FAKE_GPU, is_integrated=is_integrated)),
        lambda cuda, file: FakePlan(cuda, inputs, outputs, respond),  # type: ignore[arg-type]
        lambda capability: b"",
        lambda: None,
    )
    backend = TensorRtBackend(path, BackendOptions(OPTIONS.image, rows, depth=1), parts=parts)
    backend.open()
    backend.keep_above(0.25)
    found = []
    for number in range(8):
        score = 0.9 if number > 4 else 0.0
        pending = backend.submit({"images": batch_of(0)})
        found.append(bool((pending.result()[0] > 0.5).any()))
        pending.release()
    backend.close()
    is_complete = rows is None and is_integrated and kept == 1  # results are where the host reads them
    assert found == [False] * 5 + [True] * 3
    assert ("gives results that differ from the eager run" in caplog.text) != is_complete


def test_a_plan_that_cannot_be_recorded_runs_without_a_graph(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    machine = FakeMachine(tmp_path, before=FailAt("end_capture", forever=False))
    backend = opened(machine, BackendOptions(OPTIONS.image, depth=1))
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(10)]
    backend.close()
    np.testing.assert_allclose(values, range(10), atol=1e-3)
    assert "cannot be recorded (end_capture failed" in caplog.text
    assert machine.cuda.live == 0


@pytest.mark.parametrize(
    "operation", ["allocate", "pinned", "create_stream", "create_event", "load_kernel"], ids=lambda name: name
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_failure_while_opening_frees_what_was_taken(tmp_path: Path, operation: str, number: int):
    machine = FakeMachine(tmp_path, before=FailAt(operation, number))
    backend = machine.backend(OPTIONS)
    with suppress(ModelError):  # not every operation comes three times
        backend.open()
    backend.close()
    assert machine.cuda.live == 0
    assert not machine.cuda.is_open


@pytest.mark.parametrize("operation", ["copy_to_gpu", "launch", "enqueue", "copy_to_host", "record"])
def test_a_failed_submission_gives_its_slot_back(tmp_path: Path, operation: str):
    machine = FakeMachine(tmp_path, before=FailAt(operation))
    backend = opened(machine)
    with pytest.raises(ModelError, match=f"{operation} failed"):
        backend.submit({"images": batch_of(1)})
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(6)]
    backend.close()
    np.testing.assert_allclose(values, range(6), atol=1e-3)
    assert machine.cuda.live == 0


def test_a_lost_gpu_is_an_error_on_every_call_and_closing_still_works(tmp_path: Path):
    machine = FakeMachine(tmp_path, before=FailAt("wait", 3, forever=True))
    backend = opened(machine)
    value_of(backend.submit({"images": batch_of(1)}))
    value_of(backend.submit({"images": batch_of(2)}))
    pending = backend.submit({"images": batch_of(3)})
    with pytest.raises(ModelError, match="LAUNCH_FAILED"):
        pending.result()
    pending.release()
    with pytest.raises(ModelError, match="LAUNCH_FAILED"):
        backend.submit({"images": batch_of(4)})
    backend.close()
    backend.close()
    assert not machine.cuda.is_open


def test_a_failing_model_is_an_error_of_its_own_batch(tmp_path: Path):
    def respond(feeds):
        if feeds["images"].max() > 0.9:
            raise ModelError("an operator failed")
        return doubled(feeds)

    backend = opened(FakeMachine(tmp_path, respond=respond))
    with pytest.raises(ModelError, match="an operator failed"):
        backend.submit({"images": batch_of(255)}).result()
    backend.close()


def test_not_enough_memory_says_what_to_do(tmp_path: Path):
    machine = FakeMachine(tmp_path, max_batch=1 << 21)
    with pytest.raises(ModelError, match=r"memory of Fake GPU .* is used up: use a smaller batch"):
        machine.backend(OPTIONS).open()
    assert machine.cuda.live == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(BackendOptions(OPTIONS.image, max_batch=5), r"up to 4, asked for 5.*--batch 1:5", id="batch"),
        pytest.param(BackendOptions(ImageInput((16, 8))), r"expected images of 8 x 16 pixels", id="size"),
        pytest.param(
            BackendOptions(ImageInput((8, 8), layout="nhwc")), r"expected images of 8 x 8 pixels", id="layout"
        ),
    ],
)
def test_options_that_the_plan_cannot_serve_are_refused(tmp_path: Path, options: BackendOptions, message: str):
    machine = FakeMachine(tmp_path)
    with pytest.raises((ConfigError, ModelError), match=message):
        machine.backend(options).open()
    assert machine.cuda.live == 0


def test_a_plan_that_takes_no_single_image_is_refused_when_it_is_opened(tmp_path: Path):
    machine = FakeMachine(tmp_path, min_batch=2)
    with pytest.raises(ConfigError, match=r"takes no batch below 2.*build it with --batch 1:4"):
        machine.backend(OPTIONS).open()
    assert machine.cuda.live == 0


def test_a_batch_beyond_the_profile_is_refused(tmp_path: Path):
    backend = opened(FakeMachine(tmp_path))
    with pytest.raises(ConfigError, match="a batch of 5: the plan takes 1 to 4"):
        backend.submit({"images": batch_of(1, 5)})
    backend.close()


def test_results_are_taken_from_many_threads_at_once(tmp_path: Path):
    backend = opened(FakeMachine(tmp_path), BackendOptions(OPTIONS.image, depth=6))
    found: list[float] = []
    waiting: deque[threading.Thread] = deque()
    for value in range(6):
        pending = backend.submit({"images": batch_of(value)})
        waiting.append(threading.Thread(target=lambda taken=pending: found.append(value_of(taken))))
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    backend.close()
    np.testing.assert_allclose(sorted(found), range(6), atol=1e-3)


def test_a_call_without_the_context_is_what_the_fake_finds(tmp_path: Path):
    backend = opened(FakeMachine(tmp_path))
    with pytest.raises(ModelError, match="INVALID_CONTEXT"):
        backend._opened().allocate(16)
    backend.close()


@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_a_plan_that_anybody_may_write_is_warned_of(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture):
    machine = FakeMachine(tmp_path)
    tmp_path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        opened(machine).close()
    assert bool(why_not_trusted(machine.path)) == (mode == 0o777)
    assert ("a plan runs code" in caplog.text) == (mode == 0o777)


def gradient(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_images_of_one_size_are_letterboxed_in_one_launch(tmp_path: Path):
    launched: list[str] = []
    machine = FakeMachine(tmp_path, 32, before=launched.append)
    backend = opened(machine, BackendOptions(ImageInput((32, 32)), max_batch=4))
    images = [gradient(64, 48, seed) for seed in range(3)] + [gradient(100, 20, 4)]
    boxes = [fit((image.shape[1], image.shape[0]), (32, 32)) for image in images]
    launched.clear()
    together = backend.submit_images(images, boxes)
    assert launched.count("launch") == 2
    rows = together.result()[0].copy()
    together.release()
    for row, image, box in zip(rows, images, boxes, strict=True):
        alone = backend.submit_images([image], [box])
        np.testing.assert_array_equal(alone.result()[0][0], row)
        alone.release()
    backend.close()


def test_planes_of_one_size_and_kind_are_letterboxed_in_one_launch(tmp_path: Path):
    launched: list[str] = []
    machine = FakeMachine(tmp_path, 32, before=launched.append)
    backend = opened(machine, BackendOptions(ImageInput((32, 32)), max_batch=4))
    images: list[Pixels] = [planes(64, 48, seed, Chroma(is_bt709=True)) for seed in range(2)]
    images += [planes(64, 48, 2, Chroma(is_interleaved=True)), gradient(64, 48, 3)]
    boxes = [fit((64, 48), (32, 32))] * 4
    launched.clear()
    together = backend.submit_images(images, boxes)
    assert launched.count("launch") == 3
    rows = together.result()[0].copy()
    together.release()
    for row, image, box in zip(rows, images, boxes, strict=True):
        alone = backend.submit_images([image], [box])
        np.testing.assert_array_equal(alone.result()[0][0], row)
        alone.release()
    backend.close()


def planes(width: int, height: int, seed: int, chroma: Chroma) -> YuvPlanes:
    """Return planes of noise whose rows are padded, as a decoder's are."""
    noise = np.random.default_rng(seed).integers(0, 256, (2, height, 2 * width), dtype=np.uint8)
    half = (height + 1) // 2, (width + 1) // 2
    if chroma.is_interleaved:
        colours = (noise[1, : half[0], : 2 * half[1]].reshape(*half, 2),)
    else:
        colours = (noise[1, : half[0], : half[1]], noise[1, half[0] :, : half[1]])
    return YuvPlanes(noise[0, :, :width], colours, chroma)


def test_images_of_any_size_are_letterboxed_as_on_the_processor(tmp_path: Path):
    backend = opened(FakeMachine(tmp_path, 32), BackendOptions(ImageInput((32, 32)), max_batch=4))
    images = [gradient(64, 48, 1), gradient(100, 20, 2), gradient(32, 32, 3), gradient(48, 90, 4)[::1, :40]]
    boxes = [fit((image.shape[1], image.shape[0]), (32, 32)) for image in images]
    pending = backend.submit_images(images, boxes)
    found = pending.result()[0] / 2 * 255
    for row, (image, box) in enumerate(zip(images, boxes, strict=True)):
        expected = np.empty((32, 32, 3), np.uint8)
        draw(image, box, expected)
        difference = np.abs(found[row].transpose(1, 2, 0)[..., ::-1] - expected)
        assert difference.max() <= 1.001
        assert (difference > 0.5).mean() < 0.01
    pending.release()
    backend.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda b: b.submit_images([batch_of(0)[0]], []), "1 images and 0 placements", id="counts differ"),
        pytest.param(lambda b: b.submit_images([], []), "a batch of 0", id="none"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    tmp_path: Path, call: Callable[[TensorRtBackend], object], message: str
) -> None:
    backend = opened(FakeMachine(tmp_path))
    with pytest.raises(ConfigError, match=message):
        call(backend)
    backend.close()


def test_a_smaller_image_than_the_plan_takes_gives_its_candidates(tmp_path: Path):
    """A dynamic Ultralytics `.engine` takes up to twice its image size, and a head of four times the anchors."""

    class Context(FakeContext):
        def bind(self, shapes, addresses):
            batch, _, rows, columns = next(iter(shapes.values()))
            outputs = {"output0": (batch, 7, rows * columns)}
            self._shapes, self._addresses = {**shapes, **outputs}, dict(addresses)
            return outputs

    class Plan(FakePlan):
        def create_context(self):
            self.open_contexts += 1
            return Context(self, self._cuda, self._respond)

        def largest(self, spec):
            return (4, 3, 2 * SIDE, 2 * SIDE)

    def respond(feeds):
        head = np.zeros((len(feeds["images"]), 7, SIDE * SIDE), np.float32)
        head[:, :4, 9], head[:, 5, 9] = (40, 41, 10, 11), 0.9
        return [head]

    path = tmp_path / "dynamic.engine"
    path.write_bytes(PLAN)
    inputs = (TensorSpec("images", (None, 3, None, None), "float32"),)
    outputs = (TensorSpec("output0", (None, 7, None), "float32"),)
    parts = Parts(
        FakeCuda,
        lambda cuda, file: Plan(cuda, inputs, outputs, respond),  # type: ignore[arg-type]
        lambda capability: b"",
        lambda: None,
    )
    backend = TensorRtBackend(path, BackendOptions(ImageInput((SIDE, SIDE)), ClassScores(4, 3)), parts=parts)
    backend.open()
    backend.keep_above(0.25)
    for count in (1, 2, 2, 2, 2, 2):
        pending = backend.submit({"images": batch_of(0, count)})
        expected = np.float32([40, 41, 10, 11, 0.9, 1])[:, None]
        np.testing.assert_array_equal(pending.result()[0], np.stack([expected] * count))
        pending.release()
    backend.close()


def test_a_foreign_plan_that_anybody_may_write_is_warned_of_before_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "yolo.engine"
    path.write_bytes(PLAN)
    tmp_path.chmod(0o777)
    warned: list[bool] = []

    def load(cuda: FakeCuda, file: PlanFile) -> FakePlan:
        warned.append("a plan runs code" in caplog.text)
        return FakePlan(cuda, plan_facts().inputs, plan_facts().outputs, doubled)

    monkeypatch.setattr(read_plan, "why_not", lambda path: None)
    monkeypatch.setattr(read_plan, "open_cuda", FakeCuda)
    monkeypatch.setattr(read_plan, "load_plan", load)
    assert read_model_file(path).inputs == plan_facts().inputs
    assert warned == [True]


def test_a_build_before_the_run_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    model = tmp_path / "yolo.onnx"
    missing = MissingPlan(model, BuildOptions(), tmp_path, "none was built yet")
    built = read_plan_file(FakeMachine(tmp_path).path)
    announced: list[bool] = []

    def build(self: PlanCache, *arguments: object) -> tuple[PlanFile, str]:
        announced.append("yolo.onnx: none was built yet; building it first" in caplog.text)
        return built, "built now"

    monkeypatch.setattr(find_plan, "find_plan", lambda path, options: missing)
    monkeypatch.setattr(PlanCache, "get_or_build", build)
    with caplog.at_level(logging.WARNING):
        assert plan_to_run(model, BackendOptions()) == built
    assert announced == [True]


def test_whatever_opening_raises_is_a_model_error_and_nothing_stays_open(tmp_path: Path):
    def fail(operation: str) -> None:
        if operation == "create_stream":
            raise RuntimeError('Function "cuStreamCreate" not found')

    machine = FakeMachine(tmp_path, before=fail)
    with pytest.raises(ModelError, match=r"does not open here \(RuntimeError: Function.*framewire doctor"):
        machine.backend(OPTIONS).open()
    assert machine.cuda.live == 0
    assert not machine.cuda.is_open


def test_the_first_error_of_a_lost_gpu_is_the_one_that_is_raised(tmp_path: Path):
    backend = opened(FakeMachine(tmp_path, before=FailAt("record", 2, forever=True)))
    value_of(backend.submit({"images": batch_of(1)}))
    with pytest.raises(ModelError, match="record failed"):
        backend.submit({"images": batch_of(2)})
    backend.close()  # raises nothing, although every call fails


def test_a_graph_slower_than_the_eager_run_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    machine = FakeMachine(tmp_path)

    def cost(operation: str) -> None:
        machine.clock.advance({"enqueue": 0.001, "launch_graph": 0.01}.get(operation, 0.0))

    machine = FakeMachine(tmp_path, before=cost)
    backend = opened(machine, BackendOptions(OPTIONS.image, depth=1))
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(10)]
    backend.close()
    np.testing.assert_allclose(values, range(10), atol=1e-3)
    assert "slower than the eager run" in caplog.text
    assert machine.cuda.live == 0


def test_no_graph_is_recorded_while_the_library_still_compiles(tmp_path: Path):
    operations: list[str] = []
    machine = FakeMachine(tmp_path, before=operations.append)
    backend = opened(machine, BackendOptions(OPTIONS.image, depth=1))
    machine.plan.is_capturable = False
    for value in range(8):
        value_of(backend.submit({"images": batch_of(value)}))
    assert "begin_capture" not in operations
    machine.plan.is_capturable = True
    value_of(backend.submit({"images": batch_of(8)}))
    assert operations.count("begin_capture") == 1
    backend.close()


def test_what_was_compiled_is_kept_once_the_kernels_have_run(tmp_path: Path):
    machine = FakeMachine(tmp_path)
    backend = opened(machine, BackendOptions(OPTIONS.image, depth=1))
    calls = []
    for value in range(6):
        value_of(backend.submit({"images": batch_of(value)}))
        calls.append(machine.plan.warm_calls)
    backend.close()
    assert calls == [0, 0, 1, 1, 1, 1]


def test_an_error_left_over_from_a_failed_capture_does_not_end_the_run(tmp_path: Path):
    """As if a plan synchronises inside `enqueue`: the capture fails, and so may the next call."""
    state = {"captured": False, "left": 0}

    def before(operation: str) -> None:
        if operation == "end_capture":
            state.update(captured=True, left=1)
            raise ModelError("end_capture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (901)")
        if operation == "enqueue" and state["left"]:
            state["left"] = 0
            raise ModelError("enqueue failed: the stale error")

    backend = opened(FakeMachine(tmp_path, before=before), BackendOptions(OPTIONS.image, depth=1))
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(10)]
    backend.close()
    assert state["captured"]
    np.testing.assert_allclose(values, range(10), atol=1e-3)


def test_a_jetson_reads_large_heads_from_its_own_memory_and_small_outputs_from_the_hosts(tmp_path: Path):
    """An integrated GPU does not cache mapped memory: only data that no kernel reads again lies there."""
    cuda = FakeCuda(replace(FAKE_GPU, is_integrated=True))
    specs = (TensorSpec("head", (1, 84, 8400), "float32"), TensorSpec("boxes", (1, 300, 6), "float32"))
    with cuda.current():
        results = Results(cuda, specs, {spec.name: spec.shape for spec in specs}, lambda free, *arguments: None)
        assert [tensor.is_mapped for tensor in results._tensors] == [False, True]
        results.keep_candidates(ClassScores(4, 80), 1, (1, 84, 8400))
        assert not results.filter._words.is_mapped


@pytest.mark.parametrize("is_integrated", [False, True])
def test_a_plan_may_have_inputs_and_outputs_of_halves(tmp_path: Path, is_integrated: bool):
    """As Ultralytics exports them with `half=True`. The candidates kernel reads floats, so the head comes whole."""
    seen = []

    def respond(feeds):
        seen.append(feeds["images"].copy())
        return [np.full((len(feeds["images"]), 7, 21), feeds["images"].mean(), np.float16)]

    inputs = (TensorSpec("images", (None, 3, SIDE, SIDE), "float16"),)
    outputs = (TensorSpec("output0", (None, 7, 21), "float16"),)
    path = tmp_path / "half.plan"
    write_plan_file(path, PLAN, plan_facts(inputs=inputs, outputs=outputs), {})
    cuda = FakeCuda(replace(FAKE_GPU, is_integrated=is_integrated))
    plan = FakePlan(cuda, inputs, outputs, respond)  # type: ignore[arg-type]
    parts = Parts(lambda: cuda, lambda cuda, file: plan, lambda capability: b"", lambda: None)
    backend = TensorRtBackend(path, BackendOptions(OPTIONS.image, ClassScores(4, 3), depth=1, max_batch=4), parts=parts)
    backend.open()
    batch = np.concatenate([batch_of(value) for value in (51, 102, 255)])
    pending = backend.submit({"images": batch})
    head = pending.result()[0]
    assert head.shape == (3, 7, 21)
    assert head.dtype == np.float16
    pending.release()
    backend.close()
    assert seen[-1].dtype == np.float16
    np.testing.assert_allclose(seen[-1][:, 0, 0, 0], np.float16([0.2, 0.4, 1.0]), rtol=1e-3)


def test_a_plan_that_counts_its_boxes_itself_is_not_recorded(tmp_path: Path):
    """It waits for the GPU inside `enqueue`, which ends a capture with an error."""
    operations: list[str] = []
    machine = FakeMachine(tmp_path, before=operations.append)
    write_plan_file(machine.path, PLAN, replace(machine.facts, can_record=False), {})
    backend = opened(machine)
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(10)]
    backend.close()
    np.testing.assert_allclose(values, range(10), atol=1e-3)
    assert "begin_capture" not in operations


def test_a_graph_that_came_out_of_a_failed_capture_is_freed(tmp_path: Path):
    state = {"is_capturing": False}

    def before(operation: str) -> None:
        if operation == "copy_to_host" and state["is_capturing"]:
            raise ModelError("copy_to_host failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900)")
        if operation in ("begin_capture", "end_capture"):
            state["is_capturing"] = operation == "begin_capture"

    machine = FakeMachine(tmp_path, before=before)
    backend = opened(machine, BackendOptions(OPTIONS.image, depth=1))
    values = [value_of(backend.submit({"images": batch_of(value)})) for value in range(10)]
    backend.close()
    np.testing.assert_allclose(values, range(10), atol=1e-3)
    assert machine.cuda.live == 0


def test_a_jetson_letterboxes_from_its_own_memory(tmp_path: Path):
    """Mapped memory is not cached by an integrated GPU, and the kernel reads most bytes more than once."""
    machine = FakeMachine(tmp_path, 32, is_integrated=True)
    backend = opened(machine, BackendOptions(ImageInput((32, 32)), depth=1, max_batch=2))
    read: list[bool] = []
    handle, kernel = next(iter(machine.cuda._kernels.items()))
    assert machine.cuda._image["letterbox"] is kernel

    def watched(view: Callable[[int, int], object], count: int, values: bytes) -> None:
        source = struct.unpack_from("P", values)[0]
        read.append(any(start <= source < start + len(block) for start, block in machine.cuda._memory.items()))
        kernel(view, count, values)

    machine.cuda._kernels[handle] = watched
    canvas = backend.empty((1, 32, 32, 3), np.uint8)
    canvas[:] = 7
    assert value_of(backend.submit({"images": canvas})) == pytest.approx(7, abs=1e-3)
    image = gradient(64, 48, 1)
    backend.submit_images([image], [fit((64, 48), (32, 32))]).release()
    backend.close()
    assert read == [True, True]


def test_what_fails_while_cleaning_up_does_not_hide_why_it_did_not_open(tmp_path: Path):
    events: list[str] = []

    def before(operation: str) -> None:
        events.extend([operation] * (operation == "create_event"))
        if operation == "create_event" and len(events) == 2:
            raise ModelError("create_event failed: CUDA_ERROR_LAUNCH_FAILED (719)")
        if operation == "free_pinned":
            raise RuntimeError("a binding's own error")

    with pytest.raises(ModelError, match=r"create_event failed.*719"):
        FakeMachine(tmp_path, before=before).backend(OPTIONS).open()


def test_closing_works_where_the_context_cannot_be_made_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lost() -> None:
        raise ModelError("cuCtxPushCurrent failed: CUDA_ERROR_LAUNCH_FAILED (719)")

    machine = FakeMachine(tmp_path)
    backend = opened(machine)
    monkeypatch.setattr(machine.cuda, "current", lost)
    backend.close()
    assert not machine.cuda.is_open
