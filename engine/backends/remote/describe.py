"""Describes a model on an inference server in the same form as a model file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.backends.base import TensorSpec
from engine.backends.files.base import ModelFile
from engine.backends.remote.address import Host, RemoteModel
from engine.backends.remote.datatypes import DTYPE_BY_DATATYPE
from engine.backends.remote.endpoint import MAX_DIMENSIONS, MAX_TENSORS, Endpoint, UnreachableError
from engine.errors import ModelError
from engine.redaction import printable

MAX_NAME_CHARS = 200
MAX_METADATA_CHARS = 100_000


def connect(model: RemoteModel, host: Host) -> Endpoint:
    """Return a connection to one of a model's servers; nothing is sent yet.

    Raises:
        MissingDependencyError: gRPC needs a client that is not installed.
    """
    if model.protocol == "grpc":
        from engine.backends.remote.grpc import GrpcEndpoint

        return GrpcEndpoint(model, host)
    from engine.backends.remote.http import HttpEndpoint

    return HttpEndpoint(model, host)


def read_remote(address: str | Path) -> ModelFile:
    """Return the first available server's description of a model.

    Raises:
        ModelError: no server answers, or the answer does not describe a model.
        ConfigError: the address is malformed.
    """
    model = RemoteModel.parse(address)
    failures = []
    for host in model.hosts:
        endpoint = connect(model, host)
        try:
            return _described(Path(str(address)), endpoint.metadata())
        except UnreachableError as error:
            failures.append(str(error))
        finally:
            endpoint.close()
    raise ModelError(f"{model}: no server answers ({'; '.join(failures)}): start it, or give another address")


def _described(path: Path, metadata: Mapping[str, Any]) -> ModelFile:
    inputs, outputs = (_specs(path, metadata.get(key)) for key in ("inputs", "outputs"))
    parameters = metadata.get("parameters")
    texts = parameters if isinstance(parameters, dict) else {}
    known = {str(key): text for key, text in texts.items() if isinstance(text, str) and len(text) <= MAX_METADATA_CHARS}
    return ModelFile(path, "kserve", inputs, outputs, known, inputs[0].dtype, 0)


def _specs(path: Path, rows: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_TENSORS:
        raise ModelError(f"{path}: the server names no tensors: is it an inference server?")
    return tuple(_spec(path, row) for row in rows)


def _spec(path: Path, row: Any) -> TensorSpec:
    try:
        name, datatype, shape = row["name"], row["datatype"], row["shape"]
        sizes = tuple(None if int(size) < 0 else int(size) for size in shape)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the server describes a tensor without name, datatype and shape") from error
    dtype = DTYPE_BY_DATATYPE.get(str(datatype))
    if dtype is None or not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or len(sizes) > MAX_DIMENSIONS:
        raise ModelError(f"{path}: tensor {printable(str(name), 80)} of {printable(str(datatype), 20)} cannot be used")
    return TensorSpec(name, sizes, dtype)
