"""The REST API: sources, stills, zones and lines.

No request takes a path, an address, a command or an FFmpeg option.
"""

from __future__ import annotations

from contextlib import suppress
from email.utils import formatdate
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import ConfigError
from engine.wire import StatusMessage
from pipelines.running.control_client import MAX_REQUEST_BYTES, ConflictError, ask
from pipelines.web.page.answers import body_of, need, query_of, record, reply, who
from pipelines.web.page.hub import Hub, SourceView
from pipelines.web.page.live import still
from pipelines.web.page.login import LOGIN_ROUTES
from pipelines.web.page.types import PlacesEdit, SourceInfo, StillQuery, SystemInfo, source_info

CONTROL_TIMEOUT_S = 5.0


def source_of(request: Request) -> SourceView:
    """Return the source named in the path. Raises 404 if it does not exist or the user may not see it."""
    hub: Hub = request.app.state.hub
    view = hub.sources.get(request.path_params["source_id"])
    if view is None or not who(request).may_see(view.source_id):
        raise HTTPException(404, "there is no such source")
    return view


async def control(request: Request, command: dict[str, Any]) -> dict[str, Any]:
    """Send a command to the engine and return its reply. Raises 409, 422 or 503 with the engine's message."""
    address = request.app.state.hub.settings.control
    if address is None:
        raise HTTPException(503, "this page has no control socket: start framewire web with --control")
    if len(msgspec.json.encode(command)) > MAX_REQUEST_BYTES:
        raise HTTPException(413, f"the request has more than {MAX_REQUEST_BYTES} bytes: send fewer")
    try:
        return await run_in_threadpool(ask, address, command, CONTROL_TIMEOUT_S)
    except ConflictError as error:
        raise HTTPException(409, str(error)) from error
    except ConfigError as error:
        raise HTTPException(503 if "no answer from" in str(error) else 422, str(error)) from error


async def get_sources(request: Request) -> Response:
    """Return all sources."""
    hub: Hub = request.app.state.hub
    return reply([source_info(view) for name, view in hub.sources.items() if who(request).may_see(name)])


async def get_source(request: Request) -> Response:
    """Return one source, with the log of its states and its rates over the last minutes."""
    view = source_of(request)
    log: list[StatusMessage] = list(view.log)
    info: SourceInfo = source_info(view)
    return reply({**msgspec.to_builtins(info), "log": log, "rates": list(view.rates)})


async def get_still(request: Request) -> Response:
    """Return the next image of a source as a JPEG, at most `w` pixels wide or high."""
    view = source_of(request)
    picture = await still(request.app.state.hub, view.source_id, query_of(request, StillQuery).w)
    if picture is None:
        raise HTTPException(503, "no image arrived: is the camera live?")
    when = formatdate(picture.captured_utc_ns / 1e9, usegmt=True)
    return Response(picture.jpeg, headers={"Last-Modified": when, "Cache-Control": "no-store"}, media_type="image/jpeg")


async def get_places(request: Request) -> Response:
    """Return the zones and lines of one source; its version is in `ETag`."""
    view = source_of(request)
    answer = await control(request, {"command": "places"})
    found = answer["places"].get(view.source_id)
    if found is None:
        raise HTTPException(404, "this source takes no zones or lines")
    return reply({**found, "kept": answer["kept"]}, headers={"ETag": f'"{found["version"]}"'})


async def get_all_places(request: Request) -> Response:
    """Return the zones and lines of all sources, and the rules."""
    found = await control(request, {"command": "places"})
    places = {name: each for name, each in found["places"].items() if who(request).may_see(name)}
    return reply(
        {
            "places": places,
            "rules": found["rules"],
            "site": found["site"],
            **{key: found[key] for key in ("video", "kept")},
        }
    )


async def put_places(request: Request) -> Response:
    """Replace the zones and lines of one source; they take effect within a second.

    `kept` says what survives the run.
    """
    view, me = source_of(request), need(request, "operator")
    edit: PlacesEdit = await body_of(request, PlacesEdit)
    version = request.headers.get("If-Match", "").strip('"') or None
    places = msgspec.to_builtins(edit)
    command = {"command": "set_places", "source_id": view.source_id, "version": version, "by": me.name, **places}
    done = await control(request, command)
    record(request, "places", view.source_id, {"done": done["done"], **places})
    found = (await control(request, {"command": "places"}))["places"][view.source_id]
    return reply({**found, "done": done["done"], "kept": done["kept"]}, headers={"ETag": f'"{found["version"]}"'})


async def get_system(request: Request) -> Response:
    """Return the facts of the engine and of this process."""
    hub: Hub = request.app.state.hub
    status: dict[str, Any] = {}
    with suppress(HTTPException):  # the rest is shown without the engine's status
        status = await control(request, {"command": "status"})
    return reply(SystemInfo.of(hub, status))


ROUTES = [
    *LOGIN_ROUTES,
    Route("/sources", get_sources),
    Route("/sources/{source_id}", get_source),
    Route("/sources/{source_id}/still.jpg", get_still),
    Route("/sources/{source_id}/places", get_places, methods=["GET"]),
    Route("/sources/{source_id}/places", put_places, methods=["PUT"]),
    Route("/places", get_all_places),
    Route("/system", get_system),
]
