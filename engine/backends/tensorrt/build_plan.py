"""Building a plan file from an ONNX model: parse, set the profile, build, write with a header.

TensorRT builds on the GPU that the plan is for. TensorRT-RTX compiles for the GPU when it loads the plan, so its plans
can be built on any machine.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.backends.base import TensorSpec
from engine.backends.cuda.probe import CudaProbe, Gpu, probe_cuda
from engine.backends.files.base import ModelFile, read_model_file
from engine.backends.files.plan import BatchProfile, PlanFacts, PlanFile, read_plan_file, write_plan_file, write_whole
from engine.backends.tensorrt.api import (
    Library,
    TensorRt,
    library_to_run,
    load_tensorrt,
    make_progress_monitor,
    parse_onnx,
    tensor_spec,
    why_not_library,
)
from engine.backends.tensorrt.network import COUNTING, doubts, why_not_model
from engine.backends.tensorrt.plan_size import at_size
from engine.backends.tensorrt.precision import PRECISIONS, Precision, with_precision
from engine.errors import ConfigError, ModelError

logger = logging.getLogger(__name__)

Report = Callable[[float, str], None]
MAX_BATCH = 1024
MIB = 1 << 20
MEMINFO = Path("/proc/meminfo")
MIN_WORKSPACE_MIB = 64


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build a plan.

    Attributes:
        precision: `fp16`, `fp32` or `int8`.
        batch: smallest, optimal and largest batch; ignored if the model fixes its batch.
        size_hw: rows and columns; the graph of a model with another fixed size is changed to take them.
        workspace_mib: GPU memory that the build may use; None: the library's default, all of it.
        dla_core: deep learning accelerator of a Jetson, with the GPU for what it cannot do; None: the GPU alone.
        optimization_level: 0 (quick to build) to 5; None: the library's default.
        calibration_id: identity of the calibration images, so that different images give a different plan; `int8` only.
    """

    precision: Precision = "fp16"
    batch: BatchProfile = (1, 1, 1)
    size_hw: tuple[int, int] | None = None
    workspace_mib: int | None = None
    dla_core: int | None = None
    optimization_level: int | None = None
    calibration_id: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f'precision "{self.precision}": expected {", ".join(PRECISIONS)}')
        smallest, optimal, largest = self.batch
        if not 1 <= smallest <= optimal <= largest <= MAX_BATCH:
            raise ConfigError(f"batch {self.batch}: expected smallest <= optimal <= largest, between 1 and {MAX_BATCH}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise ConfigError(f"optimization level {self.optimization_level}: expected 0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"workspace of {self.workspace_mib} MiB: expected 1 or more")


def parse_batch(text: str) -> BatchProfile:
    """Return the batch profile of `N`, `MIN:MAX` or `MIN:OPTIMAL:MAX`. Raises `ConfigError`.

    >>> parse_batch("1:8:16"), parse_batch("1:16"), parse_batch("4")
    ((1, 8, 16), (1, 16, 16), (4, 4, 4))
    """
    parts = text.split(":")
    if not all(part.isdecimal() for part in parts) or len(parts) > 3:
        raise ConfigError(f'batch "{text}": expected N, MIN:MAX or MIN:OPTIMAL:MAX, for example 1:8:16')
    numbers = [int(part) for part in parts]
    smallest, largest = numbers[0], numbers[-1]
    return smallest, numbers[1] if len(numbers) == 3 else largest, largest


@dataclass(frozen=True, slots=True)
class Prepared:
    """An ONNX model that is ready to build.

    Attributes:
        content: the model, with its arithmetic in the wanted precision.
        accuracy: what the accuracy gate measured, for the plan's header.
    """

    content: bytes
    accuracy: Mapping[str, float] = field(default_factory=dict)


Prepare = Callable[[], Prepared]


