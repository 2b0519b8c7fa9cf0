"""Drift of nodes, looked for at the moment of the call, and its repair. In the seeds' shape."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api_shim.auth import Ops, Reader, caller
from api_shim.carrying_out import Answer, Wanted, carry_out
from api_shim.rate_limits import count, limited
from api_shim.routes.parameters import (
    ACCEPTED,
    REPEATED,
    Body,
    How,
    NodeId,
    Planned,
    repeatable,
    waiting,
)
from api_shim.routes.shown import require
from api_shim.service import Service, TheService

router = APIRouter(tags=["drift"])


class DriftReport(BaseModel):
    """What differs on one node, or, under `nodes`, on all."""

    status: Literal[True]
    message: str
    data: dict[str, Any]


class Reconciled(Planned):
    """What was repaired."""

    status: Literal[True]
    message: str
    data: dict[str, Any] | None = None


class ReconcileBody(Body):
    """What may be repaired."""

    reconcile_missing: bool = Field(True, description="add peers, and bring up interfaces, that are missing")
    reconcile_mismatched: bool = Field(True, description="put right what differs")
    remove_unknown: bool = Field(
        False,
        description="remove peers that the registry does not know; none where there are more than max_removals",
    )
    max_removals: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="how many unknown peers may be removed from one interface; 10 where nothing is said",
    )


def _patience(service: Service) -> dict[str, int]:
    """Whoever waits is told of a node that hangs while they wait."""
    return {"timeout": service.settings.drift_node_timeout}


@router.get(
    "/api/drift/nodes",
    operation_id="drift_of_all_nodes",
    responses={
        **ACCEPTED,
        200: {"model": DriftReport},
        500: {"description": "The nodes could not be looked at"},
        404: {"description": "The registry has no enabled node"},
        409: {"description": "The look was canceled"},
        429: {},
    },
    dependencies=[Depends(waiting), Depends(caller("read")), Depends(limited("rate_limit_drift_all"))],
)
async def drift_of_all_nodes(request: Request, service: TheService, who: Reader) -> JSONResponse:
    """What differs on all enabled nodes. One that cannot be read bears an `error`, and the others their result."""

    def tell(result: dict[str, Any]) -> Answer:
        message = "Drift detection completed for all nodes"
        return Answer(200, {"status": True, "message": message, "data": result["data"]})

    return await carry_out(request, service, who, lambda _session: Wanted("drift", _patience(service)), tell)


@router.get(
    "/api/drift/nodes/{node_id}",
    operation_id="drift_of_node",
    responses={
        **ACCEPTED,
        200: {"model": DriftReport},
        500: {"description": "The node cannot be reached or read"},
        409: {"description": "The look was canceled"},
        429: {},
    },
    dependencies=[
        Depends(waiting),
        Depends(caller("read")),
        Depends(limited("rate_limit_drift_node", ("key", "node_id"))),
    ],
)
async def drift_of_node(node_id: NodeId, request: Request, service: TheService, who: Reader) -> JSONResponse:
    """What differs between the registry and what a node runs."""

    def find(session: Session) -> Wanted:
        return Wanted("drift", {"node": require(session, node_id).name, **_patience(service)})

    def tell(result: dict[str, Any]) -> Answer:
        (one,) = result["operations"]
        return Answer(200, {"status": True, "message": "Drift detection completed", "data": one["data"]})

    return await carry_out(request, service, who, find, tell)


@router.post(
    "/api/drift/nodes/{node_id}/reconcile",
    operation_id="reconcile_node",
    responses={
        **REPEATED,
        200: {"model": Reconciled},
        429: {},
        500: {
            "description": "The node cannot be reached or read: nothing was changed, and nothing is tried again"
        },
    },
    dependencies=[
        Depends(repeatable),
        Depends(caller("ops")),
    ],
)
async def reconcile_node(
    node_id: NodeId,
    request: Request,
    service: TheService,
    who: Ops,
    how: How,
    body: ReconcileBody | None = None,
) -> JSONResponse:
    """Bring a node to what the registry says. Each peer is for itself: an error with one is told and stops no other."""
    switches = (body or ReconcileBody()).model_dump()  # type: ignore[call-arg]

    def find(session: Session) -> Wanted:
        wanted = Wanted("reconcile", {"node": require(session, node_id).name, **switches}, how.dry_run)
        # Here, where the call is neither refused nor a repeated one. A plan is a look at the node.
        count(request, "rate_limit_drift_node" if how.dry_run else "rate_limit_reconcile", ("key", "node_id"))
        return wanted

    def tell(result: dict[str, Any]) -> Answer:
        return Answer(200, {"status": True, "message": result["message"], "data": result["data"]})

    return await carry_out(request, service, who, find, tell)
