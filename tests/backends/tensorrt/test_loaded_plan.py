"""Loading and running a plan, with a stand-in for TensorRT's runtime that answers as the real one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.backends.tensorrt.api import Messages, TensorRt
from engine.backends.tensorrt.build_plan import BuildOptions, _load_timing_cache, _save_timing_cache, build_serialized
from engine.backends.tensorrt.loaded_plan import TensorRtPlan
from engine.errors import ModelError

PATH = Path("yolo.plan")


@dataclass
class Tensor:
    shape: tuple[int, ...]
    mode: str
    dtype: str = "FLOAT"
    largest: tuple[int, ...] = ()


@dataclass
class Context:
    tensors: dict[str, Tensor]
    accepts: bool = True
    started: list[int] = field(default_factory=list)
    addresses: dict[str, int] = field(default_factory=dict)
    batch: int = 1

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        return self.accepts and shape[0] <= self.tensors[name].largest[0]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.tensors

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.batch if size < 0 else size for size in self.tensors[name].shape)

    def execute_async_v3(self, stream: int) -> bool:
        self.started.append(stream)
        return stream > 0


@dataclass
class Engine:
    tensors: dict[str, Tensor]
    has_memory: bool = True
    context: Context | None = None

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return self.tensors[name].mode

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name].dtype)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [(1, 3, 8, 8), (1, 3, 8, 8), self.tensors[name].largest]

    def create_execution_context(self) -> Context | None:
        self.context = Context(self.tensors) if self.has_memory else None
        return self.context


def detector(**changes: Any) -> Engine:
    tensors = {
        "images": Tensor((-1, 3, 8, 8), "in", largest=(4, 3, 8, 8)),
        "output0": Tensor((-1, 84, 21), "out"),
        "protos": Tensor((-1, 32), "out", dtype="HALF"),
    }
    return Engine(tensors, **changes)


def loaded(engine: Engine | None, complaint: str = "") -> TensorRtPlan:
    messages = Messages()

    def deserialize(content: bytes) -> Engine | None:
        if complaint:
            messages.recent.append(complaint)
        return engine

    module = SimpleNamespace(
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialize),
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
    )
    return TensorRtPlan(TensorRt(module, "tensorrt", "10.3.0", None, messages), b"ftrt", PATH)


def test_a_plan_tells_its_tensors_and_largest_batch():
    plan = loaded(detector())
    assert [str(spec) for spec in plan.inputs] == ["images (?, 3, 8, 8) float32"]
    assert [str(spec) for spec in plan.outputs] == ["output0 (?, 84, 21) float32", "protos (?, 32) float16"]
    assert (plan.min_batch, plan.max_batch) == (1, 4)
    assert plan.largest(plan.inputs[0]) == (4, 3, 8, 8)


def test_binding_gives_the_shapes_of_the_outputs():
    engine = detector()
    context = loaded(engine).create_context()
    shapes = context.bind({"images": (3, 3, 8, 8)}, {"images": 1000, "output0": 2000, "protos": 3000})
    assert shapes == {"output0": (3, 84, 21), "protos": (3, 32)}
    assert engine.context is not None
    assert engine.context.addresses == {"images": 1000, "output0": 2000, "protos": 3000}
    context.enqueue(7)
    assert engine.context.started == [7]
    context.close()


def test_a_refused_plan_carries_the_librarys_reason_and_the_remedy():
    message = r'yolo.plan: TensorRT 10.3.0 refuses it: magic tag does not match; rebuild it with "framewire build"'
    with pytest.raises(ModelError, match=message):
        loaded(None, "magic tag does not match")


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda trt: TensorRtPlan(trt, b"ftrt", PATH), id="Runtime"),
        pytest.param(lambda trt: build_serialized(trt, b"", cast(Any, None), BuildOptions()), id="Builder"),
    ],
)
def test_what_the_library_cannot_make_is_an_error_with_its_reason(use: Callable[[TensorRt], object]):
    messages = Messages()

    def nothing(logger: object) -> None:
        messages.recent.append("CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt = TensorRt(SimpleNamespace(Runtime=nothing, Builder=nothing), "tensorrt", "10.3.0", None, messages)
    with pytest.raises(ModelError, match=r"TensorRT 10.3.0 cannot make a .*returned nullptr.*failure with error: 35"):
        use(trt)


def test_a_silent_refusal_is_said_to_be_one():
    with pytest.raises(ModelError, match="it gave no reason"):
        loaded(None)


def test_outputs_that_depend_on_the_data_are_refused():
    engine = detector()
    engine.tensors["boxes"] = Tensor((1, -1, 6), "out")
    with pytest.raises(ModelError, match="depends on the data: export with the raw head"):
        loaded(engine)


def test_no_memory_for_a_context_is_an_error():
    with pytest.raises(ModelError, match="no execution context"):
        loaded(detector(has_memory=False)).create_context()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda c: c.bind({"images": (9, 3, 8, 8)}, {}), r"input images cannot be \(9, 3, 8, 8\)", id="shape"
        ),
        pytest.param(lambda c: c.bind({}, {"nobody": 1}), "no memory for nobody", id="address"),
        pytest.param(lambda c: c.enqueue(0), "inference did not start", id="start"),
    ],
)
def test_what_the_context_refuses_is_an_error(call: Any, message: str):
    with pytest.raises(ModelError, match=message):
        call(loaded(detector()).create_context())


class TimingConfig:
    """Keeps a timing cache as the real one does: garbage gives None, and None cannot be set."""

    def __init__(self) -> None:
        self.cache: Any = None

    def create_timing_cache(self, content: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: b"whole") if content in (b"", b"whole") else None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache is None:
            raise TypeError("set_timing_cache(): incompatible function arguments")
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


TIMED = TensorRt(SimpleNamespace(), "tensorrt", "10.3.0", None, Messages())


@pytest.mark.parametrize("content", [None, b"whole", b"half"], ids=str)
def test_a_damaged_timing_cache_is_begun_anew(tmp_path: Path, content: bytes | None):
    path, config = tmp_path / "plans" / "timing.cache", TimingConfig()
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    _load_timing_cache(TIMED, config, path)
    assert config.cache is not None
    _save_timing_cache(TIMED, config, path)
    assert path.read_bytes() == b"whole"


def test_a_killed_build_leaves_the_timing_cache_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, config = tmp_path / "timing.cache", TimingConfig()
    path.write_bytes(b"before")

    def killed(*names: object) -> None:
        raise KeyboardInterrupt

    config.cache = config.create_timing_cache(b"")
    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        _save_timing_cache(TIMED, config, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("timing.cache", b"before")]


def test_a_timing_cache_that_cannot_be_written_does_not_fail_the_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_bytes(b"in the way")
    config = TimingConfig()
    config.cache = config.create_timing_cache(b"")
    _save_timing_cache(TIMED, config, tmp_path / "file" / "timing.cache")
    assert "the next build measures again" in caplog.text
