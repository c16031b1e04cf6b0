"""Plans that are missing or do not fit, built in the background while another backend serves.

A detector whose plan is missing is not used at once: one for the processor serves, a child process builds the plan, and
the pipeline goes over to the detector on the GPU once the plan is there. If that fails, the processor's stays, and a
line says why.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.backends.select import select_backend
from engine.backends.tensorrt_file import MissingPlan
from engine.data import SourceInfo
from engine.detection.detector import ModelDetector
from engine.pipeline import Pipeline
from engine.protocols import Detector
from pipelines.build import MakeDetector, build_detector, tiled
from pipelines.config import Config
from pipelines.detect_and_publish import innermost
from pipelines.plan_child import request_from_missing
from pipelines.reconfigure import set_at_once

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 16


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
        self._rest = b""
        self._lifeline, lifeline = socket.socketpair()
        command = [sys.executable, "-m", "pipelines.plan_child", request_from_missing(missing), str(lifeline.fileno())]
        with lifeline:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[lifeline.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                start_new_session=True,  # Ctrl-C on the terminal is the engine's affair
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def poll(self) -> bool:
        """Read what the process told and return whether it has ended."""
        assert self._process.stdout is not None
        ended = self._process.poll() is not None
        while block := self._process.stdout.read(MAX_LINE_BYTES):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                self._hear(line)
            self._rest = self._rest[-MAX_LINE_BYTES:]
        if ended and not self.is_built and self.failure is None:
            self.failure = f"the building process ended with code {self._process.returncode}"
        return ended

    def _hear(self, line: bytes) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return  # a library's own words
        if not isinstance(told, dict):
            return
        self.done, self.phase = float(told.get("done", self.done)), str(told.get("phase", self.phase))
        self.is_built = self.is_built or "built" in told
        self.failure = told.get("failed", self.failure)

    def close(self) -> None:
        """Kill the process where it has not ended; harmless when repeated."""
        self._process.kill()
        self._process.wait()
        self._lifeline.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


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
            logger.info("%s runs on its plan now", pipeline.run_facts.model)
        if change.state != "building" or not change.build.poll():
            return
        change.build.close()
        if change.build.failure is not None:
            self._fail(change, change.build.failure)
            return
        logger.info("the plan is built, in %.0f s", change.build.wall_s)
        change.state = "loading"
        model = innermost(change.detector)
        if isinstance(model, ModelDetector):
            set_at_once(model, config.detector)
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


def _missing(detector: Detector) -> MissingPlan | None:
    backend = getattr(innermost(detector), "inference", None)
    return backend.missing_plan() if isinstance(backend, NeedsPlan) else None


def _for_processor(config: Config, missing: MissingPlan) -> Config:
    """Return the configuration for the ONNX file on the processor, one frame per inference as is best there."""
    backend, _reason = select_backend(missing.model, without="tensorrt")
    changes = {"backend": backend, "model": str(missing.model), "precision": None, "letterbox_on": "auto"}
    return config.model_copy(update={"detector": config.detector.model_copy(update=changes)})


def _backend(detector: Detector) -> str:
    return str(getattr(innermost(detector), "backend", "another backend"))
