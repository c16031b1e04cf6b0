"""The OpenAPI document of the page's API, made from its routes and the types that they take and return."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
from starlette.routing import Route

from engine.events.store.periods import Period
from pipelines.web.page import past, rules, streams, users
from pipelines.web.page import types as page_types
from pipelines.web.page.history import Answer, CountQuery, EventInfo, EventPage, EventQuery, Question
from pipelines.web.page.login import Login, Me

JSON = "application/json"
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
REASONS = {
    401: "log in first",
    403: "the role is not sufficient, or the request came from another site's page",
    404: "it does not exist, or you may not see it",
    409: "it was changed in the meantime",
    413: "the body is too large",
    421: "the Host is not one of this server's",
    422: "a value is invalid; the message says which",
    429: "too many wrong passwords, or too many requests at once; `Retry-After` says when to try again",
    503: "the engine or the store does not answer",
}
_WORD = re.compile(r"\{(\w+)\}")


class Operation(NamedTuple):
    """The input and output of a route: types, or a media type if it does not return JSON."""

    answer: Any = None
    query: type | None = None
    body: type | None = None
    also: str | None = None
    """A media type that it answers with when `format` asks for it."""


OPERATIONS = {
    "GET /me": Operation(Me),
    "POST /login": Operation(Me, body=Login),
    "POST /logout": Operation(),
    "GET /sources": Operation(list[page_types.SourceInfo]),
    "GET /sources/{source_id}": Operation(page_types.SourceInfo),
    "GET /sources/{source_id}/still.jpg": Operation("image/jpeg", page_types.StillQuery),
    "GET /sources/{source_id}/places": Operation(page_types.Places),
    "PUT /sources/{source_id}/places": Operation(page_types.Places, body=page_types.PlacesEdit),
    "GET /places": Operation(page_types.AllPlaces),
    "GET /system": Operation(page_types.SystemInfo),
    "GET /events": Operation(EventPage, EventQuery),
    "GET /events/{event_id}": Operation(EventInfo),
    "GET /events/{event_id}/{name}": Operation("application/octet-stream"),
    "POST /events/{event_id}/{action}": Operation(EventInfo),
    "GET /counts": Operation(list[Period], CountQuery, also="text/csv"),
    "POST /query/crossings": Operation(Answer, body=Question),
    "POST /query/visits": Operation(Answer, body=Question),
    "GET /rules": Operation(rules.RulesInfo),
    "PUT /rules": Operation(rules.RulesInfo, body=rules.RulesEdit),
    "POST /rules/test": Operation(rules.RulesAnswer, body=rules.RulesQuestion),
    "POST /snooze": Operation(list[rules.Snooze], body=rules.SnoozeWish),
    "GET /users": Operation(users.Everybody),
    "POST /users": Operation(users.Everybody, body=users.NewUser),
    "PUT /users/{name}": Operation(users.Everybody, body=users.UserChange),
    "DELETE /users/{name}": Operation(users.Everybody),
    "POST /tokens": Operation(users.MadeToken, body=users.NewToken),
    "DELETE /tokens/{name}": Operation(users.Everybody),
    "GET /audit": Operation(users.AuditPage, users.AuditQuery),
    "GET /tracks": Operation(past.TracksPage, past.SpanQuery),
    "GET /occupancy": Operation(list[past.Occupancy], past.PlaceQuery, also="text/csv"),
    "GET /dwell": Operation(past.Dwell, past.PlaceQuery, also="text/csv"),
    "GET /heat": Operation(past.HeatMap, past.HeatQuery, also="image/png"),
    "POST /delete": Operation(past.Deletion, body=past.DeleteWish),
    "DELETE /events/{event_id}": Operation(past.Deletion, past.TokenQuery),
    "GET /recordings/{source_id}": Operation(streams.Recorded, streams.RecordedQuery),
    "GET /recordings/{source_id}/play": Operation("video/mp4", streams.RecordedQuery),
    "GET /sources/{source_id}/mjpeg": Operation("multipart/x-mixed-replace", streams.MjpegQuery),
    "GET /events/stream": Operation("text/event-stream"),
    "GET /openapi.json": Operation(),
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of these routes; each must be in `OPERATIONS`."""
    kinds = [kind for operation in OPERATIONS.values() for kind in operation[:3] if kind and not isinstance(kind, str)]
    named = {_key(kind): kind for kind in kinds}
    schemas, components = msgspec.json.schema_components(named.values(), ref_template="#/components/schemas/{name}")
    reference = dict(zip(named, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operation = OPERATIONS[f"{method} {route.path}"]
            made = _operation(route.endpoint, operation, reference, components, _WORD.findall(route.path))
            paths.setdefault(f"/api/v1{route.path}", {})[method.lower()] = made
    return {
        "openapi": "3.1.0",
        "info": {"title": "Framewire page", "version": version("framewire")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "framewire_session"},
            },
        },
        "security": [{}, {"token": []}, {"session": []}],
    }


def _key(kind: Any) -> str:
    return str(kind)


def _operation(
    endpoint: Callable[..., Any],
    operation: Operation,
    reference: dict[str, Any],
    components: dict[str, Any],
    words: Iterable[str],
) -> dict[str, Any]:
    text = " ".join((inspect.getdoc(endpoint) or "").split())
    content: dict[str, Any] = {JSON: {"schema": {"type": "object"}}}
    if isinstance(operation.answer, str):
        content = {operation.answer: {"schema": {"type": "string", "format": "binary"}}}
    elif operation.answer is not None:
        content = {JSON: {"schema": reference[_key(operation.answer)]}}
    if operation.also is not None:
        content[operation.also] = {"schema": {"type": "string", "format": "binary"}}
    failures = {str(code): {"description": why, "content": {JSON: {"schema": ERROR}}} for code, why in REASONS.items()}
    made: dict[str, Any] = {
        "operationId": endpoint.__name__,
        "summary": text.partition(". ")[0].removesuffix("."),
        "parameters": [_parameter(name, "path", {"type": "string"}, required=True) for name in words],
        "responses": {"200": {"description": "done", "content": content}, **failures},
    }
    if operation.query is not None:
        schema = components[operation.query.__name__]
        needed = schema.get("required", ())
        made["parameters"] += [
            _parameter(name, "query", each, required=name in needed) for name, each in schema["properties"].items()
        ]
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": reference[_key(operation.body)]}}}
    return made


def _parameter(name: str, where: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema}
