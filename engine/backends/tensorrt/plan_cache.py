"""The plan cache: plans are found by a key of everything they depend on, and refused with a reason if they do not fit.

The key covers the model's bytes, library and version, CUDA, GPU, precision, batches and limits. A plan in the cache is
used only if its own header carries that key and its bytes match that header.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.plan import FORMAT, PlanFacts, PlanFile, PlanFolderError, read_plan_file
from engine.backends.tensorrt.api import NAMES, Library
from engine.backends.tensorrt.build_plan import (
    BuildOptions,
    PlanPlace,
    Prepare,
    Report,
    build_plan,
    library_for_building,
    model_sha256,
    plan_place,
    target_facts,
)
from engine.errors import ModelError
from engine.paths import user_cache

logger = logging.getLogger(__name__)

KEY_LENGTH = 20
RECIPE = 4
"""Version of the way plans are built: a new number leaves existing plans untouched."""
REMEDY = "name a folder that you can write to: --cache-dir of framewire build, detector.cache_dir of a run"


def plan_key(model_digest: str, target: PlanPlace, options: BuildOptions) -> str:
    """Return the key of a plan; equal keys mean equal plans."""
    parts = {"format": FORMAT, "recipe": RECIPE, "model": model_digest, **target_facts(target), **asdict(options)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def why_not_plan(facts: PlanFacts, target: PlanPlace) -> str | None:
    """Return why a plan cannot run on a target, for the user, or None if it can."""
    built = f"{NAMES.get(facts.library, facts.library)} {facts.library_version}"
    here = f"{NAMES[target.library]} {target.library_version}"
    if built != here:
        return f"was built with {built}, this is {here}"
    if target.gpu is not None and facts.library == "tensorrt" and facts.compute_capability != target.compute_capability:
        major, minor = facts.compute_capability
        return f"was built on {facts.gpu} (sm_{major}{minor}), this is {target.gpu}"
    return None


def cache_for(model: Path, folder: Path | None = None) -> PlanCache:
    """Return the cache of a model's plans: in `folder`, otherwise beside the model, otherwise in the user's cache.

    Raises:
        PlanFolderError: the model's folder cannot be written, and the user has no home folder.
    """
    beside = model.parent
    if folder is not None or os.access(beside, os.W_OK | os.X_OK):
        return PlanCache(folder or beside)
    return PlanCache(_user_folder(), beside)


def _user_folder() -> Path:
    """Return the user's folder of plans."""
    try:
        return user_cache() / "plans"
    except RuntimeError as error:
        raise PlanFolderError(f"no folder for plans ({error}): {REMEDY}") from error


@dataclass(frozen=True)
class PlanCache:
    """A folder of plans.

    Attributes:
        folder: where plans are built and found.
        beside: another folder in which plans are found; read-only.
    """

    folder: Path
    beside: Path | None = None

    def path(self, model: Path, options: BuildOptions, key: str) -> Path:
        """Return the path of the plan with this key."""
        return self.folder / f"{model.stem}-{options.precision}-{key}.plan"

    def find(self, model: Path, target: PlanPlace, options: BuildOptions) -> tuple[PlanFile | None, str]:
        """Return the cached plan of a model, or None, and the reason for either."""
        key = plan_key(model_sha256(model), target, options)
        path = self.path(model, options, key)
        if not path.is_file() and self.beside is not None and (self.beside / path.name).is_file():
            path = self.beside / path.name
        if not path.is_file():
            others = self._others(f"{glob.escape(model.stem)}-{options.precision}-*.plan")
            reasons = [reason for other in others if (reason := self._why_not(other, target)) is not None]
            return None, reasons[0] if reasons else "none was built for this model, GPU and setting yet"
        try:
            found = read_plan_file(path)
            if found.facts is None or found.facts.key != key:
                return None, f"{path.name} is not the plan that its name promises"
            found.plan()
        except (ModelError, OSError) as error:
            return None, str(error)
        return found, f"built before: {path}"

    def _others(self, pattern: str) -> list[Path]:
        folders = [self.folder] if self.beside is None else [self.folder, self.beside]
        return [path for folder in folders for path in sorted(folder.glob(pattern))]

    def _why_not(self, path: Path, target: PlanPlace) -> str | None:
        try:
            facts = read_plan_file(path).facts
        except (ModelError, OSError):
            return None
        reason = why_not_plan(facts, target) if facts else None
        return f"{path.name} {reason}" if reason else None

    def get_or_build(
        self,
        model: Path,
        options: BuildOptions,
        *,
        library: Library | None = None,
        prepare: Prepare | None = None,
        report: Report | None = None,
    ) -> tuple[PlanFile, str]:
        """Return the plan of a model, from the cache or newly built, and the reason for either.

        If several processes call this at once, one builds and the others wait for it.

        Args:
            model: an ONNX file.
            options: how to build.
            library: `tensorrt` or `tensorrt_rtx`; None: the installed one.
            prepare: returns the ONNX in its precision, as for `build_plan`; called only if a plan must be built.
            report: called with the fraction done and the phase.

        Raises:
            ModelError, ConfigError, MissingDependencyError: as `build_plan`.
            PlanFolderError: the folder cannot be written.
        """
        probe = probe_cuda()
        trt = library_for_building(library, probe)
        target = plan_place(trt, probe)
        with self._locked():
            found, reason = self.find(model, target, options)
            if found is not None:
                return found, reason
            logger.info("building a plan of %s: %s", model, reason)
            key = plan_key(model_sha256(model), target, options)
            built = build_plan(
                model,
                self.path(model, options, key),
                options,
                library=trt.library,
                prepare=prepare,
                timing_cache=self.folder / f"timing-{trt.library}-{trt.version}.cache",
                report=report,
                key=key,
            )
        return built, f"built now: {reason}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock: one builder at a time, across processes."""
        import fcntl  # not on Windows, where the other backends must still import

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise PlanFolderError(f"plans cannot be kept in {self.folder} ({error.strerror}): {REMEDY}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
