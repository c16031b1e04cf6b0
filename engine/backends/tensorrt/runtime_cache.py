"""Fast execution contexts for TensorRT-RTX, and the kernels that it compiles, kept between starts.

TensorRT-RTX compiles kernels when it loads a plan. By default it runs a slow fallback kernel on a dynamic shape and
compiles the fast one in the background; a CUDA graph recorded meanwhile keeps replaying the slow one. So contexts use
the eager strategy, and what was compiled is written beside the plan. TensorRT proper needs none of this.

Source: TensorRT-RTX 1.7, `IRuntimeConfig` and `IRuntimeCache`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from engine.backends.files.plan import why_not_trusted, write_whole
from engine.backends.tensorrt.api import TensorRt

logger = logging.getLogger(__name__)
MAX_CACHE_BYTES = 1 << 30


class ContextFactory:
    """Makes the execution contexts of one loaded plan, which share a runtime cache.

    Args:
        engine: `ICudaEngine`.
        trt: its library.
        path: file of the runtime cache; None: keep nothing.
        is_eager: compile the fast kernels before a context runs; False only to measure the benefit.
    """

    def __init__(self, engine: Any, trt: TensorRt, path: Path | None, *, is_eager: bool = True) -> None:
        self._engine = engine
        self._path = path
        self._config: Any = None
        self._cache: Any = None
        self._saved = b""
        if hasattr(trt.module, "DynamicShapesKernelSpecializationStrategy"):
            self._config = engine.create_runtime_config()
            strategies = trt.module.DynamicShapesKernelSpecializationStrategy
            strategy = strategies.EAGER if is_eager else strategies.LAZY
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._open_cache()

    def create(self) -> Any:
        """Return a new `IExecutionContext`, or None if the library refuses."""
        if self._config is None:
            return self._engine.create_execution_context()
        return self._engine.create_execution_context(self._config)

    def save(self) -> None:
        """Write the runtime cache if it has changed; log once if the folder cannot be written."""
        if self._cache is None or self._path is None:
            return
        content = bytes(self._cache.serialize())
        if content == self._saved:
            return
        try:
            write_whole(self._path, content)
        except OSError as error:
            logger.warning(
                "the runtime cache %s cannot be written (%s): the next start compiles again", self._path, error
            )
            self._path = None
        self._saved = content

    def close(self) -> None:
        """Release cache and configuration, before the engine."""
        self._cache = self._config = None

    def _open_cache(self) -> None:
        if self._path is None or not hasattr(self._config, "create_runtime_cache"):
            return
        cache = self._config.create_runtime_cache()
        content = _trusted_content(self._path)
        if content and not cache.deserialize(content):
            logger.info("the runtime cache %s is damaged, or of another GPU or version: starting a new one", self._path)
            content = b""
        if self._config.set_runtime_cache(cache):
            self._cache, self._saved = cache, content


def _trusted_content(path: Path) -> bytes:
    """Return the bytes of a runtime cache; empty if there is none or other users could have written it."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_CACHE_BYTES:
            return b""
        reason = why_not_trusted(path)
        if reason is not None:
            logger.warning("the runtime cache is not used: %s", reason)
            return b""
        return path.read_bytes()
    except OSError as error:
        logger.info("the runtime cache %s cannot be read: %s", path, error)
        return b""
