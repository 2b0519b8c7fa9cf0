"""New instances: a customer's interface with its devices, on a node that has room."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import KEY_PATTERN
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    LONGEST_EMAIL,
    LONGEST_HOST_NAME,
    check_instance_name,
)
from api_shim.auth import Ops
from api_shim.carrying_out import Answer, Wanted, carry_out
from api_shim.routes import patterns
from api_shim.routes.parameters import EMAIL, NODE_NAME, REPEATED, Body, How, Planned, repeatable
from api_shim.service import TheService

router = APIRouter(tags=["instances"], dependencies=[Depends(repeatable)])

_KEY = f"^{KEY_PATTERN.pattern}$"


class PeerBody(Body):
    """A device: known by its public key, or else by its name; one of them is needed."""

    name: str | None = Field(
        None, max_length=255, json_schema_extra={"examples": ["phone"], "pattern": patterns.LABEL}
    )
    public_key: str | None = Field(
        None,
        max_length=44,
        description="the device's own; without one, keys are made and the private one is kept encrypted",
        json_schema_extra={"pattern": _KEY},
    )
    preshared_key: str | None = Field(None, max_length=44, json_schema_extra={"pattern": _KEY})
    allowed_ips: list[Annotated[str, Field(json_schema_extra={"format": "network"})]] | None = Field(
        None, max_length=100, description="networks behind the device, besides its own addresses"
    )
    persistent_keepalive: int | None = Field(None, ge=0, le=65535, description="seconds")


class InstanceBody(Body):
    """An instance and its devices. The same again changes nothing, and who is left out stays."""

    name: str = Field(
        min_length=3,
        max_length=LONGEST_EMAIL,
        description="the customer's e-mail",
        json_schema_extra=EMAIL,
    )
    node: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_HOST_NAME,
        description="a node's name; else the least loaded one that is enabled",
        json_schema_extra=NODE_NAME,
    )
    peers: list[PeerBody] = Field(
        default_factory=list,
        max_length=1000,
        description="devices to add or to change; those that are not named stay",
        examples=[[{"name": "phone"}]],
    )
    prefix_length: int | None = Field(
        None,
        ge=8,
        le=30,
        description="of a new instance's IPv4 subnet; by default as large as its peers need",
    )


class ProvisionedPeer(BaseModel):
    """A device of the instance."""

    peer_id: str
    name: str
    public_key: str
    allowed_ips: list[str] = Field(description="its own addresses first", examples=[["10.0.1.2/32"]])
    added: bool = Field(description="by this call")


class Provisioned(Planned):
    """The instance as it is now, with what its devices need for their configuration. A plan has message and plan."""

    status: Literal["success"]
    message: str = Field(examples=["Instance wg7 of user@example.com provisioned on nl1.example.com"])
    code: int | None = None
    operation_id: str | None = None
    operation: str | None = Field(None, examples=["provision"])
    instance: str | None = Field(None, examples=["user@example.com"])
    changed: bool | None = None
    pending: bool | None = Field(None, description="something is still to be taken down on another node")
    instance_id: int | None = None
    interface: str | None = Field(None, examples=["wg7"])
    node: str | None = Field(None, examples=["nl1.example.com"])
    endpoint: str | None = Field(None, examples=["nl1.example.com:51820"])
    listen_port: int | None = None
    public_key: str | None = Field(None, description="of the instance")
    addresses: list[str] | None = Field(None, examples=[["10.0.1.1/24", "fd00:8:1::1/64"]])
    dns: str | None = None
    mtu: int | None = None
    keepalive: int | None = Field(None, description="seconds")
    endpoint_allowed_ip: str | None = Field(None, examples=["0.0.0.0/0, ::/0"])
    peers_count: int | None = None
    peers: list[ProvisionedPeer] | None = None
    truncated: bool | None = Field(
        None, description="the list of peers is cut short; GET the instance for all"
    )
    warnings: list[str] | None = None


@router.post(
    "/api/instances",
    operation_id="provision_instance",
    status_code=201,
    responses={
        **REPEATED,
        200: {"description": "It was there already, or this is a plan", "model": Provisioned},
        201: {"description": "It is new, and up on its node", "model": Provisioned},
        409: {
            "description": "It is on another node, or has another prefix_length; a key is another device's; the node "
            "is disabled or full; the operation was canceled; or a call with this Idempotency-Key is being carried out"
        },
    },
)
async def provision(
    body: InstanceBody, request: Request, service: TheService, who: Ops, how: How
) -> JSONResponse:
    """Make an instance, live on its node, add devices to it, or bring up one that was disconnected. 201 when it is new,
    else 200."""

    def find(_session: Session) -> Wanted:
        peers = [peer.model_dump(exclude_none=True) for peer in body.peers]
        name = check_instance_name(body.name, "name")
        variables: dict[str, Any] = {"instance": name, "peers": peers}
        variables.update(body.model_dump(include={"node", "prefix_length"}, exclude_none=True))
        return Wanted("provision", variables, how.dry_run)

    def tell(result: dict[str, Any]) -> Answer:
        return Answer(result["code"], result)

    return await carry_out(request, service, who, find, tell)
