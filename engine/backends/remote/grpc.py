"""The Open Inference Protocol over gRPC, through NVIDIA's client: for servers that offer nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import TensorSpec
from engine.backends.remote.address import Host, RemoteModel
from engine.backends.remote.datatypes import DATATYPE_BY_DTYPE
from engine.backends.remote.endpoint import MAX_OUTPUT_BYTES, BusyServerError, UnreachableError
from engine.backends.remote.http import LOADING, METADATA_S, TOKEN_VARIABLE, fits
from engine.errors import ModelError
from engine.optional import require
from engine.redaction import hide

LATE = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")
AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.INTERNAL", "StatusCode.UNKNOWN")
BUSY = ("StatusCode.RESOURCE_EXHAUSTED",)
CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_OUTPUT_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # otherwise a new channel would inherit the backoff of the old one
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class GrpcEndpoint:
    """A gRPC channel to one server.

    Args:
        model: the model to run.
        host: the server to connect to.

    Raises:
        MissingDependencyError: `tritonclient[grpc]` is not installed.
    """

    def __init__(self, model: RemoteModel, host: Host) -> None:
        self._client_module = require(
            "tritonclient.grpc", hint='pip install "tritonclient[grpc]", or use kserve+http://'
        )
        self._failure = require("tritonclient.utils").InferenceServerException
        self._model, self._host = model, host
        self._client: Any = None
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        hide(token)
        self._headers = {"authorization": f"Bearer {token}"} if token else None

    def metadata(self) -> Mapping[str, Any]:
        """Return the model's metadata; see `Endpoint`."""
        found = self._call("get_model_metadata", self._model.name, self._model.version, METADATA_S, as_json=True)
        rows = {key: [_plain(row) for row in found.get(key, ())] for key in ("inputs", "outputs")}
        return {**found, **rows, "parameters": self._parameters()}

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the model's configuration, where Triton has them; the protocol has none."""
        try:
            found = self._call("get_model_config", self._model.name, self._model.version, METADATA_S, as_json=True)
        except ModelError:  # not a Triton server
            return {}
        rows = found.get("config", {}).get("parameters", {})
        return {key: row.get("string_value") for key, row in rows.items()}

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[TensorSpec], timeout_s: float
    ) -> list[NDArray[Any]]:
        """Return the outputs of one inference, (b, ...) each. Raises as `Endpoint.infer`."""
        inputs = []
        for name, array in feeds.items():
            tensor = self._client_module.InferInput(name, list(array.shape), DATATYPE_BY_DTYPE[array.dtype.name])
            inputs.append(tensor.set_data_from_numpy(np.ascontiguousarray(array)))
        wanted = [self._client_module.InferRequestedOutput(spec.name) for spec in outputs]
        result = self._call("infer", self._model.name, inputs, self._model.version, timeout_s, outputs=wanted)
        return [self._checked(spec, result.as_numpy(spec.name)) for spec in outputs]

    def close(self) -> None:
        """End the channel."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def end(self) -> None:
        """End the channel: the server holds nothing for it."""
        self.close()

    def _checked(self, spec: TensorSpec, array: Any) -> NDArray[Any]:
        if array is None or not fits(spec, list(array.shape), DATATYPE_BY_DTYPE.get(array.dtype.name)):
            got = None if array is None else (array.dtype, array.shape)
            raise ModelError(f"{self._host}: {spec.name} is {got}: expected {spec}")
        return np.asarray(array)

    def _call(self, name: str, *words: Any, **options: Any) -> Any:
        *words_before, timeout_s = words
        client = self._client
        if client is None:
            client = self._client_module.InferenceServerClient(str(self._host), channel_args=list(CHANNEL))
            self._client = client
        version = words_before.pop()
        try:
            call = getattr(client, name)
            return call(
                *words_before, model_version=version, client_timeout=timeout_s, headers=self._headers, **options
            )
        except ValueError as error:  # another thread closed the channel
            raise UnreachableError(f"{self._host}: {error}") from error
        except self._failure as error:
            self._explain(error)

    def _explain(self, error: Any) -> None:
        status, reason = str(error.status()), f"{self._host}: {error.message()}"
        if status in LATE or "Deadline Exceeded" in reason:
            raise TimeoutError(reason) from error
        if status in BUSY:
            raise BusyServerError(reason, 0.1) from error
        if status in AWAY or any(text in reason for text in LOADING):
            self.close()
            raise UnreachableError(reason) from error
        raise ModelError(reason) from error


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tensor of the metadata with numbers for sizes: JSON of protobuf has them as text."""
    return {**row, "shape": [int(size) for size in row.get("shape", ())]}
