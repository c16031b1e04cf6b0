"""Plans that are missing or do not fit, built in the background while another backend serves.

A detector whose plan is missing is not used at once: one for the processor serves, a child process builds the plan, and
the pipeline goes over to the detector on the GPU once the plan is there. If that fails, the processor's stays, and a
line says why.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.backends.select import select_backend
from engine.backends.tensorrt.find_plan import MissingPlan
from engine.data import SourceInfo
from engine.detection.detector import ModelDetector
from engine.flow.pipeline import Pipeline
from engine.process import Child
from engine.protocols import Detector
from pipelines.build.detector import build_detector, tiled
from pipelines.build.pipeline import MakeDetector
from pipelines.config.models import Config
from pipelines.running.detect_and_publish import innermost
from pipelines.running.plan_child import request_from_missing
from pipelines.running.reconfigure import set_at_once

logger = logging.getLogger(__name__)


@runtime_checkable
class NeedsPlan(Protocol):
    """A backend that runs plans."""

    def missing_plan(self) -> MissingPlan | None:
        """Return the plan that must be built first, or None."""


class PlanBuild:
    """A plan being built by a child process; `poll` never waits.

    Args:
        missing: what to build.
    """

    def __init__(self, missing: MissingPlan) -> None:
        self.missing = missing
        self.done = 0.0
        self.phase = "starting"
        self.failure: str | None = None
        self.is_built = False
        self._started = time.monotonic()
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
        """Hear what the process tells and return whether it has ended."""
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
        """Kill the process where it has not ended; harmless when repeated."""
        self._child.end(0.0)


@dataclass
class _Change:
    """A detector that waits for its plan."""

    detector: Detector
    build: PlanBuild
    state: str = "building"
    failure: str = ""


class PlanRebuild:
    """Makes detectors as `build_detector` does, with a stand-in where `detector.rebuild` is `background`.

    Belongs to the thread that runs the pipeline.

    Args:
        make: makes a detector from a configuration.
    """

    def __init__(self, make: MakeDetector = build_detector) -> None:
        self._make = make
        self._change: _Change | None = None

    def detector(self, config: Config, sources: Sequence[SourceInfo]) -> Detector:
        """Return the configured detector, or one for the processor that serves until its plan is built.

        Raises:
            ConfigError, ModelError, MissingDependencyError: as `build_detector`.
        """
        self._drop()
        detector = self._make(config, sources)
        missing = _missing(detector)
        choice, backend = config.detector.rebuild, config.detector.backend
        if missing is None or choice == "foreground" or (choice, backend) == ("never", "tensorrt"):
            return detector
        stand_in = self._make(_for_processor(config, missing), sources)
        if choice == "never":
            logger.warning("%s serves: no plan, and none is to be built: %s", _backend(stand_in), missing.reason)
            return stand_in
        logger.warning("%s serves while a plan is built: %s", _backend(stand_in), missing.reason)
        self._change = _Change(tiled(config, detector), PlanBuild(missing))
        return stand_in

    def poll(self, pipeline: Pipeline, config: Config) -> None:
        """Go over to the detector whose plan is built, with the thresholds of `config`; never waits."""
        change = self._change
        if change is None:
            return
        if change.state == "loading" and pipeline.detector is change.detector:
            change.state = "in use"
            _set_at_once(change.detector, config)
            logger.info("%s runs on its plan now", pipeline.run_facts.model)
        if change.state != "building" or not change.build.poll():
            return
        change.build.close()
        if change.build.failure is not None:
            self._fail(change, change.build.failure)
            return
        logger.info("the plan is built, in %.0f s", change.build.wall_s)
        change.state = "loading"
        _set_at_once(change.detector, config)
        pipeline.exchange_detector(change.detector, lambda error: self._fail(change, str(error)))

    def _fail(self, change: _Change, reason: str) -> None:
        change.state, change.failure = "failed", reason
        logger.warning("no plan: %s; what serves goes on", reason)

    def status(self) -> dict[str, Any]:
        """Return how the plan fares under `plan`, for `ctl status` and the summary; nothing where none was needed."""
        change = self._change
        if change is None:
            return {}
        facts: dict[str, Any] = {"state": change.state, "reason": change.build.missing.reason}
        if change.state == "building":
            facts |= {"done": change.build.done, "phase": change.build.phase}
        if change.failure:
            facts["failure"] = change.failure
        return {"plan": facts}

    def _drop(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            change.build.close()

    def close(self) -> None:
        """End the building process at once; harmless when repeated. `status` stays."""
        if self._change is not None:
            self._change.build.close()


def _set_at_once(detector: Detector, config: Config) -> None:
    """Give a detector what may have changed since it was made: while its plan was built, and while it was loaded."""
    model = innermost(detector)
    if isinstance(model, ModelDetector):
        set_at_once(model, config.detector)


def _missing(detector: Detector) -> MissingPlan | None:
    backend = getattr(innermost(detector), "inference", None)
    return backend.missing_plan() if isinstance(backend, NeedsPlan) else None


def _for_processor(config: Config, missing: MissingPlan) -> Config:
    """Return the configuration for the ONNX file on the processor, one frame per inference as is best there."""
    backend, _reason = select_backend(missing.model, without=("tensorrt",))
    changes = {"backend": backend, "model": str(missing.model), "precision": None, "letterbox_on": "auto"}
    return config.model_copy(update={"detector": config.detector.model_copy(update=changes)})


def _backend(detector: Detector) -> str:
    return str(getattr(innermost(detector), "backend", "another backend"))
