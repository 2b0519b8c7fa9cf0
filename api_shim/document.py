"""The OpenAPI document: what the framework knows of the routes, with the errors that every route can answer.

A route declares what is its own (`responses={409: {"description": …}}`); shapes, headers and the errors that come from
the layers around it are filled in here.
"""

from __future__ import annotations

from http.client import responses as phrases
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from api_shim.problems import METHODS, Shape, shape_of
from api_shim.request_ids import TAKEN

# As their callers write them; both spellings are served.
_WITH_SLASH = ("/api/disconnect_instance", "/api/transfer_instance", "/remove_instances")
_DESCRIPTIONS = {
    "400": "The request is wrong; the message names the field and the reason",
    "401": "No key, or one that is unknown, expired or revoked",
    "403": "The key's scopes do not cover this call",
    "404": "There is nothing of this name or id",
    "405": "A method that this path does not have",
    "408": "The body did not come in time",
    "413": "The body is longer than 1 MiB",
    "410": "The call with this Idempotency-Key has ended, and its result is no longer kept",
    "422": "The Idempotency-Key was used for another call",
    "429": "Too many calls",
    "500": "Something went wrong here; the log has more under the request's id",
    "503": "The registry cannot be used at the moment",
}
_ID = {
    "description": "The request's id: the caller's own, else a new one",
    "schema": {"type": "string", "pattern": f"^{TAKEN.pattern}$"},
}
_LIMIT_HEADERS = {
    "RateLimit-Policy": {
        "description": 'Calls `q` in a window of `w` seconds, such as `"drift-node";q=10;w=60`',
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": 'Calls `r` left for `t` seconds, such as `"drift-node";r=9;t=60`',
        "schema": {"type": "string"},
    },
}
_LOCATION = {
    "description": "The call's operation: /api/operations/{operation_id}. Not where none was recorded",
    "schema": {"type": "string"},
}
_RETRY = {"description": "Seconds to wait", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
_MESSAGE = {"type": "string", "examples": ["Node not found"]}
_SCHEMAS: dict[Shape, tuple[str, dict[str, Any]]] = {
    Shape.PROBLEM: (
        "Problem",
        {
            "type": "object",
            "description": "RFC 9457",
            "required": ["type", "title", "status", "detail", "request_id"],
            "properties": {
                "type": {"type": "string", "examples": ["about:blank"]},
                "title": {"type": "string", "examples": ["Not Found"]},
                "status": {"type": "integer", "minimum": 400, "maximum": 599, "examples": [404]},
                "detail": {"type": "string", "examples": ["Instance not found"]},
                "instance": {"type": "string", "description": "The path, unless it is a long one"},
                "field": {"type": "string", "description": "The input that is wrong"},
                "request_id": {"type": "string", "maxLength": 128},
            },
        },
    ),
    Shape.STATUS: (
        "StatusError",
        {
            "type": "object",
            "required": ["status", "message"],
            "properties": {"status": {"const": "error"}, "message": _MESSAGE},
        },
    ),
    Shape.FALSE: (
        "FalseError",
        {
            "type": "object",
            "required": ["status", "message"],
            "properties": {"status": {"const": False}, "message": _MESSAGE},
        },
    ),
    Shape.ERROR: (
        "PlainError",
        {"type": "object", "required": ["error"], "properties": {"error": _MESSAGE}},
    ),
}


def describe(app: FastAPI) -> None:
    """Have the application give this document; it is built once, when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def build(app: FastAPI) -> dict[str, Any]:
    """The document of an application, with all its routers."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    # The framework's own errors: nobody gets to see them.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(dict(_SCHEMAS.values()))
    scopes = _scopes(app)
    paths = {}
    for path, operations in document["paths"].items():
        for method in (one.lower() for one in METHODS):
            if method in operations:
                _complete(path, operations[method], scopes.get((method, path), ()))
        paths[f"{path}/" if path in _WITH_SLASH else path] = operations
    document["paths"] = paths
    return document


def _scopes(app: FastAPI) -> dict[tuple[str, str], tuple[str, ...]]:
    """By method and path, the scopes of keys that may make a call."""
    found = {}
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and context.path_format is not None:
            for method in route.methods or ():
                found[method.lower(), context.path_format] = _wanted(route.dependant)
    return found


def _wanted(dependant: Dependant) -> tuple[str, ...]:
    for each in dependant.dependencies:
        scopes: tuple[str, ...] = getattr(each.call, "scopes", ())
        if scopes:
            return scopes
    return ()


def _complete(path: str, operation: dict[str, Any], scopes: tuple[str, ...]) -> None:
    responses = operation["responses"]
    if scopes:
        operation["x-scopes"] = list(scopes)
        told = " or ".join(f"`{scope}`" for scope in scopes)
        operation["description"] = f"{operation.get('description', '')}\n\nScope of the key: {told}.".strip()
    runs = "202" in responses and "Location" in responses["202"].get("headers", {})
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]  # the framework's; ours is 400
    for status in _errors(path, operation):
        responses.setdefault(status, {})
    shape = shape_of(path)
    content = {shape.media_type: {"schema": {"$ref": f"#/components/schemas/{_SCHEMAS[shape][0]}"}}}
    for status, response in responses.items():
        headers = {"X-Request-ID": _ID}
        if "429" in responses and status in ("200", "201", "202", "429"):
            headers |= _LIMIT_HEADERS
        if runs and status in ("200", "201", "207", "400", "404", "409", "500"):
            headers["Location"] = _LOCATION
        if response.get("description") == "Successful Response":
            response["description"] = "Done"
        if status >= "400":
            # Where a route says nothing, the framework says the status' name.
            if response.get("description") in (None, "", phrases.get(int(status))):
                response["description"] = _DESCRIPTIONS.get(status, "Error")
            # A route may have a body of its own for an error.
            response.setdefault("content", content)
            if status == "401":
                headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
            if status == "405":
                headers["Allow"] = {"schema": {"type": "string"}}
            if status in ("429", "503"):
                headers["Retry-After"] = _RETRY
        response["headers"] = {**response.get("headers", {}), **headers}
    operation["responses"] = dict(sorted(responses.items()))


def _errors(path: str, operation: dict[str, Any]) -> set[str]:
    errors = {"400", "405", "408", "413", "500"}
    if operation.get("security"):
        errors |= {"401", "403", "503"}
    if "{" in path:
        errors.add("404")
    return errors