@dataclass(frozen=True, slots=True)
class PlanPlace:
    """Where a plan runs: the part of a plan's identity that does not depend on the model."""

    library: Library
    library_version: str
    cuda_version: str
    gpu: Gpu | None

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Compute capability of the GPU; (0, 0) if there is none."""
        return self.gpu.compute_capability if self.gpu else (0, 0)


def plan_place(trt: TensorRt, probe: CudaProbe) -> PlanPlace:
    """Describe this machine as a place for plans."""
    usable = probe.reason is None and bool(probe.gpus)
    cuda = ".".join(map(str, probe.driver_version)) if usable and probe.driver_version else ""
    return PlanPlace(trt.library, trt.version, cuda, probe.gpus[0] if usable else None)


def build_plan(
    model: Path,
    output: Path,
    options: BuildOptions | None = None,
    *,
    library: Library | None = None,
    prepare: Prepare | None = None,
    timing_cache: Path | None = None,
    report: Report | None = None,
    key: str = "",
) -> PlanFile:
    """Build a plan from an ONNX model and write it with its header.

    Args:
        model: an ONNX file.
        output: the plan file, written atomically.
        options: precision, batches and limits.
        library: `tensorrt` or `tensorrt_rtx`; None: the installed one.
        prepare: returns the ONNX in its precision. INT8 needs it: calibration and the accuracy gate are the caller's.
        timing_cache: file that keeps measured kernel times between builds; TensorRT-RTX has none.
        report: called with the fraction done and the phase; an exception from it cancels the build and is re-raised.
        key: of the plan cache, for the header.

    Raises:
        ModelError: the model is broken, or uses something that the library does not support.
        FixedSizeError: its graph cannot take images of `options.size_hw`.
        ConfigError: the options cannot work here.
        MissingDependencyError: no TensorRT.
    """
    options = options or BuildOptions()
    probe = probe_cuda()
    trt = library_for_building(library, probe)
    facts = read_model_file(model)
    if facts.format != "onnx":
        raise ModelError(f"{facts.path}: a plan is built from ONNX, this is {facts.format}: export it as ONNX first")
    obstacle = why_not_model(facts, trt.library)
    if obstacle is not None:
        raise ModelError(obstacle)
    is_dynamic = facts.inputs[0].shape[0] is None and options.batch[0] != options.batch[2]
    for doubt in doubts(facts, trt.library, trt.version, precision=options.precision, is_dynamic=is_dynamic):
        logger.warning("%s", doubt)
    if trt.is_rtx and options.precision == "int8":
        logger.warning("TensorRT-RTX lists no INT8 convolutions: this plan may be slower than one of FP16")
    prepared = prepare() if prepare else Prepared(with_precision(facts.path, options.precision)[0])
    content = at_size(prepared.content, facts, options.size_hw)
    limited = with_memory_limit(options, probe.gpus[0] if probe.gpus else None)
    plan, inputs, outputs = build_serialized(trt, content, facts, limited, timing_cache=timing_cache, report=report)
    target = plan_place(trt, probe)
    header = PlanFacts(
        library=target.library,
        library_version=target.library_version,
        cuda_version=target.cuda_version,
        gpu=target.gpu.name if target.gpu else "",
        compute_capability=target.compute_capability,
        precision=options.precision,
        batch=options.batch if inputs[0].shape[0] is None else (inputs[0].shape[0],) * 3,
        inputs=inputs,
        outputs=outputs,
        model=facts.path.name,
        model_sha256=model_sha256(facts.path),
        key=key,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        accuracy=prepared.accuracy,
        dla_core=options.dla_core,
        can_record=not COUNTING & set(facts.operators),
    )
    write_plan_file(output, plan, header, facts.metadata)
    return read_plan_file(output)


def with_memory_limit(options: BuildOptions, gpu: Gpu | None, meminfo: Path = MEMINFO) -> BuildOptions:
    """Return options that limit a build on an integrated GPU to a quarter of the free memory, unless they set a limit.

    A Jetson's GPU shares the machine's memory with the engine that serves meanwhile.

    Args:
        options: as requested.
        gpu: the one that builds; None if there is none.
        meminfo: the kernel's memory report, for tests.
    """
    if options.workspace_mib is not None or gpu is None or not gpu.is_integrated:
        return options
    try:
        available = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return options
    return replace(options, workspace_mib=max(int(available.split()[1]) // 1024 // 4, MIN_WORKSPACE_MIB))


def library_for_building(library: Library | None, probe: CudaProbe) -> TensorRt:
    """Return the library to build with. Without a GPU TensorRT proper is not touched, because it would crash.

    Raises:
        ConfigError: it cannot build here.
        MissingDependencyError: it is not installed.
    """
    if probe.reason is not None and library != "tensorrt_rtx":
        if library == "tensorrt":
            raise ConfigError(f"TensorRT builds on the GPU that the plan is for, and there is none: {probe.reason}")
        library = "tensorrt_rtx"  # can build without a GPU
    trt = load_tensorrt(library or library_to_run(probe))
    obstacle = why_not_library(probe, trt.library) if probe.reason is None else None
    if obstacle is not None:
        raise ConfigError(obstacle)
    return trt


def build_serialized(
    trt: TensorRt,
    content: bytes,
    facts: ModelFile,
    options: BuildOptions,
    *,
    timing_cache: Path | None = None,
    report: Report | None = None,
) -> tuple[bytes, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the serialized engine of an ONNX model in memory, with its inputs and outputs. Raises `ModelError`."""
    builder = trt.make(trt.module.Builder)
    network = builder.create_network(_network_flags(trt, options))
    parse_onnx(trt, network, content, str(facts.path))
    config = builder.create_builder_config()
    _apply(trt, builder, config, options)
    profile = builder.create_optimization_profile()
    if _fill_profile(profile, network, options):
        config.add_optimization_profile(profile)
    _load_timing_cache(trt, config, timing_cache)
    monitor = make_progress_monitor(trt, report) if report else None
    if monitor is not None:
        config.progress_monitor = monitor
    trt.messages.take()
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.failure is not None:
        raise monitor.failure
    if plan is None:
        raise ModelError(f"{facts.path}: {trt} cannot build it: {trt.messages.take()}")
    _save_timing_cache(trt, config, timing_cache)
    inputs = _specs(network.get_input, network.num_inputs)
    return bytes(plan), inputs, _specs(network.get_output, network.num_outputs)


