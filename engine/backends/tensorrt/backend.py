"""TensorRT on an NVIDIA GPU: runs plans, and builds one first if it is given ONNX.

One thread owns the GPU (`open`, `submit`, `close`); another may take the results. Images arrive as uint8 and are
normalised on the GPU. Each submission in flight has its own stream, execution context and page-locked memory, so that
copies and computation overlap, and waits only once, at the end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike, NDArray

from engine.backends.base import BackendOptions, ImageInput, TensorSpec, check_feeds, image_spec
from engine.backends.choose_device import cuda_index
from engine.backends.cuda.candidates import KERNEL_NAME as CANDIDATES
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.driver import INSTALL as CUDA_INSTALL
from engine.backends.cuda.driver import CudaApi, PinnedArray, available_packages, free_quietly, open_cuda
from engine.backends.cuda.letterbox import KERNEL_NAME as LETTERBOX
from engine.backends.cuda.letterbox import PLANES_KERNEL_NAME as PLANES_LETTERBOX
from engine.backends.cuda.probe import probe_cuda
from engine.backends.device import Pixels, Placement
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFile, PlanFolderError, why_not_trusted
from engine.backends.slots import Slots
from engine.backends.tensorrt.api import INSTALL, installed_libraries, library_to_run, load_tensorrt, why_not_library
from engine.backends.tensorrt.build_plan import plan_place
from engine.backends.tensorrt.find_plan import MissingPlan, find_plan, library_of, plan_to_run
from engine.backends.tensorrt.loaded_plan import LoadedPlan, TensorRtPlan
from engine.backends.tensorrt.network import why_not_model
from engine.backends.tensorrt.plan_cache import why_not_plan
from engine.backends.tensorrt.results import merged_spec
from engine.backends.tensorrt.slot import GpuSlot
from engine.clock import SYSTEM_CLOCK, Clock
from engine.errors import ConfigError, EngineError, ModelError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Parts of the backend that tests replace."""

    open_cuda: Callable[[], CudaApi] = open_cuda
    load_plan: Callable[[CudaApi, PlanFile], LoadedPlan] | None = None
    compile_kernels: Callable[[tuple[int, int]], bytes] = lambda capability: compile_kernels(
        capability, probe_cuda().driver_version
    )
    obstacle: Callable[[], str | None] = lambda: why_not()
    clock: Clock = SYSTEM_CLOCK


