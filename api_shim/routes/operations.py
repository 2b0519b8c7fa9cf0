"""Operations: how each goes, as it is and as it comes, and its end before its time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import looks, queue
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import RegistryError
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
    OperationEvent,
)
from api_shim.auth import caller
from api_shim.idempotency import Call, answered, call_of
from api_shim.key_ring import Caller
from api_shim.problems import Problem
from api_shim.routes.parameters import Body, How, repeatable_at_once, uuid_of
from api_shim.service import Service, TheService
from api_shim.waiting import FINAL

router = APIRouter(tags=["operations"])

#: Seconds between two looks for what has happened, and after which a comment keeps the connection open.
_POLL = 0.5
_KEEPALIVE = 15.0
_MOST_AT_ONCE = 500
#: What a billing key may cancel: what it may ask for.
BILLING_KINDS = ("disconnect", "transfer", "remove")
_EVENT_ID = re.compile(r"[0-9]{1,18}")

Follower = Annotated[Caller, Depends(caller("read", "billing"))]
Changer = Annotated[Caller, Depends(caller("ops", "billing"))]
OperationId = Annotated[
    str,
    Path(
        description="the operation's UUID",
        json_schema_extra={"format": "uuid"},
        examples=["0b1c6a3e-52d4-4c3b-9d1f-6f0f6c1c9b52"],
    ),
]


async def _call(request: Request, who: Changer) -> Call | None:
    return await call_of(request, who)


TheCall = Annotated[Call | None, Depends(_call)]


class Nothing(Body):
    """No fields: there is nothing to say."""


class OperationShown(BaseModel):
    """An operation. `result` is there once it was tried; `pending` with a result means that it is tried again."""

    id: str
    kind: str = Field(examples=["disconnect"])
    state: Literal["pending", "running", "succeeded", "failed", "canceled"]
    instance: str | None
    node: str | None = Field(description="of reconcile, the drift of one node, and transfer (the target)")
    attempts: int = Field(description="how often it was tried")
    requested_by: str = Field(examples=["api:billing-1"])
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    not_before: datetime | None = Field(description="when it is tried next")
    error: str | None
    result: dict[str, Any] | None = Field(description="of the last try: status, code, message and more")


@router.get("/api/operations/{operation_id}", operation_id="get_operation")
async def get_operation(operation_id: OperationId, service: TheService, _who: Follower) -> OperationShown:
    """How an operation goes."""

    def read() -> OperationShown:
        with service.registry.read() as session:
            return _shown(session, _require(session, operation_id))

    # Asked for most of all. A plain function would take the framework two threads, one for what it returns.
    return await anyio.to_thread.run_sync(read)


@router.post(
    "/api/operations/{operation_id}/cancel",
    operation_id="cancel_operation",
    status_code=202,
    dependencies=[Depends(repeatable_at_once)],
    responses={
        200: {"model": OperationShown, "description": "This is a plan"},
        202: {
            "model": OperationShown,
            "description": "It is canceled, or ends as soon as its processes have",
        },
        409: {"description": "It has ended already"},
        422: {},
    },
)
def cancel_operation(
    operation_id: OperationId,
    service: TheService,
    who: Changer,
    how: How,
    call: TheCall,
    _body: Nothing | None = None,
) -> JSONResponse:
    """End an operation before it is done. One that has not begun leaves no trace. One at work is ended with all its
    processes; what it has put into the registry stays, and is completed by a reconcile of its nodes. A key of the scope
    `billing` cancels what billing may ask for."""
    with service.registry.write(keep=not how.dry_run) as session:

        def cancel() -> tuple[int, dict[str, Any]]:
            operation = _require(session, operation_id)
            if "ops" not in who.scopes and operation.kind not in BILLING_KINDS:
                message = (
                    f"The key has no right to do this; the scope ops is needed to cancel a {operation.kind}"
                )
                raise Problem(403, message)
            queue.cancel(session, operation, who.actor)
            session.flush()
            return 202, _shown(session, operation).model_dump(mode="json")

        status, shown = answered(session, call, cancel)
    if how.dry_run:
        return JSONResponse(shown, 200)
    service.wake()
    service.waiting.notify()
    return JSONResponse(shown, status)


@router.get(
    "/api/operations/{operation_id}/events",
    operation_id="follow_operation",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow_operation(
    operation_id: OperationId,
    service: TheService,
    _who: Follower,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> StreamingResponse:
    """What happens to an operation, as Server-Sent Events: its states and the steps of its run, from the first one or
    behind Last-Event-ID; the stream ends when the operation does."""
    if last_event_id and _EVENT_ID.fullmatch(last_event_id) is None:
        raise Problem(400, "Last-Event-ID: is not the id of an event", field="Last-Event-ID")
    number = await anyio.to_thread.run_sync(_find, service, operation_id)
    return StreamingResponse(
        _events(service, number, int(last_event_id or 0)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(service: Service, number: str, seen: int) -> AsyncIterator[str]:
    quiet = 0.0
    known: str | None = None
    lingered = False
    while True:
        try:
            events, state, error = await anyio.to_thread.run_sync(_new_events, service, number, seen)
        except RegistryError:
            # It may come back; the client resumes where it was.
            return
        for one in events:
            seen = one.id
            data = {"operation_id": number, "at": one.at.isoformat(), **one.data}
            yield _told(seen, one.event, data)
        if len(events) == _MOST_AT_ONCE:
            continue
        if state in FINAL and not lingered and not service.stopping.is_set():
            # The last steps of its run are written a moment later than its end.
            lingered = True
            await asyncio.sleep(_POLL)
            continue
        if state is not None and state != known:
            known = state
            yield _told(seen, state, {"operation_id": number, "state": state, "error": error})
        if state is None or state in FINAL:
            return
        quiet = 0.0 if events else quiet + _POLL
        if quiet >= _KEEPALIVE:
            quiet = 0.0
            yield ": still there\n\n"
        if service.stopping.is_set():
            return
        await asyncio.sleep(_POLL)


def _told(seen: int, event: str, data: dict[str, Any]) -> str:
    return f"id: {seen}\nevent: {event}\ndata: {json.dumps(data)}\n\n"


def _new_events(
    service: Service, number: str, seen: int
) -> tuple[list[OperationEvent], str | None, str | None]:
    """What happened behind an event; the operation's state, None when it is no longer kept; and its error."""
    with service.registry.read() as session:
        row = session.execute(
            select(Operation.state, Operation.error).where(Operation.id == number)
        ).one_or_none()
        state, error = row if row is not None else (None, None)
        query = (
            select(OperationEvent)
            .where(OperationEvent.operation_id == number, OperationEvent.id > seen)
            .order_by(OperationEvent.id)
            .limit(_MOST_AT_ONCE)
        )
        return list(session.scalars(query)), state, error


def _find(service: Service, operation_id: str) -> str:
    with service.registry.read() as session:
        return _require(session, operation_id).id


def _require(session: Session, operation_id: str) -> Operation:
    number = uuid_of(operation_id)
    operation = session.get(Operation, number) if number is not None else None
    if operation is None:
        raise Problem(404, "Operation not found")
    return operation


def _shown(session: Session, operation: Operation) -> OperationShown:
    node = session.get(Node, operation.node_id) if operation.node_id is not None else None
    named = node.name if node is not None else operation.request.get("node")
    return OperationShown(
        id=operation.id,
        kind=operation.kind,
        state=operation.state,  # type: ignore[arg-type] # the table's constraint says the same
        instance=operation.instance_name or operation.request.get("instance"),
        node=named,
        attempts=operation.attempts,
        requested_by=operation.requested_by,
        created_at=operation.created_at,
        started_at=operation.started_at,
        finished_at=operation.finished_at,
        not_before=operation.not_before,
        error=operation.error,
        result=looks.result_of(session, operation),
    )
