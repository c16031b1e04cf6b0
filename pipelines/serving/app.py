"""The ASGI application: all routes, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.optional import require
from pipelines.serving.answers import ServeError
from pipelines.serving.image_api import ImageApi
from pipelines.serving.inference_protocol import routes
from pipelines.serving.requests import Handler, Server, answered, json_answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
OPEN_PATHS = ("/", "/static/", "/v2/health/live", "/v2/health/ready", "/favicon.ico")


def create_app(server: Server) -> Any:
    """Return the Starlette application.

    Raises:
        MissingDependencyError: the extra `web` is not installed.
    """
    starlette = require("starlette.applications", extra="web").Starlette
    routing = require("starlette.routing", extra="web")
    files = require("starlette.staticfiles", extra="web").StaticFiles

    api = ImageApi(server)

    def route(path: str, handler: Handler, *methods: str) -> Any:
        return routing.Route(path, answered(server, handler), methods=[*methods])

    async def unknown(request: Request, error: Any) -> Response:
        status = getattr(error, "status_code", 500)
        reason = f"{request.method} {request.url.path[:200]}: {getattr(error, 'detail', 'failed')}: see /openapi.json"
        return json_answer(server, ServeError(reason), status, dict(getattr(error, "headers", None) or {}))

    return starlette(
        routes=[
            route("/", page, "GET"),
            route("/openapi.json", api.openapi, "GET"),
            route("/v1/models", api.list_models, "GET"),
            route("/v1/health", api.health, "GET"),
            route("/v1/detect", api.detect, "POST"),
            route("/v1/classify", api.classify, "POST"),
            *(route(path, handler, method) for method, path, handler in routes(server)),
            routing.Mount("/static", files(directory=STATIC)),
        ],
        exception_handlers={404: unknown, 405: unknown},
    )


async def page(request: Request) -> Response:
    """Return the page."""
    from starlette.responses import FileResponse

    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})