def _network_flags(trt: TensorRt, options: BuildOptions) -> int:
    """Return flags for a network that computes in the model's own types; a DLA needs precision flags instead."""
    network_flags = trt.module.NetworkDefinitionCreationFlag
    if options.dla_core is not None or not hasattr(network_flags, "STRONGLY_TYPED"):
        return 0
    return 1 << int(network_flags.STRONGLY_TYPED)


def _apply(trt: TensorRt, builder: Any, config: Any, options: BuildOptions) -> None:
    builder_flags = trt.module.BuilderFlag
    if hasattr(
        builder_flags, "REQUIRE_USER_ALLOCATION"
    ):  # without it RTX allocates at run time, which rules out CUDA graphs
        config.set_flag(builder_flags.REQUIRE_USER_ALLOCATION)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.module.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.dla_core is not None:
        _use_dla(trt, builder, config, options)


def _use_dla(trt: TensorRt, builder: Any, config: Any, options: BuildOptions) -> None:
    builder_flags = trt.module.BuilderFlag
    if trt.is_rtx or not hasattr(builder_flags, "FP16"):
        raise ConfigError(f"{trt} does not build for a DLA: leave --dla out, or use TensorRT 10 on a Jetson")
    if options.precision == "fp32":
        raise ConfigError("a DLA does not compute in FP32: choose --precision fp16")
    if options.precision == "int8":  # Model-Optimizer issue 1661: quantise/dequantise pairs fall back to the GPU
        raise ConfigError("a DLA does not run the Q/DQ pairs of our INT8 models: choose --precision fp16")
    if not 0 <= (options.dla_core or 0) < builder.num_DLA_cores:
        found = f"{builder.num_DLA_cores}, counted from 0" if builder.num_DLA_cores else "none"
        raise ConfigError(f"DLA core {options.dla_core}: this device has {found}")
    config.set_flag(builder_flags.FP16)
    config.set_flag(builder_flags.GPU_FALLBACK)
    config.default_device_type = trt.module.DeviceType.DLA
    config.DLA_core = options.dla_core


def _fill_profile(profile: Any, network: Any, options: BuildOptions) -> bool:
    """Set the range of each dynamic size; return whether there are any."""
    needed = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = [int(size) for size in tensor.shape]
        if -1 not in shape:
            continue
        bounds = [_concrete(tensor.name, shape, batch, options.size_hw) for batch in options.batch]
        if -1 in shape[1:]:  # a fixed image size in the network also fixes its output sizes
            tensor.shape = (shape[0], *bounds[0][1:])
        if options.batch[0] == options.batch[2]:  # a single batch size leaves no shape dynamic
            tensor.shape = bounds[0]
            continue
        profile.set_shape(tensor.name, *bounds)
        needed = True
    return needed


def _concrete(name: str, shape: Sequence[int], batch: int, size_hw: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape with its dynamic sizes filled in: the first is the batch, the last two are rows and columns."""
    filled = list(shape)
    if filled[0] < 0:
        filled[0] = batch
    places = (2, 3) if len(shape) == 4 and shape[3] != 3 else (1, 2)
    for place, size in zip(places, size_hw or (), strict=False):
        if place < len(filled) and filled[place] < 0:
            filled[place] = size
    if min(filled) < 0:
        raise ConfigError(f"input {name} {tuple(shape)} leaves its image size open: give it with --imgsz")
    return tuple(filled)


def _specs(get: Callable[[int], Any], count: int) -> tuple[TensorSpec, ...]:
    tensors = [get(index) for index in range(count)]
    return tuple(tensor_spec(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors)


def _load_timing_cache(trt: TensorRt, config: Any, path: Path | None) -> None:
    if path is None or trt.is_rtx:
        return
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        logger.info("timing cache %s is damaged, or belongs to another GPU or version: starting over", path)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _save_timing_cache(trt: TensorRt, config: Any, path: Path | None) -> None:
    if path is None or trt.is_rtx:
        return
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        write_whole(path, bytes(cache.serialize()))
    except OSError as error:
        logger.warning("timing cache %s cannot be written (%s): the next build measures again", path, error)


def model_sha256(path: Path) -> str:
    """Return the SHA-256 of an ONNX file and its external weights, in hexadecimal. Raises `ModelError`."""
    digest = hashlib.sha256()
    for place in (path, *read_model_file(path).weight_files):
        with place.open("rb") as file:
            while block := file.read(MIB):
                digest.update(block)
    return digest.hexdigest()


def target_facts(target: PlanPlace) -> Mapping[str, Any]:
    """Return the facts of a place that a plan depends on, as plain values for keys and reports."""
    return {
        "library": target.library,
        "library_version": target.library_version,
        "cuda_version": "" if target.library == "tensorrt_rtx" else target.cuda_version,  # RTX compiles at load
        "gpu": target.gpu.name if target.gpu else "",
        "compute_capability": list(target.compute_capability),
    }
