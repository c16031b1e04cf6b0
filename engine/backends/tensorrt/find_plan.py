"""Finding the plan to run: the given file, or one in the cache, which is built from ONNX if it is missing.

A plan that does not fit this library or GPU is rebuilt if the ONNX file that it came from lies beside it. `find_plan`
returns what must be built without building it, so that another process can build it meanwhile.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.backends.base import BackendOptions
from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFacts, PlanFile, read_plan_file
from engine.backends.tensorrt.api import Library, installed_libraries, library_to_run, load_tensorrt
from engine.backends.tensorrt.build_plan import BuildOptions, model_sha256, plan_place
from engine.backends.tensorrt.network import usual_precision
from engine.backends.tensorrt.plan_cache import PlanCache, cache_for, why_not_plan
from engine.backends.tensorrt.plan_size import fixed_size
from engine.backends.tensorrt.precision import PRECISIONS, Precision
from engine.errors import ConfigError, ModelError

logger = logging.getLogger(__name__)

PRECISION_BY_NAME: Mapping[str, Precision] = {
    "f32": "fp32", "fp32": "fp32", "float32": "fp32",
    "f16": "fp16", "fp16": "fp16", "float16": "fp16",
    "i8": "int8", "int8": "int8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MissingPlan:
    """A plan that must be built before it can run.

    Attributes:
        model: the ONNX file.
        options: how to build it.
        folder: of the plan cache.
        reason: why there is none, for the user.
    """

    model: Path
    options: BuildOptions
    folder: Path
    reason: str

    @property
    def command(self) -> str:
        """The command that builds it."""
        words, file = ["framewire", "build", str(self.model)], read_model_file(self.model)
        if self.options.precision != usual_precision(file):
            words += ["--precision", self.options.precision]
        if self.options.batch != (1, 1, 1):
            words += ["--batch", ":".join(map(str, self.options.batch))]
        size = self.options.size_hw
        if size is not None and size != fixed_size(file):
            words += ["--imgsz", str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"]
        if self.folder != cache_for(self.model).folder:
            words += ["--cache-dir", str(self.folder)]
        return shlex.join(words)


def find_plan(path: Path, options: BackendOptions) -> PlanFile | MissingPlan:
    """Return the plan file to run for `path`, an ONNX or plan file, or what must be built for it.

    Raises:
        ConfigError: a precision that cannot be built here.
        ModelError: a plan with a broken header.
        MissingDependencyError: no TensorRT.
    """
    if path.suffix.lower() == ".onnx":
        return _cached(path, _build_options(path, options), options.cache_dir)
    file = read_plan_file(path)
    origin = _origin(file)
    if file.facts is None or origin is None:
        return file
    reason = why_not_plan(file.facts, plan_place(load_tensorrt(library_of(file)), probe_cuda()))
    if reason is None:
        return file
    reason = f"plan {path.name} {reason}"
    logger.warning("%s: using one built from %s", reason, origin.name)
    found = _cached(origin, _same_again(file.facts, options), options.cache_dir)
    return found if isinstance(found, PlanFile) else replace(found, reason=reason)


def plan_to_run(path: Path, options: BackendOptions) -> PlanFile:
    """Return the plan file to run for `path`, building it first if it is missing and `options.build_plans` allows it.

    Raises:
        ConfigError, ModelError, MissingDependencyError: as `find_plan`; also if it is missing and must not be built.
    """
    found = find_plan(path, options)
    if isinstance(found, PlanFile):
        return found
    if not options.build_plans:
        raise ModelError(f'no plan for {path}: {found.reason}; build it with "{found.command}"')
    logger.warning("no plan for %s: %s; building it first, which can take minutes", path, found.reason)
    file, reason = PlanCache(found.folder).get_or_build(found.model, found.options)
    logger.info("plan %s", reason)
    return file


def library_of(file: PlanFile) -> Library | None:
    """Return the library that a plan is for, or None if that one is not installed."""
    library: Library = "tensorrt_rtx" if file.facts and file.facts.library == "tensorrt_rtx" else "tensorrt"
    return library if library in installed_libraries() else None


def _cached(model: Path, options: BuildOptions, folder: Path | None) -> PlanFile | MissingPlan:
    probe = probe_cuda()
    target = plan_place(load_tensorrt(library_to_run(probe)), probe)
    cache = cache_for(model, folder)
    found, reason = cache.find(model, target, options)
    return MissingPlan(model, options, cache.folder, reason) if found is None else found


def _build_options(path: Path, options: BackendOptions) -> BuildOptions:
    asked = options.precision or usual_precision(read_model_file(path))
    if asked not in PRECISION_BY_NAME:
        raise ConfigError(f'precision "{asked}": TensorRT computes in fp32, fp16 or int8')
    if PRECISION_BY_NAME[asked] == "int8":
        command = f"{shlex.join(['framewire', 'build', str(path)])} --precision int8 --images FOLDER"
        raise ConfigError(f'INT8 needs images: build it with "{command}", and give the plan it names as the model')
    image, largest = options.image, options.max_batch
    optimal = 1 if options.performance == "latency" else largest  # kernels are chosen for this batch
    return BuildOptions(PRECISION_BY_NAME[asked], (1, optimal, largest), image.size_hw if image else None)


def _origin(file: PlanFile) -> Path | None:
    """Return the ONNX file beside a plan that it was built from, or None. INT8 plans need their images too."""
    facts = file.facts
    if facts is None or facts.precision not in PRECISIONS or facts.precision == "int8":
        return None
    model = file.path.parent / Path(facts.model).name
    if model.suffix.lower() != ".onnx" or not model.is_file():
        return None
    try:
        return model if model_sha256(model) == facts.model_sha256 else None
    except ModelError:
        return None  # a broken file is not the original


def _same_again(facts: PlanFacts, options: BackendOptions) -> BuildOptions:
    image = options.image
    precision: Precision = "fp32" if facts.precision == "fp32" else "fp16"
    return BuildOptions(precision, facts.batch, image.size_hw if image else None)
