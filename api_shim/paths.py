"""Spellings of a request that mean the same: `/path/` and `/path`, HEAD and GET without its body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Spellings:
    """Gives the application one spelling. Routes are declared without a slash at the end; nobody is redirected, as
    many a client would repeat a POST as GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if len(path) > 1 and path.endswith("/") and not path.endswith("//"):
            scope["path"] = path[:-1]
            scope["raw_path"] = (scope.get("raw_path") or b"").removesuffix(b"/")
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        scope["method"] = "GET"

        async def headers_only(message: Message) -> None:
            scope["method"] = "HEAD"  # the server counts what it sends by it
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, headers_only)
