"""TensorRT-RTX's runtime cache and eager contexts, with a stand-in that answers as version 1.7 does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.backends.tensorrt.api import Messages, TensorRt
from engine.backends.tensorrt.runtime_cache import ContextFactory


class Cache:
    """`IRuntimeCache`."""

    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels"):
            return False
        self.content = blob
        return True

    def serialize(self) -> bytes:
        return self.content


class Config:
    """`IRuntimeConfig`."""

    dynamic_shapes_kernel_specialization_strategy: Any = "LAZY"

    def __init__(self) -> None:
        self.cache: Cache | None = None

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Engine:
    """`ICudaEngine`; each context adds its compiled kernels to the cache that it was given."""

    def __init__(self) -> None:
        self.configs: list[Config | None] = []

    def create_runtime_config(self) -> Config:
        return Config()

    def create_execution_context(self, config: Config | None = None) -> str:
        self.configs.append(config)
        if config is not None and config.cache is not None:
            config.cache.content = config.cache.content or b"kernels compiled"
        return "context"


RTX = SimpleNamespace(DynamicShapesKernelSpecializationStrategy=SimpleNamespace(LAZY="LAZY", EAGER="EAGER"))


def _library(module: Any, name: Any) -> TensorRt:
    return TensorRt(module, name, "1.7.0", None, Messages())


def test_rtx_contexts_are_eager_and_share_one_cache_that_is_kept(tmp_path: Path) -> None:
    engine, path = Engine(), tmp_path / "yolo.plan.kernels"
    contexts = ContextFactory(engine, _library(RTX, "tensorrt_rtx"), path)
    assert [contexts.create(), contexts.create()] == ["context", "context"]
    first, second = engine.configs
    assert first is second is not None
    assert first.dynamic_shapes_kernel_specialization_strategy == "EAGER"
    contexts.save()
    assert path.read_bytes() == b"kernels compiled"
    again = ContextFactory(Engine(), _library(RTX, "tensorrt_rtx"), path)
    assert again._cache.content == b"kernels compiled"


def test_an_unchanged_cache_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "yolo.plan.kernels"
    contexts = ContextFactory(Engine(), _library(RTX, "tensorrt_rtx"), path)
    contexts.create()
    contexts.save()
    path.unlink()
    contexts.save()
    assert not path.exists()


def test_a_damaged_cache_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "yolo.plan.kernels"
    path.write_bytes(b"rubbish")
    contexts = ContextFactory(Engine(), _library(RTX, "tensorrt_rtx"), path)
    contexts.create()
    contexts.save()
    assert path.read_bytes() == b"kernels compiled"


def test_a_cache_that_other_users_could_have_written_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "yolo.plan.kernels"
    path.write_bytes(b"kernels of a stranger")
    path.chmod(0o666)
    contexts = ContextFactory(Engine(), _library(RTX, "tensorrt_rtx"), path)
    assert contexts._cache.content == b""
    assert "chmod o-w" in caplog.text


def test_a_folder_that_cannot_be_written_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    contexts = ContextFactory(Engine(), _library(RTX, "tensorrt_rtx"), tmp_path / "file" / "yolo.plan.kernels")
    contexts.create()
    contexts.save()
    contexts.save()
    assert caplog.text.count("the next start compiles again") == 1


def test_tensorrt_proper_makes_its_contexts_as_they_are(tmp_path: Path) -> None:
    engine = Engine()
    contexts = ContextFactory(engine, _library(SimpleNamespace(), "tensorrt"), None)
    assert contexts.create() == "context"
    contexts.save()
    contexts.close()
    assert engine.configs == [None]
