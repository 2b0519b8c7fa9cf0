"""Who may call what: `caller(scope)` is the dependency of every route but the open ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import structlog
from anyio.to_thread import run_sync
from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry
from api_shim.bodies import require_good_body
from api_shim.key_ring import Caller, Found
from api_shim.keys import SCOPES
from api_shim.problems import LONGEST_SHOWN, Problem, clipped

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
_LOOKS = frozenset({"GET", "HEAD"})
# One sentence whatever is wrong: whoever tries keys learns nothing from it.
_UNKNOWN = "A valid API key is needed, as X-API-Key or as Authorization: Bearer"

log = structlog.stdlib.get_logger("api_shim")


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
                await run_sync(_note_refusal, request, found, 401, f"the key is {found.state}")
            raise Problem(401, _UNKNOWN, {"WWW-Authenticate": 'Bearer realm="vpnfleet"'})
        request.state.caller = found.caller
        if not _may(found.caller, scopes, request.method):
            wanted = " or ".join(sorted({"ops", *scopes}))
            message = f"The key has no right to do this; the scope {wanted} is needed"
            await run_sync(_note_refusal, request, found, 403, message)
            raise Problem(403, message)
        require_good_body(request)
        return found.caller

    # For the document.
    authenticate.scopes = tuple(sorted({"ops", *scopes}))  # type: ignore[attr-defined]
    return authenticate


def _may(who: Caller, scopes: tuple[str, ...], method: str) -> bool:
    if "ops" in who.scopes:
        return True
    wanted = {scope for scope in scopes if scope != "read" or method in _LOOKS}
    return not wanted.isdisjoint(who.scopes)


def _note_refusal(request: Request, found: Found, code: int, message: str) -> None:
    """An audit row for a change that was asked for by a key we know, and refused."""
    if request.method in _LOOKS:
        return
    service: Service = request.app.state.service
    row = AuditEntry(
        actor=found.caller.actor,
        action="api call",
        subject=f"{request.method} {request.scope['route'].path}",
        result="refused",
        details={
            "code": code,
            "message": message,
            "path": clipped(quote(request.scope["path"]), LONGEST_SHOWN),
            "request_id": request.state.request_id,
        },
    )
    try:
        with service.registry.write() as session:
            session.add(row)
    except RegistryError as error:
        # It is refused all the same.
        log.warning("a refused call could not be recorded", reason=str(error))
