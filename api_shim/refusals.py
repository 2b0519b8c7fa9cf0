"""Audit rows for changes that were asked for by a key we know, and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from anyio.to_thread import run_sync
from fastapi import Request

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry
from api_shim.problems import LONGEST_SHOWN, Problem, clipped

if TYPE_CHECKING:
    from api_shim.key_ring import Caller
    from api_shim.service import Service

LOOKS = frozenset({"GET", "HEAD"})
#: Input that is not understood leaves nothing behind, nor does a call too many: the log has both.
_AUDITED = frozenset({403, 404, 409, 410, 422})

log = structlog.stdlib.get_logger("api_shim")


async def note_problem(request: Request, problem: Problem) -> None:
    """Note that a call ended with a problem, unless whoever ended it has done so."""
    who = getattr(request.state, "caller", None)
    plan = request.query_params.get("dry_run") == "true"
    if who is None or plan or getattr(request.state, "audited", False):
        return
    if problem.status in _AUDITED:
        await note(request, who, problem.status, problem.message)


async def note(request: Request, who: Caller, code: int, message: str) -> None:
    """Note that a call was refused. A look is none of the audit's business."""
    if request.method not in LOOKS:
        request.state.audited = True
        await run_sync(_write, request, who, code, message)


def _write(request: Request, who: Caller, code: int, message: str) -> None:
    service: Service = request.app.state.service
    row = AuditEntry(
        actor=who.actor,
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
