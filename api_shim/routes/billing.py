"""What the billing system calls: disconnect, transfer, remove. Their paths, fields and status codes are fixed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotFound
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import License, Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    LONGEST_EMAIL,
    check_instance_name,
)
from api_shim.auth import caller
from api_shim.carrying_out import Answer, Wanted, carry_out
from api_shim.key_ring import Caller
from api_shim.problems import Problem
from api_shim.routes.parameters import EMAIL, REPEATED, Body, How, Planned, repeatable
from api_shim.service import TheService

router = APIRouter(tags=["billing"], dependencies=[Depends(repeatable)])

Billing = Annotated[Caller, Depends(caller("billing"))]
#: These calls' status codes are fixed: what is neither the caller's mistake nor missing is 500.
_STATUSES = (400, 404)
_FAILED = (
    "The node is away: recorded, and tried again by itself, see `Location`; or the operation was canceled. Do not give "
    "up on it: whoever is to be disconnected will be"
)
_EMAIL = Field(
    min_length=3,
    max_length=LONGEST_EMAIL,
    description="the customer's e-mail, which is the instance's name",
    json_schema_extra=EMAIL,
)


class DisconnectBody(Body):
    """Whose instance."""

    email: str = _EMAIL


class TransferBody(Body):
    """Whose instance, and where to."""

    email: str = _EMAIL
    server_id: str | int = Field(
        description="the node: its id, its name or its dns_name",
        json_schema_extra={
            "anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}],
            "examples": ["nl1.example.com"],
        },
    )


class RemoveInstance(Body):
    """Whose instance."""

    instance: str = _EMAIL


class RemoveBody(Body):
    """As the billing system wraps it."""

    body: RemoveInstance

    @model_validator(mode="before")
    @classmethod
    def _wrapped(cls, given: Any) -> Any:
        """Who leaves the wrapper out has to be told more than that a field is missing."""
        if isinstance(given, dict) and not isinstance(given.get("body"), dict):
            raise ValueError('is to be {"body": {"instance": "user@example.com"}}')
        return given


class Disconnected(Planned):
    """The instance is down on its node."""

    status: Literal["success"]
    message: str
    instance_id: int | None = None


class NewServer(BaseModel):
    """Where the instance is."""

    country: str | None
    dns_name: str | None


class Transferred(Planned):
    """The instance is on the other node."""

    status: Literal["success"]
    message: str
    updated_licenses: int | None = None
    new_server: NewServer | None = None


class Report(BaseModel):
    """What was removed, and what was not there or could not be reached."""

    instance_identifier: str
    removed_items: list[dict[str, Any]]
    errors: list[str]


class Removed(Planned):
    """The report of a removal."""

    status: Literal["success", "partial_success"]
    message: str
    results: Report | None = None


@router.post(
    "/api/disconnect_instance",
    operation_id="disconnect_instance",
    responses={
        **REPEATED,
        200: {"model": Disconnected, "description": "It is down, or was already"},
        404: {"description": "No instance is called so"},
        500: {"description": _FAILED},
    },
)
async def disconnect(
    body: DisconnectBody, request: Request, service: TheService, who: Billing, how: How
) -> JSONResponse:
    """Take a customer's instance down on its node; it stays in the registry, for use on another one."""

    def find(_session: Session) -> Wanted:
        return Wanted("disconnect", {"instance": check_instance_name(body.email, "email")}, how.dry_run)

    def tell(result: dict[str, Any]) -> Answer:
        return Answer(
            200,
            {"status": "success", "message": result["message"], "instance_id": result["instance_id"]},
        )

    return await carry_out(request, service, who, find, tell, _STATUSES)


@router.post(
    "/api/transfer_instance",
    operation_id="transfer_instance",
    responses={
        **REPEATED,
        200: {"model": Transferred, "description": "It is on the other node, or was already"},
        404: {
            "description": "No instance is called so, no node is the server, or there is no active license"
        },
        500: {
            "description": "The target is disabled, full or away, or the operation was canceled: the instance stays "
            "where it is. With `Location`, its operation says whether it is tried again"
        },
    },
)
async def transfer(
    body: TransferBody, request: Request, service: TheService, who: Billing, how: How
) -> JSONResponse:
    """Move a customer's instance to another node, with its keys and addresses, and the licenses with it."""

    def find(session: Session) -> Wanted:
        name = check_instance_name(body.email, "email")
        if body.server_id in ("", 0):
            raise Problem(400, "Server ID is required", field="server_id")
        node = _node(session, str(body.server_id))
        licensed = select(License.id).where(License.email == name, License.is_active.is_(True))
        if session.scalar(licensed.limit(1)) is None:
            raise NotFound("No active licenses found")
        return Wanted("transfer", {"instance": name, "node": node.name}, how.dry_run)

    def tell(result: dict[str, Any]) -> Answer:
        return Answer(
            200,
            {name: result[name] for name in ("status", "message", "updated_licenses", "new_server")},
        )

    return await carry_out(request, service, who, find, tell, _STATUSES)


@router.post(
    "/remove_instances",
    operation_id="remove_instances",
    responses={
        **REPEATED,
        200: {"model": Removed},
        207: {"model": Removed, "description": "Some of it was not there, or is still to be taken down"},
        500: {"description": "It failed or was canceled; `Location` leads to its operation"},
    },
)
async def remove(
    body: RemoveBody, request: Request, service: TheService, who: Billing, how: How
) -> JSONResponse:
    """Remove all of a customer: instance, peers, group, account. What is not there is told, and is no failure."""

    def find(_session: Session) -> Wanted:
        name = check_instance_name(body.body.instance, "body.instance")
        return Wanted("remove", {"instance": name}, how.dry_run)

    def tell(result: dict[str, Any]) -> Answer:
        return Answer(result["code"], {name: result[name] for name in ("status", "message", "results")})

    return await carry_out(request, service, who, find, tell, _STATUSES)


def _node(session: Session, given: str) -> Node:
    """The node that a caller means by `server_id`."""
    found = session.scalars(
        select(Node).where(or_(Node.id == given, Node.name == given, Node.dns_name == given)).limit(2)
    ).all()
    if len(found) != 1:
        raise NotFound("Server not found")
    return found[0]
