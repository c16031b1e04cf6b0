"""Every error that the engine raises on purpose, as one tree.

    EngineError
    ├── ConfigError(ValueError)             a value, key or argument that cannot work
    ├── SourceError(OSError)                a camera, stream or file that cannot be opened or read
    ├── ModelError                          a model file that is broken or not supported
    │   └── LostInferenceError              one inference has no result, and the next one may
    ├── MissingDependencyError(ImportError) an optional package that is not installed
    ├── SinkError(OSError)                  an output that cannot be opened or written
    ├── StageError                          a stage failed and stopped the pipeline; the cause is attached
    └── WireError                           bytes that are not a message, or of another major version

A message says what is wrong, what was found, and what to do about it.
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of all errors raised by `engine`."""


class ConfigError(EngineError, ValueError):
    """A value, key or argument that cannot work."""


class SourceError(EngineError, OSError):
    """A camera, stream or file that cannot be opened or read."""


class ModelError(EngineError):
    """A model file that is broken or not supported."""


class LostInferenceError(ModelError):
    """One inference has no result; the model is sound, and the next inference may succeed.

    Attributes:
        cause: the cause under which its frames are counted as dropped.
    """

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason)
        self.cause = cause


class MissingDependencyError(EngineError, ImportError):
    """An optional package that is not installed."""


class SinkError(EngineError, OSError):
    """An output (socket, file, window) that cannot be opened or written."""


class StageError(EngineError):
    """A stage failed and the pipeline stopped; `__cause__` is the original error."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"{stage} failed: {cause}")
        self.stage = stage


class WireError(EngineError):
    """Bytes that are not a message of this schema, or of another major version."""
