"""What every changing call has in common: the operation is recorded, carried out, and waited for.

The answer is the call's own: its route says how a result is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from fastapi import Request
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import endings, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
from api_shim import idempotency
from api_shim.key_ring import Caller
from api_shim.problems import Problem
from api_shim.service import Service
from api_shim.waiting import is_answered


@dataclass(frozen=True)
class Answer:
    """What a caller gets."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """An operation that is asked for: its kind and the playbook's variables; `check` asks for its plan alone."""

    kind: str
    variables: Mapping[str, Any]
    check: bool = False


#: The answer to a call whose operation has a result.
Tell = Callable[[dict[str, Any]], Answer]
#: What to ask for; it may look into the registry, and raises RegistryError or Problem.
Find = Callable[[Session], Wanted]


async def carry_out(request: Request, service: Service, who: Caller, find: Find, tell: Tell) -> JSONResponse:
    """Record an operation and answer with its result, or, when it takes long or the caller does not want to wait, with
    202 and where to look for it."""
    call = await idempotency.call_of(request, who)
    recorded = await anyio.to_thread.run_sync(_record, service, who, find, call)
    if isinstance(recorded, Answer):
        return JSONResponse(recorded.body, recorded.status)
    service.worker.wake()
    headers: dict[str, str] = {}
    seconds = service.settings.wait_seconds
    if _is_async(request):
        seconds = 0
        headers["Preference-Applied"] = "respond-async"
    await service.waiting.until_ended(recorded, seconds)
    answer = await anyio.to_thread.run_sync(_answer, service, recorded, call, tell)
    if answer is not None:
        return JSONResponse(answer.body, answer.status, headers)
    where = f"/api/operations/{recorded}"
    message = f"Accepted; it is carried out, and {where} tells how it goes"
    return JSONResponse(
        {"status": "accepted", "message": message, "operation_id": recorded},
        202,
        {**headers, "Location": where},
    )


def told(operation: Operation) -> dict[str, Any]:
    """An operation's result as a route tells it; of one that was canceled, that."""
    if operation.state == "canceled" or operation.result is None:
        return {"status": "error", "code": 409, "message": operation.error or "it was canceled"}
    return operation.result


def failure_of(result: Mapping[str, Any]) -> Answer | None:
    """What is wrong with a result, if anything is; `body` is for the route to shape."""
    if result.get("status") != "error":
        return None
    first = result if "message" in result else next(iter(result.get("operations", ())), {})
    code = int(first.get("code", 500))
    return Answer(code if 400 <= code < 600 else 500, {"message": str(first.get("message", "it failed"))})


def plan_of(result: Mapping[str, Any]) -> Answer | None:
    """The answer to a dry run, if it is one."""
    if result.get("status") != "planned":
        return None
    message = "; ".join(str(one.get("message", "")) for one in result.get("operations", ()))
    return Answer(
        200,
        {"status": "success", "dry_run": True, "message": f"Would be: {message}", "plan": dict(result)},
    )


def _record(service: Service, who: Caller, find: Find, call: idempotency.Call | None) -> str | Answer:
    """The id of the operation; or the answer to a call that was answered before."""
    wanted: Wanted | None = None
    try:
        with service.registry.write() as session:
            known = idempotency.find(session, call) if call is not None else None
            if known is not None:
                return _repeated(known.status, known.answer, known.operation_id, session)
            wanted = find(session)
            operation = queue.submit(session, wanted.kind, wanted.variables, who.actor, wanted.check)
            if call is not None:
                idempotency.note(session, call, operation.id)
            return operation.id
    except (NotFound, Conflict, Full) as error:
        if wanted is not None and not wanted.check and wanted.kind != "drift":
            subject = str(wanted.variables.get("instance") or wanted.variables.get("node") or "")
            with service.registry.write() as session:
                endings.refuse(session, wanted.kind, [subject], str(error), error.code, who.actor)
        raise


def _repeated(
    status: int | None, answer: dict[str, Any] | None, number: str | None, session: Session
) -> str | Answer:
    if status is not None and answer is not None:
        return Answer(status, answer)
    operation = session.get(Operation, number) if number is not None else None
    if operation is None:
        raise Problem(410, "What this call asked for has ended, and its result is no longer kept")
    if not is_answered(operation):
        raise Problem(409, f"The same call is still being carried out, as operation {operation.id}")
    return operation.id


def _answer(service: Service, number: str, call: idempotency.Call | None, tell: Tell) -> Answer | None:
    with service.registry.read() as session:
        operation = session.get_one(Operation, number)
        if not is_answered(operation):
            return None
        answer = tell(told(operation))
    if call is not None:
        with service.registry.write() as session:
            idempotency.keep(session, call, answer.status, answer.body)
    return answer


def _is_async(request: Request) -> bool:
    """RFC 7240: preferences are separated by commas; case does not matter."""
    given = ",".join(request.headers.getlist("Prefer"))
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in given.split(","))
