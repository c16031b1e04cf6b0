"""A fake GPU for the sections of `gpu_check`: ONNX Runtime runs its plans, and the processor our kernels."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from onnx import helper

from engine.backends.base import BackendOptions
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFile, read_plan_file, write_plan_file
from engine.backends.tensorrt.backend import Parts, TensorRtBackend
from engine.backends.tensorrt.build_plan import BuildOptions, Prepare
from engine.testing.cuda import FAKE_GPU, FakeCuda
from engine.testing.tensorrt import FakePlan
from tests.backends.cuda.processor_kernels import PROCESSOR_KERNELS
from tests.backends.tensorrt.fake_gpu import PLAN, plan_facts
from tests.backends.tensorrt.gpu_detector import gpu_parts
from tests.onnx_models import save_model
from tools.gpu.device import Device

NAMES = {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
MEMORY = replace(FAKE_GPU, memory_bytes=400 << 20)


class OneGpu(FakeCuda):
    """One GPU for everything that is opened: memory that one user leaves behind is missing for the others."""

    def close(self) -> None:
        """The others are still using it."""


class FakeDevice:
    """Makes a `Device`.

    Args:
        library: whose plans it builds, by the header.
    """

    def __init__(self, library: str = "tensorrt") -> None:
        self.gpu = OneGpu(MEMORY, kernels=PROCESSOR_KERNELS)
        self.library = library
        self.loaded: list[bool] = []
        self._model_by_plan: dict[Path, tuple[Path, int]] = {}

    def device(self) -> Device:
        return Device(
            open_api=lambda: self.gpu,
            open_packages=lambda: [("fake", self.gpu)],
            compile=lambda: b"cubin",
            build=self.build,
            build_halves=lambda model, output: model,
            load=self.load,
            backend=self.backend,
            bench="onnxruntime",
            repeats=4,
        )

    def build(self, model: Path, options: BuildOptions, folder: Path, prepare: Prepare | None = None) -> PlanFile:
        file = read_model_file(model)
        path = folder / f"{model.stem}-{options.precision}-{options.batch[2]}.plan"
        facts = plan_facts(
            library=self.library, inputs=file.inputs, outputs=file.outputs, precision=options.precision,
            batch=options.batch, plan_sha256=sha256(PLAN).hexdigest(),
        )  # fmt: skip
        write_plan_file(path, PLAN, facts, file.metadata)
        source = model
        if prepare is not None:  # INT8 runs as it was prepared
            source = folder / f"{model.stem}-{options.precision}.onnx"
            source.write_bytes(prepare().content)
        self._model_by_plan[path] = source, options.batch[2]
        return read_plan_file(path)

    def load(self, cuda: FakeCuda, file: PlanFile, *, is_eager: bool = True) -> FakePlan:
        self.loaded.append(is_eager)
        model, largest = self._model_by_plan[file.path]
        return gpu_parts(model, max_batch=largest).load_plan(cuda, file)  # type: ignore[misc,return-value,arg-type]

    def backend(self, model: Path, options: BackendOptions) -> TensorRtBackend:
        largest = options.max_batch
        file = self.build(model, BuildOptions("fp32", (1, largest, largest)), options.cache_dir or model.parent)
        parts = Parts(lambda: self.gpu, self.load, lambda capability: b"cubin", lambda: None)  # type: ignore[arg-type]
        return TensorRtBackend(file.path, replace(options, precision=None), parts=parts)


def small_detector(folder: Path) -> Path:
    """Two convolutions, for INT8, whose result is added to a head with one box without changing it."""
    head = np.zeros((7, 84), np.float32)
    head[:5, 3] = 20, 20, 9, 9, 0.9
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["first"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("Conv", ["first", "v"], ["second"]),
        helper.make_node("GlobalAveragePool", ["second"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "head"], ["output0"]),
    ]
    weights = {
        "w": np.full((4, 3, 8, 8), 0.01, np.float32),
        "v": np.full((7, 4, 1, 1), 0.1, np.float32),
        "shape": np.array([0, 7, 1], np.int64),
        "nothing": np.float32(0),
        "head": head[None],
    }
    outputs = {"output0": ("batch", 7, 84)}
    return save_model(folder / "small.onnx", nodes, {"images": ("batch", 3, 64, 64)}, outputs, weights, NAMES)
