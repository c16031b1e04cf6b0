"""A TensorRT backend on the fake GPU: a model that returns its images times two, and the mean of each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import BackendOptions, TensorSpec
from engine.backends.cuda.driver import CudaApi
from engine.backends.files.plan import PlanFacts, PlanFile, write_plan_file
from engine.backends.tensorrt.backend import Parts, TensorRtBackend
from engine.clock import FakeClock
from engine.testing.cuda import FAKE_GPU, FakeCuda
from engine.testing.tensorrt import FakePlan

PLAN = b"vtrt, but not really"


def doubled(feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.float32], ...]:
    images = feeds["images"].astype(np.float32)
    return images * 2, images.mean(axis=(2, 3))


def plan_facts(side: int = 8, **changes: object) -> PlanFacts:
    facts = PlanFacts(
        library="tensorrt",
        library_version="10.3.0",
        cuda_version="12.6",
        gpu="Fake GPU",
        compute_capability=(8, 9),
        precision="fp16",
        batch=(1, 3, 4),
        inputs=(TensorSpec("images", (None, 3, side, side), "float32"),),
        outputs=(
            TensorSpec("doubled", (None, 3, side, side), "float32"),
            TensorSpec("means", (None, 3), "float32"),
        ),
        model="pixels.onnx",
        plan_sha256=sha256(PLAN).hexdigest(),
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


class FakeMachine:
    """Backends on one fake GPU in sequence, and what they left behind on it."""

    def __init__(
        self,
        folder: Path,
        side: int = 8,
        *,
        is_integrated: bool = False,
        before: Callable[[str], None] = lambda operation: None,
        respond: Callable[[Mapping[str, NDArray[np.generic]]], tuple[NDArray[np.float32], ...]] = doubled,
        max_batch: int = 4,
        min_batch: int = 1,
    ) -> None:
        self.path = folder / "pixels.plan"
        self.facts = plan_facts(side)
        write_plan_file(self.path, PLAN, self.facts, {"names": "{0: 'pixel'}"})
        self.gpus: list[FakeCuda] = []
        self.clock = FakeClock()
        self._before, self._respond, self._max_batch = before, respond, max_batch
        self._is_integrated, self._min_batch = is_integrated, min_batch

    @property
    def cuda(self) -> FakeCuda:
        """The GPU that was opened last."""
        return self.gpus[-1]

    def backend(self, options: BackendOptions | None = None) -> TensorRtBackend:
        parts = Parts(self._open, self._load, lambda capability: b"cubin", lambda: None, self.clock)
        return TensorRtBackend(self.path, options, parts=parts)

    def _open(self) -> CudaApi:
        self.gpus.append(FakeCuda(replace(FAKE_GPU, is_integrated=self._is_integrated), self._before))
        return self.cuda

    def _load(self, cuda: CudaApi, file: PlanFile) -> FakePlan:
        assert isinstance(cuda, FakeCuda)
        assert file.plan() == PLAN
        facts = self.facts
        self.plan = FakePlan(cuda, facts.inputs, facts.outputs, self._respond, self._max_batch, self._min_batch)
        return self.plan