class TensorRtBackend:
    """Runs a `.plan`, an Ultralytics `.engine`, or an `.onnx` whose plan is built once and kept in `cache_dir`.

    Args:
        path: the file.
        options: `precision` (`fp16`, `fp32`) and `max_batch` say how to build an ONNX file; FP16 by default.
        parts: for tests.
    """

    name = "tensorrt"

    def __init__(self, path: Path, options: BackendOptions | None = None, *, parts: Parts | None = None) -> None:
        self._path = Path(path)
        self._options = options or BackendOptions()
        self._parts = parts or Parts()
        self._cuda: CudaApi | None = None
        self._plan: LoadedPlan | None = None
        self.plan_file: PlanFile | None = None
        self._all_slots: list[GpuSlot] = []
        self._slots: Slots[GpuSlot] | None = None
        self._pinned: list[PinnedArray] = []
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.depth = self._options.depth or (1 if self._options.performance == "latency" else 2)
        self._above = -math.inf
        self.precision = "unknown until open"
        self.device = ""

    def open(self) -> None:
        """Load the plan, building it first where needed.

        Raises:
            ModelError: the plan or the GPU cannot be used; also wraps whatever the libraries raise.
            ConfigError, MissingDependencyError: the options or packages cannot work here.
        """
        if self._slots is not None:
            return
        self._check_usable()
        try:
            self._open(plan_to_run(self._path, self._options))
        except PlanFolderError as error:
            raise ModelError(str(error)) from error  # `auto` continues on another backend, which needs no folder
        except EngineError:
            raise
        except Exception as error:  # bindings raise RuntimeError, OSError and classes of their own
            raise ModelError(
                f"{self._path}: TensorRT does not open here ({type(error).__name__}: {error}): "
                "see framewire doctor, or choose --backend auto"
            ) from error

    def _open(self, file: PlanFile) -> None:
        warn_of_distrust(file.path)
        index = cuda_index(self._options.device)
        self._cuda = open_cuda(index) if index else self._parts.open_cuda()
        try:
            with self._cuda.current():
                self._load(self._cuda, file)
        except BaseException:
            with suppress(Exception):  # report the first error: on a lost GPU every further call fails too
                self.close()
            raise

    def _check_usable(self) -> None:
        obstacle = self._parts.obstacle()
        if obstacle is not None:
            raise ConfigError(f"TensorRT cannot run here: {obstacle}, or choose --backend auto")

    def missing_plan(self) -> MissingPlan | None:
        """Return the plan that `open` would have to build first, or None. Raises the same errors as `open`."""
        self._check_usable()
        found = find_plan(self._path, self._options)
        return found if isinstance(found, MissingPlan) else None

    def _load(self, cuda: CudaApi, file: PlanFile) -> None:
        load = self._parts.load_plan or load_plan
        plan = self._plan = load(cuda, file)
        self.plan_file = file
        if self._options.max_batch > plan.max_batch:
            raise ConfigError(
                f"{file.path} takes batches of up to {plan.max_batch}, asked for {self._options.max_batch}: "
                f"build it with --batch 1:{self._options.max_batch}"
            )
        image = self._options.image
        first = plan.inputs[0]
        if first.shape[:1] == (None,) and plan.min_batch > 1:
            raise ConfigError(
                f"{file.path} takes no batch below {plan.min_batch}, and batches differ in size: "
                f"build it with --batch 1:{plan.max_batch}"
            )
        if image is not None:
            _check_image_input(file.path, first, image)
        self.inputs = (image_spec(first.name, image, first.shape[0]), *plan.inputs[1:]) if image else plan.inputs
        merged = merged_spec(plan.outputs[0], self._options.class_scores) if image else None
        self.outputs = (merged, *plan.outputs[1:]) if merged else plan.outputs
        scores = self._options.class_scores if merged else None
        kernels = self._kernels(cuda) if image is not None else {}
        can_record = file.facts is None or file.facts.can_record
        for _ in range(self.depth):
            slot = GpuSlot(cuda, plan, image, kernels, scores, use_graph=can_record, clock=self._parts.clock)
            self._all_slots.append(slot)
        self._slots = Slots(self._all_slots)
        self.precision = file.facts.precision if file.facts else "as built"
        self.device = f"{cuda.gpu} through {cuda.name}"

    def _kernels(self, cuda: CudaApi) -> dict[str, int]:
        code = self._parts.compile_kernels(cuda.gpu.compute_capability)
        return {name: cuda.load_kernel(code, name) for name in (LETTERBOX, PLANES_LETTERBOX, CANDIDATES)}

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return page-locked memory, from which the GPU copies directly. Call between `open` and `close`."""
        cuda = self._opened()
        with cuda.current():
            pinned = cuda.pinned(shape, dtype)
        self._pinned.append(pinned)
        return pinned.array

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> TensorRtPending:
        """Start an inference; do not change the arrays in `feeds` until its result has been taken."""
        cuda = self._opened()
        check_feeds(self.inputs, feeds)
        self._check_batch(len(feeds[self.inputs[0].name]))
        return self._start(cuda, lambda slot: slot.start(feeds))

    def submit_images(self, images: Sequence[Pixels], placements: Sequence[Placement]) -> TensorRtPending:
        """Start an inference on (H, W, 3) uint8 BGR images or 4:2:0 planes of any sizes, which the GPU letterboxes.

        They are copied.

        Raises `ConfigError` as `submit`, and if there is not one placement for each image.
        """
        cuda = self._opened()
        if self._options.image is None or len(self.inputs) != 1:
            raise ConfigError("the backend was not opened for images")
        if len(images) != len(placements):
            raise ConfigError(f"{len(images)} images and {len(placements)} placements")
        self._check_batch(len(images))
        return self._start(cuda, lambda slot: slot.start_images(images, placements))

    def keep_above(self, score: float) -> None:
        """Skip anchors whose best score is not above `score`, from the next submission on."""
        self._above = score

    def _check_batch(self, batch: int) -> None:
        largest = self._plan.max_batch if self._plan else 0
        if not 1 <= batch <= largest:
            raise ConfigError(f"a batch of {batch}: the plan takes 1 to {largest}")

    def _start(self, cuda: CudaApi, start: Callable[[GpuSlot], None]) -> TensorRtPending:
        if self._slots is None:
            raise ConfigError("the backend is closed: call open() first")
        slot = self._slots.take()
        try:
            with cuda.current():
                slot.keep_above(self._above)
                start(slot)
        except BaseException:
            with cuda.current():
                free_quietly(slot.settle)
            self._slots.give(slot)
            raise
        return TensorRtPending(slot, self._slots)

    def _opened(self) -> CudaApi:
        if self._cuda is None or self._slots is None:
            raise ConfigError("the backend is closed: call open() first")
        return self._cuda

    def close(self) -> None:
        """Wait for inferences in flight and free everything; harmless when repeated."""
        cuda, self._cuda = self._cuda, None
        slots, self._all_slots, self._slots = self._all_slots, [], None
        plan, self._plan = self._plan, None
        pinned, self._pinned = self._pinned, []
        if cuda is None:
            return
        try:
            with cuda.current():
                for slot in reversed(slots):
                    slot.close()
                for array in pinned:
                    free_quietly(cuda.free_pinned, array)
                if plan is not None:
                    plan.close()
        except ModelError as error:  # the GPU is lost: report what ended the run, not this
            logger.debug("closing on a lost GPU: %s", error)
        cuda.close()


class TensorRtPending:
    """An inference in flight, on its own slot."""

    def __init__(self, slot: GpuSlot, slots: Slots[GpuSlot]) -> None:
        self._slot: GpuSlot | None = slot
        self._slots = slots
        self._outputs: tuple[NDArray[Any], ...] | None = None

    def result(self) -> tuple[NDArray[Any], ...]:
        """Wait, and return views of the page-locked (b, ...) results. Raises `ModelError`."""
        if self._slot is None:
            raise ConfigError("the result was released already")
        if self._outputs is None:
            self._outputs = self._slot.wait()
        return self._outputs

    def release(self) -> None:
        """Wait until the slot is idle and give it back."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        try:
            if self._outputs is None:
                slot.wait()
        except ModelError as error:
            logger.debug("released after a failure: %s", error)
        finally:
            self._outputs = None
            self._slots.give(slot)


