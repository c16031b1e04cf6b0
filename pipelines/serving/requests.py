"""Shared by the request handlers: the models, the limits, and how answers are built."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import ModelError
from pipelines.serving.answers import ServeError
from pipelines.serving.budget import Budget, Share
from pipelines.serving.models import CLASSIFY, ServedModel
from pipelines.serving.refusals import RefusedError
from pipelines.web.access.limits import retry_after

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)
Handler = Callable[["Request"], Awaitable["Response"]]


@dataclass(frozen=True, slots=True)
class AppLimits:
    """Limits per request, and for all requests together.

    Attributes:
        image_bytes: of an encoded image.
        pixels: width times height of an image.
        body_bytes: of any body; tensors are larger than images.
        held_bytes: bodies and decoded images of all requests together.
    """

    image_bytes: int = 16 * 1024 * 1024
    pixels: int = 25_000_000
    body_bytes: int = 64 * 1024 * 1024
    held_bytes: int = 512 * 1024 * 1024


@dataclass(slots=True)
class Server:
    """The shared state of the request handlers.

    Attributes:
        models: by name; the first one answers requests that name none.
        limits: of requests.
        budget: bytes that requests may hold.
        decoders: threads that decode images.
        answers: number of answers by status.
    """

    models: Mapping[str, ServedModel]
    limits: AppLimits = field(default_factory=AppLimits)
    budget: Budget = field(init=False)
    decoders: ThreadPoolExecutor = field(init=False)
    answers: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.budget = Budget(self.limits.held_bytes)
        self.decoders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""
        return all(model.worker.is_ready for model in self.models.values())

    def model(self, name: str | None, *, classify: bool | None = None) -> ServedModel:
        """Return a model by name, or the first of a kind.

        Raises:
            RefusedError: there is no such model, or it has another task.
        """
        if name:
            model = self.models.get(name)
            if model is None:
                raise RefusedError(f"no model is called {name[:80]!r}: see /v1/models", 404)
            if classify is not None and (model.task == CLASSIFY) != classify:
                other = "/v1/classify" if model.task == CLASSIFY else "/v1/detect"
                raise RefusedError(f"model {name} does not do this: use {other}")
            return model
        for model in self.models.values():
            if classify is None or (model.task == CLASSIFY) == classify:
                return model
        raise RefusedError(f"no model here {'classifies' if classify else 'detects'}: see /v1/models", 404)


def answered(server: Server, handler: Handler) -> Handler:
    """Return a handler that turns refusals and failures into answers, and counts all answers."""

    async def handle(request: Request) -> Response:
        try:
            response = await handler(request)
        except RefusedError as error:
            wait = error.retry_after_s
            headers = {} if wait is None else {"Retry-After": retry_after(wait)}
            return json_answer(server, ServeError(str(error)), error.status, headers)
        except ModelError as error:
            logger.error("%s", error)
            return json_answer(server, ServeError("the model failed on this request: see the server's log"), 500)
        server.answers[response.status_code] += 1
        return response

    return handle


def json_answer(server: Server, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON; an answer other than 200 is counted here."""
    if status != 200:
        server.answers[status] += 1
    response: Response = _response()(msgspec.json.encode(value), status, headers, "application/json")
    return response


def _response() -> Any:
    from starlette.responses import Response

    return Response


async def read_body(request: Request, share: Share, most: int) -> bytes:
    """Return the body of a request, counted while it arrives. Raises `RefusedError`."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise RefusedError(f"the body has more than {most} bytes: send fewer", 413)
        share.take(len(piece))
        pieces.append(piece)
    return b"".join(pieces)
