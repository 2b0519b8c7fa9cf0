"""Who may call what: `caller(scope)` is the dependency of every route but the open ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated

from anyio.to_thread import run_sync
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api_shim import refusals
from api_shim.bodies import require_good_body
from api_shim.key_ring import Caller
from api_shim.keys import SCOPES
from api_shim.problems import Problem

if TYPE_CHECKING:
    from api_shim.service import Service

_HEADER = APIKeyHeader(
    name="X-API-Key",
    scheme_name="ApiKey",
    description="A key made by `python -m api_shim keys create`",
    auto_error=False,
)
_BEARER = HTTPBearer(
    scheme_name="Bearer", description="The same key as `Authorization: Bearer …`", auto_error=False
)
# One sentence whatever is wrong: whoever tries keys learns nothing from it.
_UNKNOWN = "A valid API key is needed, as X-API-Key or as Authorization: Bearer"


@cache
def caller(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the Caller, whose key has one of `scopes`; `ops` may do all, and `read` is a right to GET
    only. Ends the request with 401 or 403, and 400 when the body is no JSON."""
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ValueError(f"scopes are of {SCOPES}")

    async def authenticate(
        request: Request,
        header: Annotated[str | None, Security(_HEADER)],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    ) -> Caller:
        service: Service = request.app.state.service
        given = header or (bearer.credentials if bearer else None)
        found = service.keys.remembered(given) if given else None
        if found is None and given:
            found = await run_sync(service.keys.look_up, given)
        if found is None or found.state != "active":
            if found is not None:
                await refusals.note(request, found.caller, 401, f"the key is {found.state}")
            raise Problem(401, _UNKNOWN, {"WWW-Authenticate": 'Bearer realm="vpnfleet"'})
        request.state.caller = found.caller
        if not _may(found.caller, scopes, request.method):
            wanted = " or ".join(sorted({"ops", *scopes}))
            message = f"The key has no right to do this; the scope {wanted} is needed"
            await refusals.note(request, found.caller, 403, message)
            raise Problem(403, message)
        require_good_body(request)
        return found.caller

    # For the document.
    authenticate.scopes = tuple(sorted({"ops", *scopes}))  # type: ignore[attr-defined]
    return authenticate


def _may(who: Caller, scopes: tuple[str, ...], method: str) -> bool:
    if "ops" in who.scopes:
        return True
    wanted = {scope for scope in scopes if scope != "read" or method in refusals.LOOKS}
    return not wanted.isdisjoint(who.scopes)


Reader = Annotated[Caller, Depends(caller("read"))]
Ops = Annotated[Caller, Depends(caller("ops"))]
