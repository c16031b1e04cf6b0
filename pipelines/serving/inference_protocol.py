"""The Open Inference Protocol (KServe v2) over HTTP: `tritonclient[http]` and others work unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipelines.serving.answers import ModelMetadata, ServerMetadata
from pipelines.serving.models import ServedModel
from pipelines.serving.refusals import NotReadyError, RefusedError
from pipelines.serving.requests import Handler, Server, json_answer, read_body
from pipelines.serving.tensors import HEADER_LENGTH, answer, parse_inference, plain_body, split_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]
VERSION = "1"
MOST_UNPACKED = 1032
"""Bytes that deflate can make of one."""
OCTETS = "application/octet-stream"


def routes(server: Server) -> Sequence[tuple[str, str, Handler]]:
    """Return method, path and handler of each route."""
    protocol = Protocol(server)
    of_model: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "", protocol.model_metadata),
        ("GET", "/ready", protocol.model_ready),
        ("GET", "/config", protocol.model_config),
        ("GET", "/stats", protocol.statistics),
        ("POST", "/infer", protocol.infer),
    )
    return [
        ("GET", "/v2", protocol.metadata),
        ("GET", "/v2/health/live", protocol.live),
        ("GET", "/v2/health/ready", protocol.ready),
        ("POST", "/v2/repository/index", protocol.index),
        ("GET", "/v2/models/stats", protocol.statistics),
        *((method, f"/v2/models/{{name}}{path}", handler) for method, path, handler in of_model),
        *((method, f"/v2/models/{{name}}/versions/{{version}}{path}", handler) for method, path, handler in of_model),
    ]


class Protocol:
    """The handlers of `/v2`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reading = asyncio.Lock()
        """One body at a time becomes Python objects, which holds up everything else in the process."""

    async def metadata(self, request: Request) -> Response:
        """Return the name of this server and its extensions."""
        return json_answer(self._server, ServerMetadata("framewire", version("framewire"), EXTENSIONS))

    async def live(self, request: Request) -> Response:
        """Report that the server is alive."""
        return json_answer(self._server, {"live": True})

    async def ready(self, request: Request) -> Response:
        """Report whether all models are loaded."""
        is_ready = self._server.is_ready
        return json_answer(self._server, {"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """Report whether a model is loaded."""
        model = self._model(request)
        is_ready = model.worker.is_ready
        return json_answer(self._server, {"name": model.name, "ready": is_ready}, 200 if is_ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """Return the tensors of a model."""
        return json_answer(self._server, self._model(request).metadata())

    async def model_config(self, request: Request) -> Response:
        """Return the tensors of a model in the form of Triton's configuration, which its tools request."""
        return json_answer(self._server, _config(self._model(request).metadata()))

    async def statistics(self, request: Request) -> Response:
        """Return how many inferences the models have done."""
        models = [self._model(request)] if "name" in request.path_params else list(self._server.models.values())
        return json_answer(self._server, {"model_stats": [_statistics(model) for model in models]})

    async def index(self, request: Request) -> Response:
        """Return the models by name."""
        models = self._server.models.values()
        return json_answer(
            self._server,
            [
                {"name": m.name, "version": VERSION, "state": "READY" if m.worker.is_ready else "LOADING"}
                for m in models
            ],
        )

    async def infer(self, request: Request) -> Response:
        """Run a model on tensors."""
        model, server = self._model(request), self._server
        inputs, outputs = model.tensors()
        if not model.worker.is_ready:
            raise NotReadyError(f"model {model.name} is not loaded yet: try again", retry_after_s=1.0)
        with server.budget.share() as share:
            loop = asyncio.get_running_loop()
            body = await read_body(request, share, server.limits.body_bytes)
            encoding = request.headers.get("content-encoding", "").strip().lower()
            if encoding:
                most = server.limits.body_bytes
                share.note(min(most, MOST_UNPACKED * len(body)))
                body = await loop.run_in_executor(server.decoders, plain_body, body, encoding, most)
                share.take(len(body))
            split = await loop.run_in_executor(server.decoders, split_body, body, request.headers.get(HEADER_LENGTH))
            share.take(split.object_bytes)
            async with self._reading:
                asked = await loop.run_in_executor(server.decoders, parse_inference, split, inputs, outputs)
            share.give(split.object_bytes)
            found = await asyncio.wrap_future(model.ask(asked.feeds))
            pieces, json_length = await loop.run_in_executor(server.decoders, answer, model.name, asked, found)
        return _infer_answer(pieces, json_length)

    def _model(self, request: Request) -> ServedModel:
        wanted = request.path_params.get("version", VERSION)
        if wanted != VERSION:
            raise RefusedError(f"version {wanted[:40]!r}: expected {VERSION}", 404)
        return self._server.model(request.path_params["name"])


def _infer_answer(pieces: list[bytes], json_length: int | None) -> Response:
    from starlette.responses import Response

    if json_length is None:
        return Response(pieces[0], media_type="application/json")
    return Response(b"".join(pieces), headers={HEADER_LENGTH: str(json_length)}, media_type=OCTETS)


def _config(metadata: ModelMetadata) -> dict[str, Any]:
    def tensors(specs: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"name": each.name, "data_type": f"TYPE_{each.datatype}", "dims": each.shape} for each in specs]

    return {
        "name": metadata.name,
        "platform": metadata.platform,
        "backend": "framewire",
        "max_batch_size": 0,
        "input": tensors(metadata.inputs),
        "output": tensors(metadata.outputs),
        "parameters": {key: {"string_value": text} for key, text in metadata.parameters.items()},
    }


def _statistics(model: ServedModel) -> dict[str, Any]:
    worker, raw = model.worker, model.raw
    done = worker.done + (raw.done if raw is not None else 0)
    return {
        "name": model.name,
        "version": VERSION,
        "inference_count": done,
        "execution_count": done,
        "inference_stats": {"success": {"count": done, "ns": 0}, "fail": {"count": worker.failed, "ns": 0}},
    }
