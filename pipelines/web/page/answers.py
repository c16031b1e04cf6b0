"""Shared by the API's routes: JSON input and output, and the user of a request."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipelines.web.access import Audit, Identity, Role
from pipelines.web.access.gate import CLIENT, IDENTITY

T = TypeVar("T")


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def who(request: Request) -> Identity:
    """Return the user of a request. Raises 401 if no one is logged in."""
    identity: Identity | None = request.scope.get(IDENTITY)
    if identity is None:
        raise HTTPException(401, "log in first")
    return identity


def need(request: Request, role: Role) -> Identity:
    """Return the user of a request if they have at least this role. Raises 403 otherwise."""
    identity = who(request)
    if not identity.may(role):
        raise HTTPException(403, f"this needs the role {role}; {identity.name} is {identity.role}")
    return identity


def record(request: Request, action: str, what: str = "", detail: Any = None, *, name: str | None = None) -> None:
    """Record in the audit log who did what; `name` is used if no one is logged in."""
    identity: Identity | None = request.scope.get(IDENTITY)
    audit: Audit = request.app.state.audit
    known = (name, "") if identity is None or name is not None else (identity.name, str(identity.role))
    audit.write(known[0] or "?", known[1], str(request.scope.get(CLIENT) or ""), action, what, detail)


def query_of(request: Request, kind: type[T]) -> T:
    """Return the query of a request. Raises 422."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPException(422, str(error)[:300]) from error


async def body_of(request: Request, kind: type[Any]) -> Any:
    """Return the body as an object of this type. Raises 422."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HTTPException(422, str(error)[:500]) from error
