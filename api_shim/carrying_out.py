"""What every changing call has in common: the operation is recorded, carried out, and waited for.

The answer is the call's own: its route says how a result is told.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

import anyio.to_thread
from fastapi import Request
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.types import Scope

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import endings, looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation
from api_shim import idempotency
from api_shim.key_ring import Caller
from api_shim.problems import Problem, Shape, body_of, shape_of
from api_shim.service import Service
from api_shim.waiting import FINAL, is_answered


@dataclass(frozen=True)
class Answer:
    """What a caller gets."""

    status: int
    body: dict[str, Any]
    operation_id: str | None = None  # whose answer it is


@dataclass(frozen=True)
class Wanted:
    """An operation that is asked for: its kind and the playbook's variables; `check` asks for its plan alone."""

    kind: str
    variables: Mapping[str, Any]
    check: bool = False


#: The answer to a call whose operation went well.
Tell = Callable[[dict[str, Any]], Answer]
#: What to ask for; it may look into the registry, and raises RegistryError or Problem.
Find = Callable[[Session], Wanted]


async def carry_out(
    request: Request,
    service: Service,
    who: Caller,
    find: Find,
    tell: Tell,
    statuses: Container[int] = range(400, 600),
) -> JSONResponse:
    """Record an operation and answer with its result, or, when it takes long or the caller does not want to wait, with
    202 and where to look for it. An error's status is one of `statuses`, else 500."""
    call = await idempotency.call_of(request, who)
    recorded = await anyio.to_thread.run_sync(_record, request, service, who, find, call)
    if isinstance(recorded, Answer):
        return _response(request.scope, recorded)
    service.wake()
    headers: dict[str, str] = {}
    seconds = service.settings.wait_seconds
    if _is_async(request):
        seconds = 0
        headers["Preference-Applied"] = "respond-async"
    await service.waiting.until_ended(recorded, seconds)
    answer = await anyio.to_thread.run_sync(
        _answer, service, recorded, call, _teller(request.scope, tell, statuses)
    )
    if answer is not None:
        return _response(request.scope, answer, headers)
    message = f"Accepted; it is carried out, and {_where(recorded)} tells how it goes"
    accepted = {"status": "accepted", "message": message, "operation_id": recorded}
    return _response(request.scope, Answer(202, accepted, recorded), headers)


def _where(operation_id: str) -> str:
    return f"/api/operations/{operation_id}"


def _result_of(session: Session, operation: Operation) -> dict[str, Any]:
    """What came of an operation; of one that was canceled, that."""
    result = looks.result_of(session, operation)
    if operation.state == "canceled" or result is None:
        return {"status": "error", "code": 409, "message": operation.error or "It was canceled"}
    return result


def _problem_of(result: Mapping[str, Any]) -> Problem | None:
    """What is wrong with a result, if anything is. A report on the fleet is none, whatever it says of the nodes."""
    if result.get("status") != "error" or "data" in result:
        return None
    # A run that could not begin has a message of its own, else its only operation has.
    one = result if "message" in result else next(iter(result.get("operations", ())), {})
    code = int(one.get("code", 500))
    return Problem(code if 400 <= code < 600 else 500, str(one.get("message", "It failed")))


def _plan_of(scope: Scope, result: Mapping[str, Any]) -> Answer | None:
    """The answer to a dry run, if it is one."""
    if result.get("status") != "planned":
        return None
    message = "; ".join(str(one.get("message", "")) for one in result.get("operations", ()))
    status = True if shape_of(scope["path"]) is Shape.FALSE else "success"
    return Answer(
        200, {"status": status, "dry_run": True, "message": f"Would be: {message}", "plan": dict(result)}
    )


def _teller(scope: Scope, tell: Tell, statuses: Container[int]) -> Tell:
    """With what is the same for all calls: errors and plans."""

    def complete(result: dict[str, Any]) -> Answer:
        problem = _problem_of(result)
        if problem is not None:
            if problem.status not in statuses:
                problem = Problem(500, problem.message)
            return Answer(problem.status, body_of(scope, problem))
        return _plan_of(scope, result) or tell(result)

    return complete


def _response(scope: Scope, answer: Answer, headers: Mapping[str, str] | None = None) -> JSONResponse:
    media_type = shape_of(scope["path"]).media_type if answer.status >= 400 else None
    where = {"Location": _where(answer.operation_id)} if answer.operation_id is not None else {}
    return JSONResponse(answer.body, answer.status, {**(headers or {}), **where}, media_type=media_type)


def _record(
    request: Request, service: Service, who: Caller, find: Find, call: idempotency.Call | None
) -> str | Answer:
    """The id of the operation; or the answer to a call that was answered before."""
    wanted: Wanted | None = None

    def write(session: Session) -> str | Answer:
        nonlocal wanted
        known = idempotency.find(session, call) if call is not None else None
        if known is not None:
            return _repeated(known.status, known.answer, known.operation_id, session)
        wanted = find(session)
        operation = queue.submit(session, wanted.kind, wanted.variables, who.actor, wanted.check)
        if call is not None:
            idempotency.note(session, call, operation.id)
        return operation.id

    try:
        return service.recorder.write(write)
    except (NotFound, Conflict, Full) as error:
        if wanted is not None and not wanted.check and wanted.kind != "drift":
            _audit(service, who, wanted, error)
            request.state.audited = True
        raise


def _audit(service: Service, who: Caller, wanted: Wanted, error: NotFound | Conflict | Full) -> None:
    """Note that a change was asked for and refused."""
    subject = str(wanted.variables.get("instance") or wanted.variables.get("node") or "")
    service.recorder.write(
        lambda session: endings.refuse(session, wanted.kind, [subject], str(error), error.code, who.actor)
    )


def _repeated(
    status: int | None, answer: dict[str, Any] | None, number: str | None, session: Session
) -> str | Answer:
    if status is not None and answer is not None:
        return Answer(status, answer, number)
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
        answer = replace(tell(_result_of(session, operation)), operation_id=number)
        ended = operation.state in FINAL
    # What is tried again will have another answer.
    if call is not None and ended:
        service.recorder.write(lambda session: idempotency.keep(session, call, answer.status, answer.body))
    return answer


def _is_async(request: Request) -> bool:
    """RFC 7240: preferences are separated by commas; case does not matter."""
    given = ",".join(request.headers.getlist("Prefer"))
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in given.split(","))
