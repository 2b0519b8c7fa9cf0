"""An id for each request: in the answer, in every line of the log and in errors."""

from __future__ import annotations

import re
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"
TAKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIds:
    """The outermost layer: gives a request its id, the caller's where it is a plain one, and every answer the headers
    that were noted by `add_header`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if TAKEN.fullmatch(given) else str(uuid.uuid4())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["headers"] = {}

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                for name, value in state["headers"].items():
                    headers[name] = value
            await send(message)

        structlog.contextvars.clear_contextvars()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, named)


def add_header(scope: Scope, name: str, value: str) -> None:
    """Have the answer bear a header, whether it is a good one or an error."""
    scope["state"]["headers"][name] = value
