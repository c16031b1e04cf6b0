"""The files of the page, read once, so that no request can name a path on this machine."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}


class StaticFile(NamedTuple):
    """A file of the page."""

    body: bytes
    media_type: str
    etag: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Return the files of the page by path."""
    return dict(_walk(files("pipelines.web.page") / "static", ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in folder.iterdir():
        suffix = entry.name.rpartition(".")[2]
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif suffix in TYPES:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            found.append((prefix + entry.name, StaticFile(body, TYPES[suffix], etag)))
    return found


async def page(request: Request) -> Response:
    """Return the page."""
    return _file(request, "index.html")


async def static_file(request: Request) -> Response:
    """Return a file of the page."""
    return _file(request, request.path_params["path"])


def _file(request: Request, path: str) -> Response:
    found = static_files().get(path)
    if found is None:
        raise HTTPException(404, "there is no such file")
    headers = {"ETag": found.etag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.media_type)
