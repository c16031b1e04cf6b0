"""Images in, objects out: the handlers of `/v1`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from engine.data import Detections
from engine.wire.convert import frame_message
from engine.wire.objects import ClassScore, TrackedObject
from pipelines.models.detect_images import packet_of_image
from pipelines.serving.answers import ClassifyAnswer, DetectAnswer, Health, ModelList, Spent
from pipelines.serving.models import ServedModel
from pipelines.serving.openapi import document
from pipelines.serving.refusals import RefusedError
from pipelines.serving.requests import Server, json_answer, read_body
from pipelines.serving.uploads import image_in, pixels_of
from pipelines.serving.worker import Found

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

BYTES_PER_PIXEL = 3
MS_DECIMALS = 3
MAX_QUERY_TEXT = 1000
FORM_BYTES = 64 * 1024
"""Maximum size of a form in addition to its image."""


class ImageApi:
    """The handlers of `/v1`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return json_answer(self._server, document(self._server.limits))

    async def list_models(self, request: Request) -> Response:
        """Return the models."""
        return json_answer(self._server, ModelList([model.card() for model in self._server.models.values()]))

    async def health(self, request: Request) -> Response:
        """Return whether all models are loaded."""
        is_ready = self._server.is_ready
        return json_answer(self._server, Health(True, is_ready), 200 if is_ready else 503)

    async def detect(self, request: Request) -> Response:
        """Find the objects on an image."""
        model = self._server.model(_text(request, "model"), classify=False)
        least, wanted = _least(request, model), _classes(request, model)
        found, decode_ms = await self._run(request, model)
        objects = [each for each in _objects(found, model) if each.score >= least and each.class_name in wanted]
        frame, spent = found.frame, _spent(found, decode_ms)
        return json_answer(self._server, DetectAnswer(model.name, frame.width, frame.height, objects, spent))

    async def classify(self, request: Request) -> Response:
        """Classify an image."""
        model = self._server.model(_text(request, "model"), classify=True)
        found, decode_ms = await self._run(request, model)
        objects = _objects(found, model)
        classes: list[ClassScore] = (objects[0].classes or []) if objects else []
        frame, spent = found.frame, _spent(found, decode_ms)
        return json_answer(self._server, ClassifyAnswer(model.name, frame.width, frame.height, classes, spent))

    async def _run(self, request: Request, model: ServedModel) -> tuple[Found, float]:
        """Return a model's detections on the image of a request, and the time taken to decode it."""
        limits = self._server.limits
        loop = asyncio.get_running_loop()
        with self._server.budget.share() as share:
            body = await read_body(request, share, limits.image_bytes + FORM_BYTES)
            upload = image_in(body, request.headers, limits.pixels)
            if len(upload.data) > limits.image_bytes:
                raise RefusedError(f"the image has more than {limits.image_bytes} bytes: send fewer", 413)
            share.take(upload.pixels * BYTES_PER_PIXEL)
            began = time.perf_counter()
            image = await loop.run_in_executor(self._server.decoders, pixels_of, upload, limits.pixels)
            decode_ms = (time.perf_counter() - began) * 1e3
            return await asyncio.wrap_future(model.worker.submit(image)), decode_ms


def _objects(found: Found, model: ServedModel) -> list[TrackedObject]:
    """Return the objects in wire format."""
    detections: Detections = found.detections
    return frame_message(packet_of_image(found.frame, detections, model.worker.detector.class_names)).objects


def _spent(found: Found, decode_ms: float) -> Spent:
    return Spent(*(round(max(ms, 0.0), MS_DECIMALS) for ms in (decode_ms, found.wait_ms, found.infer_ms)))


def _text(request: Request, name: str) -> str | None:
    """Return a parameter of the query; an empty one counts as missing."""
    text = request.query_params.get(name)
    if text is not None and len(text) > MAX_QUERY_TEXT:
        raise RefusedError(f"{name} has more than {MAX_QUERY_TEXT} characters")
    return text or None


def _least(request: Request, model: ServedModel) -> float:
    """Return the lowest score that a request asks for."""
    text = _text(request, "score")
    if text is None:
        return 0.0
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not model.score_threshold <= score <= 1:
        raise RefusedError(f"score {text[:40]!r}: expected {model.score_threshold:g} to 1; start with a lower --score")
    return score


def _classes(request: Request, model: ServedModel) -> frozenset[str]:
    """Return the names of the classes that a request asks for."""
    known = frozenset(model.worker.detector.class_names)
    text = _text(request, "classes")
    if text is None:
        return known
    wanted = frozenset(name.strip() for name in text.split(","))
    if not wanted <= known:
        raise RefusedError(f"{model.name} has no class {min(wanted - known)[:80]!r}: see /v1/models")
    return wanted
