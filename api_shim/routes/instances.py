"""Customers' instances: look. Private and preshared keys are never read here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, contains_eager

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import addresses_of
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    endpoint,
    of_devices,
    on_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import (
    LONGEST_EMAIL,
    LONGEST_HOST_NAME,
    check_instance_name,
)
from api_shim.auth import Reader
from api_shim.problems import Problem
from api_shim.routes.parameters import Look
from api_shim.routes.shown import shown_time
from api_shim.service import TheService

router = APIRouter(tags=["instances"])

State = Literal["present", "disconnected"]


class InstanceLook(Look):
    """Which instances to list."""

    node: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_HOST_NAME,
        pattern="^[A-Za-z0-9.-]+$",
        description="only those on this node, by its name or id",
        examples=["node1.example.com"],
    )
    state: State | None = Field(None, description="only those in this state")
    name: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_EMAIL,
        pattern="^[A-Za-z0-9_%+.@-]+$",
        description="only those whose name begins so",
        examples=["alice@example.com"],
    )


class InstanceData(BaseModel):
    """An instance as it should be."""

    name: str = Field(examples=["alice@example.com"])
    id: str = Field(description="its UUID")
    interface: str = Field(examples=["wg7"])
    node: str = Field(examples=["node1.example.com"])
    node_id: str
    state: State
    applied: bool = Field(description="the node has confirmed what is said here")
    endpoint: str = Field(examples=["node1.example.com:51820"])
    listen_port: int
    public_key: str
    addresses: list[str] = Field(examples=[["10.0.1.1/24"]])
    created_at: str
    updated_at: str


class PeerData(BaseModel):
    """One device."""

    id: str
    name: str
    public_key: str
    allowed_ips: list[str] = Field(examples=[["10.0.1.2/32"]])
    persistent_keepalive: int = Field(description="seconds between the node's packets to the device; 0: none")


class InstanceInFull(InstanceData):
    """An instance with its peers, and what holds for their devices: as the instance says, else its node."""

    dns: str | None
    mtu: int | None
    keepalive: int = Field(description="seconds between the packets of devices; 0: off")
    endpoint_allowed_ip: str = Field(
        description="what devices send into the tunnel", examples=["0.0.0.0/0, ::/0"]
    )
    peers: list[PeerData]


class Instances(BaseModel):
    """Some of the instances, by name."""

    instances: list[InstanceData]
    total: int = Field(ge=0, description="how many there are in all")
    limit: int
    offset: int


@router.get("/api/instances", response_model=Instances)
def list_instances(service: TheService, _who: Reader, look: Annotated[InstanceLook, Query()]) -> Any:
    """List instances, by name."""
    with service.registry.read() as session:
        wanted = _wanted(look)
        total = session.scalar(
            select(func.count()).select_from(wanted.with_only_columns(Instance.id).subquery())
        )
        rows = session.scalars(
            wanted.options(contains_eager(Instance.node))
            .order_by(Instance.name)
            .limit(look.limit)
            .offset(look.offset)
        )
        return {
            "instances": [_data(each) for each in rows],
            "total": total or 0,
            "limit": look.limit,
            "offset": look.offset,
        }


@router.get("/api/instances/{name}", response_model=InstanceInFull)
def get_instance(
    service: TheService,
    _who: Reader,
    name: Annotated[str, Path(description="the customer's e-mail", examples=["alice@example.com"])],
) -> Any:
    """Look at an instance and its peers."""
    with service.registry.read() as session:
        instance = require(session, name)
        return {
            **_data(instance),
            **of_devices(instance, instance.node),
            "peers": on_node(instance, instance.node, _peers(session, instance)),
        }


def require(session: Session, name: str) -> Instance:
    """The instance of this name. Raises Problem 404, also for what can be no name."""
    try:
        check_instance_name(name)
    except Invalid:
        raise Problem(404, "Instance not found") from None
    found = session.scalar(
        select(Instance)
        .join(Node, Instance.node_id == Node.id)
        .options(contains_eager(Instance.node))
        .where(Instance.name == name)
    )
    if found is None:
        raise Problem(404, "Instance not found")
    return found


def _wanted(look: InstanceLook) -> Select[Instance]:
    wanted = select(Instance).join(Node, Instance.node_id == Node.id)
    if look.node is not None:
        wanted = wanted.where((Node.name == look.node) | (Node.id == look.node.lower()))
    if look.state is not None:
        wanted = wanted.where(Instance.state == look.state)
    if look.name is not None:
        # % and _ are characters of names, not wildcards.
        wanted = wanted.where(Instance.name.startswith(look.name, autoescape=True))
    return wanted


def _data(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "id": instance.uuid,
        "interface": instance.interface,
        "node": instance.node.name,
        "node_id": instance.node_id,
        "state": instance.state,
        "applied": instance.applied,
        "endpoint": endpoint(instance, instance.node),
        "listen_port": instance.listen_port,
        "public_key": instance.public_key,
        "addresses": list(addresses_of(instance.subnet, instance.subnet6)),
        "created_at": shown_time(instance.created_at),
        "updated_at": shown_time(instance.updated_at),
    }


def _peers(session: Session, instance: Instance) -> list[dict[str, Any]]:
    networks: dict[str, list[str]] = {}
    for peer_id, network in session.execute(
        select(PeerAllowedIp.peer_id, PeerAllowedIp.network)
        .where(PeerAllowedIp.instance_id == instance.id)
        .order_by(PeerAllowedIp.id)
    ):
        networks.setdefault(peer_id, []).append(network)
    # Columns, as an object would bring the preshared key along.
    rows = session.execute(
        select(Peer.id, Peer.name, Peer.public_key, Peer.persistent_keepalive)
        .where(Peer.instance_id == instance.id)
        .order_by(Peer.name, Peer.id)
    )
    return [
        {
            "id": row.id,
            "name": row.name,
            "public_key": row.public_key,
            "allowed_ips": networks.get(row.id, []),
            "persistent_keepalive": row.persistent_keepalive,
        }
        for row in rows
    ]
