"""The protocol of a backend: tensors in, tensors out, several submissions in flight.

A backend runs one model file. `submit` starts an inference and returns a `Pending`; `Pending.result` waits for it.
For models that take images, `ImageInput` defines how pixels become numbers, and the backend takes uint8 NHWC BGR
batches. Each backend does the arithmetic where it is cheapest: in the graph, on the device or in one pass on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import DTypeLike, NDArray

from engine.errors import ConfigError

Performance = Literal["latency", "throughput"]
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and element type of one input or output.

    Attributes:
        name: the model's own name, or `input0`, `output0`, ... if the file gives none.
        shape: sizes; None for a dynamic size.
        dtype: numpy's name for the element type, for example `float32`.
    """

    name: str
    shape: Shape
    dtype: str

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({sizes}) {self.dtype}"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How pixels become the numbers of the model's first input: `(pixel - mean) / std`, per channel.

    Attributes:
        size_hw: rows and columns of the images that the model receives.
        color: channel order that the model expects; batches are always BGR.
        mean: of 0..255 pixels, in the model's channel order.
        std: of 0..255 pixels, in the model's channel order.
        layout: position of the model's channel axis.
    """

    size_hw: tuple[int, int]
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    layout: Literal["nchw", "nhwc"] = "nchw"

    def __post_init__(self) -> None:
        if min(self.size_hw) < 1 or max(self.size_hw) > 16384:
            raise ConfigError(f"image size {self.size_hw} (rows, columns): each must be between 1 and 16384")
        if len(self.mean) != 3 or len(self.std) != 3 or any(value == 0 for value in self.std):
            raise ConfigError(f"mean {self.mean} and std {self.std}: expected three numbers each, std without 0")


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Which rows of the first float32 output, (b, rows, anchors), are class scores.

    A backend may replace them with two rows: the best score of each anchor, and its class as a number. Its `outputs`
    then have that shape.

    Attributes:
        first: the first of these rows.
        count: number of classes.
    """

    first: int
    count: int

    def merged(self, rows: int) -> int:
        """Return the number of output rows once the scores are reduced to two.

        >>> ClassScores(4, 80).merged(84)
        6
        """
        return rows - self.count + 2


@runtime_checkable
class BuildsFirst(Protocol):
    """A backend that builds what it runs from a model, for minutes, and keeps it, as TensorRT its plans."""

    def missing_plan(self) -> MissingBuild | None:
        """Return what `open` would build first; None if it has been built before."""


class MissingBuild(Protocol):
    """What must be built before a model can run."""

    @property
    def command(self) -> str:
        """The command that builds it."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How to run a model.

    Attributes:
        image: how the first input takes images, as uint8 (b, h, w, 3) BGR; None: feed every tensor in the
            model's own form.
        class_scores: rows to reduce to the best score and its class; None: leave the output unchanged.
        performance: one request over all cores (`latency`), or several in parallel (`throughput`).
        depth: submissions in flight; None: the backend chooses.
        max_batch: maximum number of images per submission; 1 lets the backend fix the shape.
        precision: arithmetic, for example `f32`, `bf16`; None: the backend's default.
        threads: maximum number of CPU threads; None: all.
        device: `cpu`, `gpu`, `gpu.1`, `npu`, `auto`, `cuda:0`; None: the backend decides.
        cache_dir: folder for compiled models, which makes the next start fast; None: the user's cache folder for
            OpenVINO, the model's own folder for TensorRT.
        build_plans: let TensorRT build a missing plan, which can take minutes; if false, a missing plan is an error.
        exported_hw: rows and columns that the file fixes; if `image` has others, the graph is changed to take them.
            None: the file leaves them open.
        deadline_ms: for a model on a server, how long to wait for an answer; None: the backend chooses.
    """

    image: ImageInput | None = None
    class_scores: ClassScores | None = None
    performance: Performance = "throughput"
    depth: int | None = None
    max_batch: int = 1
    precision: str | None = None
    threads: int | None = None
    device: str | None = None
    cache_dir: Path | None = None
    build_plans: bool = True
    exported_hw: tuple[int, int] | None = None
    deadline_ms: float | None = None

    @property
    def is_resized(self) -> bool:
        """Whether the graph must be changed to take images of a size other than the file's."""
        return self.image is not None and self.exported_hw not in (None, self.image.size_hw)

    def __post_init__(self) -> None:
        if self.performance not in ("latency", "throughput"):
            raise ConfigError(f'performance is "{self.performance}": expected "latency" or "throughput"')
        for name in ("depth", "max_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: expected 1 or more")


@runtime_checkable
class Pending(Protocol):
    """One inference in flight."""

    def result(self) -> tuple[NDArray[Any], ...]:
        """Wait, and return the outputs, (b, ...) each, in the order of `Backend.outputs`. Raises `ModelError`.

        The arrays belong to the backend and are valid until `release`; treat them as read-only. May be called on any
        thread.
        """

    def release(self) -> None:
        """Give the slot back; harmless when repeated. May be called on any thread."""


@runtime_checkable
class Backend(Protocol):
    """Runs one model. Call `open`, `submit` and `close` on one thread, and each `Pending` on any one thread."""

    @property
    def name(self) -> str:
        """Short name: `openvino`, `onnxruntime`, ..."""

    @property
    def precision(self) -> str:
        """Arithmetic in use; known once open."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `submit` takes; known once open."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `Pending.result` returns; known once open."""

    @property
    def depth(self) -> int:
        """Submissions that may be in flight; known once open."""

    def open(self) -> None:
        """Load and compile the model. Raises `ModelError`; harmless when repeated."""

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return uninitialised host memory that `submit` reads fastest (pinned, where that matters)."""

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> Pending:
        """Start one inference; do not change the arrays in `feeds` until `Pending.result` has returned.

        Args:
            feeds: one array for each of `inputs`, by its name, of its shape and dtype.

        Raises:
            ConfigError: `depth` submissions are already in flight, the backend is closed, or a feed does not fit.
        """

    def close(self) -> None:
        """Free the model; harmless when repeated."""


def check_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, NDArray[Any]]) -> None:
    """Raise `ConfigError` unless `feeds` has exactly the names, shapes and types of `inputs`."""
    if set(feeds) != {spec.name for spec in inputs}:
        raise ConfigError(f"fed {sorted(feeds)}: the model takes {[str(spec) for spec in inputs]}")
    for spec in inputs:
        array = feeds[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != spec.dtype:
            raise ConfigError(f"fed {spec.name} with {array.dtype} {array.shape}: the model takes {spec}")


def image_spec(name: str, image: ImageInput, batch: int | None) -> TensorSpec:
    """Return the spec of the images that `submit` takes for the first input."""
    return TensorSpec(name, (batch, *image.size_hw, 3), "uint8")


def device_of(backend: Backend) -> str:
    """Return the device that a backend runs on; `cpu` for one without a `device`."""
    return str(getattr(backend, "device", "cpu"))
