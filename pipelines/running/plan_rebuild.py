"""Builds missing or unsuitable plans in the background while another backend runs.

If a detector's plan is missing, a CPU detector runs first, a child process builds the plan, and
the pipeline switches to the detector on the GPU once the plan is ready. If that fails, the CPU detector stays, and a
log line gives the reason.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from engine.backends.select import select_backend
from engine.data import DEFAULT_MODEL, SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.tiles import untiled
from engine.flow.defaults import describe
from engine.flow.pipeline import Pipeline
from engine.process import Child
from engine.protocols import Detector
from pipelines.build.detector import build_detector, options_of, tiled
from pipelines.build.models import MakeDetector
from pipelines.config.models import Config, DetectorConfig
from pipelines.running.model_changes import set_at_once, with_options

if TYPE_CHECKING:
    from engine.backends.tensorrt.find_plan import MissingPlan

logger = logging.getLogger(__name__)
NEVER_BUILT = ("never", "tensorrt")
"""`rebuild` and `backend` of a detector that should fail without its plan."""


@runtime_checkable
class NeedsPlan(Protocol):
    """A backend that runs plans."""

    def missing_plan(self) -> MissingPlan | None:
        """Return the plan that must be built first, or None if there is none."""


class PlanBuild:
    """A plan that a child process is building; `poll` never blocks.

    Args:
        missing: the plan to build.
    """

    def __init__(self, missing: MissingPlan) -> None:
        self.missing = missing
        self.done = 0.0
        self.phase = "starting"
        self.failure: str | None = None
        self.is_built = False
        self._started = time.monotonic()
        from pipelines.running.plan_child import request_from_missing

        self._child = Child("pipelines.running.plan_child")
        self._child.say(request_from_missing(missing).encode())

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def poll(self) -> bool:
        """Read the messages of the process and return whether it has ended."""
        try:
            while not self._is_over and self._child.connection.poll():
                self._hear(json.loads(self._child.connection.recv_bytes()))
        except (EOFError, OSError):
            self.failure = f"the building process ended with code {self._child.end(1.0)}"
        return self._is_over

    @property
    def _is_over(self) -> bool:
        return self.is_built or self.failure is not None

    def _hear(self, told: dict[str, Any]) -> None:
        self.done, self.phase = told.get("done", self.done), told.get("phase", self.phase)
        self.is_built = "built" in told
        self.failure = told.get("failed")

    def close(self) -> None:
        """Kill the process if it has not ended; safe to call again."""
        self._child.end(0.0)


@dataclass
class _Change:
    """A detector that is waiting for its plan."""

    detector: Detector
    build: PlanBuild
    state: str = "building"
    failure: str = ""


class PlanRebuild:
    """Makes detectors like `build_detector`, with a stand-in if `detector.rebuild` is `background`.

    Used only by the thread that runs the pipeline.

    Args:
        make: makes a detector from a configuration.
    """

    def __init__(self, make: MakeDetector = build_detector) -> None:
        self._make = make
        self._changes: dict[str, _Change] = {}

    def detector(self, config: Config, sources: Sequence[SourceInfo], model: str = DEFAULT_MODEL) -> Detector:
        """Return the configured detector of a model, or a CPU detector that runs until its plan is built.

        Raises:
            ConfigError, ModelError, MissingDependencyError: as `build_detector`.
        """
        self._drop(model)
        options = options_of(config, model)
        detector = self._make(config, sources, model)
        missing = _missing(detector)
        if missing is None or options.rebuild == "foreground" or (options.rebuild, options.backend) == NEVER_BUILT:
            return detector
        stand_in = self._make(_for_processor(config, missing, model), sources, model)
        if options.rebuild == "never":
            logger.warning("%s runs: there is no plan, and building is off: %s", _backend(stand_in), missing.reason)
            return stand_in
        logger.warning("%s runs while a plan is built: %s", _backend(stand_in), missing.reason)
        self._changes[model] = _Change(tiled(config, detector, model), PlanBuild(missing))
        return stand_in

    def poll(self, pipeline: Pipeline, config: Config) -> None:
        """Switch to detectors whose plan is built, with the thresholds of `config`; never blocks."""
        for model, change in list(self._changes.items()):
            if model in pipeline.models:
                self._poll(model, change, pipeline, options_of(config, model))

    def _poll(self, model: str, change: _Change, pipeline: Pipeline, options: DetectorConfig) -> None:
        lane = pipeline.models[model]
        if change.state == "loading" and lane.detector is change.detector:
            change.state = "in use"
            _set_at_once(change.detector, options)
            logger.info("%s runs on its plan now", lane.run.model)
        if change.state != "building" or not change.build.poll():
            return
        change.build.close()
        if change.build.failure is not None:
            self._fail(change, change.build.failure)
            return
        logger.info("the plan is built, in %.0f s", change.build.wall_s)
        change.state = "loading"
        _set_at_once(change.detector, options)
        pipeline.exchange_detector(change.detector, lambda error: self._fail(change, str(error)), model=model)

    def _fail(self, change: _Change, reason: str) -> None:
        change.state, change.failure = "failed", reason
        logger.warning("no plan: %s; the current backend continues", reason)

    def status(self) -> dict[str, Any]:
        """Return the state of the plans for `ctl status` and the summary; empty if none was needed.

        Returns:
            `plan` with the facts of the first, and `plans` with those of each model if there are several.
        """
        plans = {model: _facts(change) for model, change in self._changes.items()}
        first = {"plan": next(iter(plans.values()))} if plans else {}
        return first | ({"plans": plans} if len(plans) > 1 else {})

    def _drop(self, model: str) -> None:
        change = self._changes.pop(model, None)
        if change is not None:
            change.build.close()

    def close(self) -> None:
        """End the building processes immediately; safe to call again. `status` stays available."""
        for change in self._changes.values():
            change.build.close()


def _facts(change: _Change) -> dict[str, Any]:
    facts: dict[str, Any] = {"state": change.state, "reason": change.build.missing.reason}
    if change.state == "building":
        facts |= {"done": change.build.done, "phase": change.build.phase}
    if change.failure:
        facts["failure"] = change.failure
    return facts


def _set_at_once(detector: Detector, options: DetectorConfig) -> None:
    """Update a detector with settings that changed while its plan was built and while it was loaded."""
    model = untiled(detector)
    if isinstance(model, ModelDetector):
        set_at_once(model, options)


def _missing(detector: Detector) -> MissingPlan | None:
    model = untiled(detector)
    backend = model.inference if isinstance(model, ModelDetector) else None
    return backend.missing_plan() if isinstance(backend, NeedsPlan) else None


def _for_processor(config: Config, missing: MissingPlan, model: str) -> Config:
    """Return the configuration for the ONNX file on the CPU, with one frame per inference, the best setting there."""
    backend, _reason = select_backend(missing.model, without=("tensorrt",))
    changes = {"backend": backend, "model": str(missing.model), "precision": None, "letterbox_on": "auto"}
    return with_options(config, model, options_of(config, model).model_copy(update=changes))


def _backend(detector: Detector) -> str:
    return describe(detector).backend
