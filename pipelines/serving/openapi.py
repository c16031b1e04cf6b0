"""The OpenAPI document of the server, made from the types of its answers."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import msgspec

from pipelines.serving import answers
from pipelines.serving.requests import AppLimits

TYPES = (
    answers.ServeError,
    answers.DetectAnswer,
    answers.ClassifyAnswer,
    answers.ModelList,
    answers.Health,
    answers.ServerMetadata,
    answers.ModelMetadata,
    answers.InferRequest,
    answers.InferAnswer,
)
JSON = "application/json"
IMAGES = ("image/jpeg", "image/png", "image/webp")
REASONS = {
    400: "the request is invalid",
    401: "a token is missing or wrong",
    403: "this client or page may not use the server",
    404: "there is no such model",
    408: "the body arrived too slowly",
    413: "too many bytes or pixels",
    415: "not a supported format",
    421: "the Host is not one of this server's",
    429: "the server is fully loaded; `Retry-After` says when to try again",
    503: "the model is not loaded",
}


def document(limits: AppLimits) -> dict[str, Any]:
    """Return the document.

    Args:
        limits: named in the descriptions.
    """
    schemas, components = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    reference = {each.__name__: schema for each, schema in zip(TYPES, schemas, strict=True)}
    for name, component in components.items():
        struct = getattr(answers, name, None)
        if struct is not None:
            component["description"] = (inspect.getdoc(struct) or "").partition("\n")[0]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Framewire image recognition",
            "version": version("framewire"),
            "description": "Objects on images, and the Open Inference Protocol (KServe v2) on the same port.",
        },
        "paths": _paths(reference, limits),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _paths(reference: dict[str, Any], limits: AppLimits) -> dict[str, Any]:
    model = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "the model"}
    infer = {JSON: {"schema": reference["InferRequest"]}, "application/octet-stream": {"schema": {}}}
    return {
        "/v1/detect": {"post": _image("detect", "Find the objects on an image", reference["DetectAnswer"], limits)},
        "/v1/classify": {"post": _image("classify", "Classify an image", reference["ClassifyAnswer"], limits)},
        "/v1/models": {"get": _operation("models", "The models of this server", reference["ModelList"])},
        "/v1/health": {"get": _operation("health", "Whether all models are loaded", reference["Health"], 503)},
        "/v2": {"get": _operation("server_metadata", "Name and extensions", reference["ServerMetadata"])},
        "/v2/health/live": {"get": _operation("server_live", "Whether the server is alive", {"type": "object"})},
        "/v2/health/ready": {"get": _operation("server_ready", "Whether models are loaded", {"type": "object"}, 503)},
        "/v2/repository/index": {"post": _operation("index", "The models by name", {"type": "array"})},
        "/v2/models/{name}": {
            "get": {**_operation("metadata", "Tensors of a model", reference["ModelMetadata"], 404)},
            "parameters": [model],
        },
        "/v2/models/{name}/ready": {
            "get": _operation("model_ready", "Whether a model is loaded", {"type": "object"}, 404, 503),
            "parameters": [model],
        },
        "/v2/models/{name}/infer": {
            "post": {
                **_operation("infer", "Run a model on tensors", reference["InferAnswer"], 404, 408, 413, 415, 429, 503),
                "requestBody": {"required": True, "content": infer},
            },
            "parameters": [model],
        },
    }


def _operation(name: str, summary: str, schema: dict[str, Any], *failures: int) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": _responses(schema, 400, 401, 403, 421, *failures)}


def _image(name: str, summary: str, schema: dict[str, Any], limits: AppLimits) -> dict[str, Any]:
    picture = {"type": "string", "format": "binary", "maxLength": limits.image_bytes}
    form = {"type": "object", "properties": {"image": picture}, "required": ["image"]}
    content: dict[str, Any] = {kind: {"schema": picture} for kind in (*IMAGES, "application/octet-stream")}
    content["multipart/form-data"] = {"schema": form, "encoding": {"image": {"contentType": ", ".join(IMAGES)}}}
    parameters = [_query("model", "the model; the first one if it is left out", {"type": "string"})]
    if name == "detect":
        parameters.append(_query("score", "the least score", {"type": "number", "minimum": 0, "maximum": 1}))
        parameters.append(_query("classes", "names of classes, separated by commas", {"type": "string"}))
    limit = f"at most {limits.image_bytes / 1e6:.0f} MB and {limits.pixels / 1e6:g} million pixels"
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": content, "description": f"a JPEG, PNG or WebP image, {limit}"},
        "responses": _responses(schema, 400, 401, 403, 404, 408, 413, 415, 421, 429, 503),
    }


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _responses(schema: dict[str, Any], *failures: int) -> dict[str, Any]:
    error = {JSON: {"schema": {"$ref": "#/components/schemas/ServeError"}}}
    found: dict[str, Any] = {"200": {"description": "done", "content": {JSON: {"schema": schema}}}}
    for status in sorted(set(failures)):
        found[str(status)] = {"description": REASONS[status], "content": error}
    return found