def load_plan(cuda: CudaApi, file: PlanFile, *, is_eager: bool = True) -> LoadedPlan:
    """Load the plan of a file; the CUDA context must be current.

    Args:
        cuda: the GPU.
        file: of the plan.
        is_eager: False to measure how TensorRT-RTX runs by default, without kernels that it kept.

    Raises:
        ModelError: the plan does not fit this library or GPU, is damaged, or the library refuses it.
    """
    trt = load_tensorrt(library_of(file))
    if file.facts is not None:
        reason = why_not_plan(file.facts, plan_place(trt, probe_cuda()))
        if reason is not None:
            raise ModelError(f'plan {file.path.name} {reason}: rebuild it with "framewire build {file.facts.model}"')
    return TensorRtPlan(
        trt,
        file.plan(),
        file.path,
        dla_core=file.facts.dla_core if file.facts else None,
        runtime_cache=file.path.with_name(f"{file.path.name}.kernels") if trt.is_rtx and is_eager else None,
        is_eager=is_eager,
    )


def warn_of_distrust(path: Path) -> None:
    """Log a warning if other users could have written a plan, which is code."""
    warning = why_not_trusted(path)
    if warning:
        logger.warning("%s", warning)


def why_not(path: Path | None = None) -> str | None:
    """Return why TensorRT cannot run here, with the remedy, or None if it can. Does not import TensorRT.

    Args:
        path: the model to run; an ONNX file may use operators that TensorRT lacks.
    """
    probe = probe_cuda()
    if probe.reason is not None:
        return probe.reason
    installed = installed_libraries()
    if not installed:
        return f"TensorRT is not installed: {INSTALL}"
    library = library_to_run(probe)
    if library is None:
        return why_not_library(probe, installed[0])
    if not available_packages():
        return f"no Python package for CUDA is installed: {CUDA_INSTALL}"
    if path is None or path.suffix.lower() != ".onnx":
        return None
    return why_not_model(read_model_file(path), library)


def _check_image_input(path: Path, first: TensorSpec, image: ImageInput) -> None:
    if first.dtype not in ("float32", "float16"):
        raise ModelError(f"{path}: input {first}: expected float32 or float16: build it from ONNX with FP32 inputs")
    rows, columns = image.size_hw
    wanted = (3, rows, columns) if image.layout == "nchw" else (rows, columns, 3)
    if any(size is not None and size != want for size, want in zip(first.shape[1:], wanted, strict=True)):
        raise ModelError(f"{path}: input {first}: expected images of {columns} x {rows} pixels")
