"""New instances: a customer's interface with its devices, on a node that has room."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import check_instance_name
from api_shim.auth import caller
from api_shim.carrying_out import Answer, Wanted, carry_out
from api_shim.key_ring import Caller
from api_shim.routes.parameters import EMAIL, NODE_NAME, REPEATED, Body, How, repeatable
from api_shim.service import TheService

router = APIRouter(tags=["instances"], dependencies=[Depends(repeatable)])

Ops = Annotated[Caller, Depends(caller("ops"))]
_KEY = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"


class PeerBody(Body):
    """A device. Without a public key, keys are made here."""

    name: str | None = Field(None, max_length=255, json_schema_extra={"examples": ["phone"]})
    public_key: str | None = Field(None, max_length=44, json_schema_extra={"pattern": _KEY})
    preshared_key: str | None = Field(None, max_length=44, json_schema_extra={"pattern": _KEY})
    allowed_ips: list[str] | None = Field(
        None, max_length=100, description="networks behind the device, besides its own addresses"
    )
    persistent_keepalive: int | None = Field(None, ge=0, le=65535, description="seconds")


class InstanceBody(Body):
    """An instance and its devices. The same again changes nothing."""

    name: str = Field(
        min_length=3,
        max_length=254,
        description="the customer's e-mail",
        json_schema_extra=EMAIL,
    )
    node: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="a node's name; else the least loaded one that is enabled",
        json_schema_extra=NODE_NAME,
    )
    peers: list[PeerBody] = Field(default_factory=list, max_length=1000)
    prefix_length: int | None = Field(None, ge=8, le=30, description="of its IPv4 subnet")


@router.post(
    "/api/instances",
    operation_id="provision_instance",
    status_code=201,
    responses={
        **REPEATED,
        200: {"description": "It was there already, or this is a plan"},
        201: {"description": "It is new, and up on its node"},
    },
)
async def provision(
    body: InstanceBody, request: Request, service: TheService, who: Ops, how: How
) -> JSONResponse:
    """Make an instance, live on its node, or add devices to it. 201 when it is new, else 200."""

    def find(_session: Session) -> Wanted:
        peers = [peer.model_dump(exclude_none=True) for peer in body.peers]
        name = check_instance_name(body.name, "name")
        variables: dict[str, Any] = {"instance": name, "peers": peers}
        variables.update(body.model_dump(include={"node", "prefix_length"}, exclude_none=True))
        return Wanted("provision", variables, how.dry_run)

    def tell(result: dict[str, Any]) -> Answer:
        return Answer(result["code"], result)

    return await carry_out(request, service, who, find, tell)
