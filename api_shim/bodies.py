"""Request bodies: how long they may be, and what JSON is taken.

What two parsers may read differently is refused: a key twice in an object, NaN, text that is no valid Unicode.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn

from anyio.to_thread import run_sync
from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.problems import Problem, answer

LONGEST = 1024 * 1024  # bytes
_SHORT = 16 * 1024
PATIENCE = 30.0  # seconds that a body may take to come
_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})
_TOO_LONG = f"The body is longer than {LONGEST} bytes"


class Bodies:
    """Reads a body before the application does.

    Too long a body ends the request here. What is wrong with the JSON in it is noted, and raised by `require_good_body`
    once the caller is known: who has no key learns nothing about what is taken.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_length(Headers(scope=scope))
            async with asyncio.timeout(PATIENCE):
                body = await _read(receive)
        except TimeoutError:
            await answer(scope, Problem(408, "The body did not come", {"Connection": "close"}))(
                scope, receive, send
            )
            return
        except Problem as problem:
            # What is left of the body is not read: the connection is of no further use.
            problem.headers["Connection"] = "close"
            await answer(scope, problem)(scope, receive, send)
            return
        if body is None:  # the caller went away
            return
        if body and scope["method"] in _WITH_BODY:
            # A long one takes a fifth of a second, in which nobody else would be served.
            wrong = what_is_wrong(body) if len(body) < _SHORT else await run_sync(what_is_wrong, body)
            if wrong:
                scope["state"]["body_problem"] = wrong
                body = b"{}"  # the application's own parser does not get to see it
            # Clients forget to say that it is JSON.
            scope["headers"] = [
                *(pair for pair in scope["headers"] if pair[0] not in (b"content-type", b"content-length")),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


def require_good_body(request: Request) -> None:
    """Raises Problem 400 when the body is no JSON as it is taken here."""
    wrong = request.scope["state"].get("body_problem")
    if wrong:
        raise Problem(400, wrong)


def what_is_wrong(body: bytes) -> str | None:
    """What is wrong with a body as JSON, in a sentence that repeats nothing of it; None for nothing."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"The body is not UTF-8 at byte {error.start}"
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite_number
        )
    except json.JSONDecodeError as error:
        return f"The body is not valid JSON at line {error.lineno}, column {error.colno}"
    except RecursionError:
        return "The body is nested too deeply"
    except ValueError as error:
        # Ours, and Python's for an integer of more digits than it cares to read.
        return str(error) if isinstance(error, _Refused) else "The body has a number that is too long"
    # Only by an escape can there be what is no text.
    if "\\u" in text and not _is_all_text(value):
        return "The body has a text with a NUL or half a surrogate pair"
    return None


class _Refused(ValueError):
    """JSON to some, but not taken here."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("The body has an object with the same key twice")
    return found


def _no_number(_: str) -> NoReturn:
    raise _Refused("The body has NaN or Infinity, which are no JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Refused("The body has a number that is too large")
    return number


def _is_all_text(value: Any) -> bool:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if "\0" in one or any("\ud800" <= character <= "\udfff" for character in one):
                return False
        elif isinstance(one, dict):
            left.extend(one)
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return True


def _check_length(headers: Headers) -> None:
    for given in headers.getlist("content-length"):
        if not (given.isascii() and given.isdigit()):
            raise Problem(400, "Content-Length is not a number of bytes")
        if len(given) > 15 or int(given) > LONGEST:
            raise Problem(413, _TOO_LONG)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None when the caller goes away before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > LONGEST:
            raise Problem(413, _TOO_LONG)
        if not message.get("more_body", False):
            return bytes(body)
