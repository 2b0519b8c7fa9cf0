"""Errors as callers see them: one class that routes raise, and for each path the shape that its callers know.

The shapes of the billing system's and the panel's calls are the seeds'; all other paths answer RFC 9457.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Invalid,
    NotUsable,
    RegistryError,
)

METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
LONGEST_SHOWN = 100  # characters of what came from outside, in a message
_LONGEST_MESSAGE = 500
_PROBLEM = "application/problem+json"
_UNKNOWN_FIELD = "extra_forbidden"
_INTERNAL = "Internal server error"
_AWAY = "The registry cannot be used at the moment; try again later"

log = structlog.stdlib.get_logger("api_shim")


class Problem(Exception):
    """What ends a request with an error. `message` is for the caller, and holds no secret; `field` names the input that
    is wrong; `headers` go with the answer."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.field = field


class Shape(Enum):
    """What an error looks like."""

    PROBLEM = "problem"  # RFC 9457
    STATUS = "status"  # {"status": "error", "message": …}
    FALSE = "false"  # {"status": false, "message": …}
    ERROR = "error"  # {"error": …}

    @property
    def media_type(self) -> str:
        """The Content-Type."""
        return _PROBLEM if self is Shape.PROBLEM else "application/json"


def shape_of(path: str) -> Shape:
    """The shape of a path's errors, also of a path that does not exist."""
    path = path.rstrip("/")
    if path in ("/api/disconnect_instance", "/remove_instances"):
        return Shape.STATUS
    if path == "/api/transfer_instance":
        return Shape.ERROR
    if path in ("/api/drift", "/api/nodes") or path.startswith(("/api/drift/", "/api/nodes/")):
        return Shape.FALSE
    return Shape.PROBLEM


def answer(scope: Scope, problem: Problem) -> Response:
    """The answer to a request that ends with `problem`."""
    media_type = shape_of(str(scope.get("path", ""))).media_type
    # ASCII: what is shown of an input may be no valid Unicode.
    body = json.dumps(body_of(scope, problem)).encode("ascii")
    return Response(body, problem.status, headers=problem.headers, media_type=media_type)


def body_of(scope: Scope, problem: Problem) -> dict[str, Any]:
    """What that answer says, in the shape of the path."""
    path = str(scope.get("path", ""))
    shape = shape_of(path)
    body: dict[str, Any]
    message = problem.message
    if shape is Shape.STATUS:
        body = {"status": "error", "message": message}
    elif shape is Shape.FALSE:
        body = {"status": False, "message": message}
    elif shape is Shape.ERROR:
        body = {"error": message}
    else:
        body = {"type": "about:blank", "title": _title(problem.status), "status": problem.status}
        body["detail"] = message
        where = quote(path)
        if len(where) <= LONGEST_SHOWN:
            body["instance"] = where
        if problem.field is not None:
            body["field"] = problem.field
        body["request_id"] = scope.get("state", {}).get("request_id", "")
    return body


def clipped(text: str, longest: int = LONGEST_SHOWN) -> str:
    """`text`, or its beginning."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def add_handlers(app: FastAPI, note: Callable[[Request, Problem], Awaitable[None]]) -> None:
    """Turn what routes and the framework raise into answers; what is refused, `note` is told."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        await note(request, error)
        return answer(request.scope, error)

    @app.exception_handler(RegistryError)
    async def _registry(request: Request, error: RegistryError) -> Response:
        problem = of_registry(error)
        await note(request, problem)
        return answer(request.scope, problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request.scope, of_validation(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return answer(request.scope, _wrong_method(request))
        message = "Not found" if error.status_code == 404 else clipped(str(error.detail), _LONGEST_MESSAGE)
        return answer(request.scope, Problem(error.status_code, message, error.headers))


def of_registry(error: RegistryError) -> Problem:
    """What an error of the registry's is to a caller."""
    if isinstance(error, NotUsable):
        # It says where the database is: for the log alone.
        log.error("the registry cannot be used", reason=str(error))
        return Problem(503, _AWAY, {"Retry-After": "5"})
    if error.code >= 500:
        log.error("the registry refuses", exc_info=error)
        return Problem(error.code, _INTERNAL)
    field = clipped(error.field) if isinstance(error, Invalid) else None
    return Problem(error.code, clipped(str(error), _LONGEST_MESSAGE), field=field)


def of_validation(error: RequestValidationError) -> Problem:
    """What is wrong with a request's parameters or body: the first field and why. Where one is missing and another one
    is not known, it may be misspelled: both are named."""
    errors = error.errors()
    first = errors[0]
    field = _place(first)
    message = f"{field}: {_reason(first)}"
    if first["type"] == "missing":
        beside = [
            each
            for each in errors
            if each["type"] == _UNKNOWN_FIELD and each["loc"][:-1] == first["loc"][:-1]
        ]
        message = "; ".join([message, *(f"{_place(each)}: {_reason(each)}" for each in beside[:1])])
    return Problem(400, message, field=field)


def _place(error: Mapping[str, Any]) -> str:
    where = [str(part) for part in error["loc"]]
    # The framework's word for the body itself is no field; what is missing is then the body.
    return clipped(".".join(where[1:] or where))


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == _UNKNOWN_FIELD:
        return "is no field of this call"
    if error["type"] == "missing":
        return "is needed"
    # A check of ours; `msg` has the name of its exception in front.
    own = error.get("ctx", {}).get("error") if error["type"] == "value_error" else None
    return clipped(str(own or error["msg"]), 200)


def _wrong_method(request: Request) -> Problem:
    """The framework names the methods of the first route of a path only; a path has several."""
    allowed = set()
    for method in METHODS:
        scope = {**request.scope, "method": method, "path_params": {}}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            allowed.add(method)
    if "GET" in allowed:
        allowed.add("HEAD")
    if allowed == {"POST"} and shape_of(request.scope["path"]) is Shape.ERROR:
        message = "POST method required"
    else:
        message = f"Method not allowed; allowed: {', '.join(sorted(allowed))}"
    return Problem(405, message, {"Allow": ", ".join(sorted(allowed))})


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


class Unforeseen:
    """Answers 500 for what nobody has foreseen, and logs it: the caller gets no stack trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise  # what has begun cannot be taken back: the server closes the connection
            log.error("a request failed", exc_info=error)
            await answer(scope, Problem(500, _INTERNAL))(scope, receive, send)
