"""Nodes: list, look, create, update, delete. What a node may be, the registry says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import checks
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import nodes as registry_nodes
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    NodeCheck,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import LONGEST_HOST_NAME
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    LARGEST_MTU,
    LARGEST_WEIGHT,
    SMALLEST_MTU,
)
from api_shim.auth import Ops, Reader
from api_shim.idempotency import Call, answered, call_of
from api_shim.key_ring import Caller
from api_shim.rate_limits import count
from api_shim.routes import patterns
from api_shim.routes.parameters import (
    Body,
    How,
    NodeId,
    Part,
    Switches,
    boolean,
    repeatable_at_once,
)
from api_shim.routes.shown import Answer, CheckData, check_data, require, shown_time
from api_shim.service import TheService

router = APIRouter(tags=["nodes"])


async def _call(request: Request, who: Ops) -> Call | None:
    return await call_of(request, who)


TheCall = Annotated[Call | None, Depends(_call)]


def _said(pattern: str, example: str) -> dict[str, Any]:
    """What the document says of a text besides its length."""
    return {"pattern": pattern, "examples": [example]}


def _network(kind: str, example: str) -> dict[str, Any]:
    """The same of networks. That no host bits are set, no pattern says."""
    return {"format": kind, "examples": [example]}


class NodeFields(Body):
    """What can be said of a node. A field that is not there stays as it is; null, or an empty text, is its default."""

    ansible_host: str | None = Field(
        None,
        max_length=LONGEST_HOST_NAME,
        description="where Ansible reaches it, if not by its name",
        json_schema_extra=_said(patterns.HOST, "192.0.2.10"),
    )
    ansible_port: int | None = Field(None, ge=1, le=65535, description="of SSH")
    ansible_user: str | None = Field(
        None,
        max_length=64,
        json_schema_extra=_said(patterns.USER, "deploy"),
    )
    ansible_python_interpreter: str | None = Field(
        None, max_length=255, json_schema_extra=_said(patterns.PROGRAM, "/usr/bin/python3")
    )
    agent_url: str | None = Field(
        None,
        max_length=255,
        description="where its agent is; with http nothing is sent there, but to a loopback address",
        json_schema_extra=_said(patterns.URL, "http://node1.example.com:8080"),
    )
    endpoint: str | None = Field(
        None,
        max_length=261,
        description="host or host:port, as devices reach it",
        json_schema_extra=_said(patterns.ENDPOINT, "node1.example.com:51820"),
    )
    wg_interface: str | None = Field(None, max_length=15, json_schema_extra=_said(patterns.INTERFACE, "wg0"))
    ip_pool_cidr: str | None = Field(
        None,
        max_length=18,
        description="the IPv4 network out of which instances get theirs, /30 or larger, without host bits",
        json_schema_extra=_network("ipv4-network", "10.0.1.0/24"),
    )
    ip6_pool_cidr: str | None = Field(
        None,
        max_length=43,
        description="the same for IPv6, /64 or larger; when there is none, a unique local one is made",
        json_schema_extra=_network("ipv6-network", "fd00:8:1::/48"),
    )
    enabled: bool | None = Field(None, description="whether it takes new instances")
    weight: int | None = Field(None, ge=0, le=LARGEST_WEIGHT, description="its share of new instances")
    max_peers: int | None = Field(None, ge=0, le=2**31 - 1, description="null: no limit")
    country: str | None = Field(
        None,
        max_length=64,
        json_schema_extra=_said(patterns.COUNTRY, "Netherlands"),
    )
    dns_name: str | None = Field(
        None,
        max_length=LONGEST_HOST_NAME,
        description="how licenses name it",
        json_schema_extra=_said(patterns.HOST, "nl1.example.com"),
    )
    override_listen_port: int | None = Field(
        None, ge=1, le=65535, description="the first port that new instances get"
    )
    override_dns: str | None = Field(
        None,
        max_length=255,
        json_schema_extra=_said(patterns.NAME_SERVERS, "10.0.1.1, example.com"),
    )
    override_mtu: int | None = Field(
        None, ge=SMALLEST_MTU, le=LARGEST_MTU, description="of instances and their devices"
    )
    override_keepalive: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="seconds, of devices, and of the node to devices that say nothing; 0: off",
    )
    override_endpoint_allowed_ip: str | None = Field(
        None,
        max_length=4000,
        json_schema_extra=_network("networks", "0.0.0.0/0, ::/0"),
    )


class NodeCreate(NodeFields):
    """A new node."""

    name: str = Field(
        max_length=LONGEST_HOST_NAME,
        description="a host name, as in the inventory",
        json_schema_extra=_said(patterns.NODE_NAME, "node1.example.com"),
    )
    ip_pool_cidr: str = Field(
        max_length=18,
        description="the IPv4 network out of which instances get theirs",
        json_schema_extra=_network("ipv4-network", "10.0.1.0/24"),
    )


class NodeUpdate(NodeFields):
    """What is to change of a node."""

    name: str | None = Field(
        None,
        max_length=LONGEST_HOST_NAME,
        description="the present one: a node is not renamed",
        examples=["node1.example.com"],
    )


class NodeData(BaseModel):
    """A node as it is in the registry."""

    id: str
    name: str
    agent_url: str | None
    ansible_host: str | None
    ansible_port: int | None
    ansible_user: str | None
    ansible_python_interpreter: str | None
    wg_interface: str
    endpoint: str | None
    ip_pool_cidr: str
    ip6_pool_cidr: str
    enabled: bool
    weight: int
    max_peers: int | None
    country: str | None
    dns_name: str | None
    override_listen_port: int | None
    override_dns: str | None
    override_mtu: int | None
    override_keepalive: int | None
    override_endpoint_allowed_ip: str | None
    last_seen: str | None = Field(
        description="when a run last reached it; null: none has yet", examples=["2024-01-15 10:30:00"]
    )
    created_at: str = Field(examples=["2024-01-01 00:00:00"])
    updated_at: str = Field(examples=["2024-01-15 10:30:00"])
    last_check: CheckData | None = Field(description="null: it was never looked at")


class NodeAnswer(Answer):
    """One node."""

    data: NodeData
    dry_run: Literal[True] | None = Field(None, description="nothing was changed")


class NodesAnswer(Answer):
    """Some of the nodes, by name."""

    data: list[NodeData]
    total: int = Field(ge=0, description="how many there are in all")
    limit: int
    offset: int


class RemovedAnswer(Answer):
    """A node is no more."""

    dry_run: Literal[True] | None = Field(None, description="nothing was changed")


class Removal(Switches):
    """How a node is to be taken out."""

    lost: Annotated[bool, BeforeValidator(boolean)] = Field(
        False,
        description="the machine is no more: forget what was still to be taken down on it. Instances on it have to be "
        "transferred or removed before",
    )


@router.get("/api/nodes", response_model=NodesAnswer)
def list_nodes(service: TheService, _who: Reader, part: Part) -> Any:
    """List nodes, by name."""
    with service.registry.read() as session:
        total = session.scalar(select(func.count()).select_from(Node)) or 0
        rows = session.scalars(select(Node).order_by(Node.name).limit(part.limit).offset(part.offset)).all()
        last = checks.latest(session, [node.id for node in rows])
        return {
            "status": True,
            "message": "Nodes retrieved successfully",
            "data": [_data(node, last.get(node.id)) for node in rows],
            "total": total,
            "limit": part.limit,
            "offset": part.offset,
        }


@router.post(
    "/api/nodes",
    status_code=201,
    response_model=NodeAnswer,
    response_model_exclude_unset=True,
    dependencies=[Depends(repeatable_at_once)],
    responses={
        200: {"model": NodeAnswer, "description": "This is a plan"},
        201: {
            "headers": {
                "Location": {
                    "description": "The node's path; not of a dry run",
                    "schema": {"type": "string"},
                }
            }
        },
        409: {"description": "There is a node of this name"},
        422: {},
    },
)
def create_node(service: TheService, who: Ops, node: NodeCreate, how: How, call: TheCall) -> Any:
    """Create a node."""
    with service.registry.write(keep=not how.dry_run) as session:

        def create() -> tuple[int, dict[str, Any]]:
            changes = _apply(session, who, [node.model_dump(exclude_unset=True)])
            if [change.action for change in changes] != [registry_nodes.CREATED]:
                raise Conflict(f"node {node.name} is in the registry already")
            return 201, _told("Node created successfully", data=_data(_named(session, node.name), None))

        status, told = answered(session, call, create)
    if how.dry_run:
        return JSONResponse(_plan(told), 200)
    return JSONResponse(told, status, {"Location": f"/api/nodes/{told['data']['id']}"})


@router.get("/api/nodes/{node_id}", response_model=NodeAnswer, response_model_exclude_unset=True)
def get_node(service: TheService, _who: Reader, node_id: NodeId) -> Any:
    """Look at a node."""
    with service.registry.read() as session:
        node = require(session, node_id)
        return _told("Node retrieved successfully", data=_data(node, _last(session, node)))


@router.put(
    "/api/nodes/{node_id}",
    response_model=NodeAnswer,
    response_model_exclude_unset=True,
    dependencies=[Depends(repeatable_at_once)],
    responses={409: {"description": "What is on the node contradicts it"}, 422: {}, 429: {}},
)
def update_node(
    request: Request,
    service: TheService,
    who: Ops,
    node_id: NodeId,
    node: NodeUpdate,
    how: How,
    call: TheCall,
) -> Any:
    """Change what is said of a node; what is not said stays as it is."""
    with service.registry.write(keep=not how.dry_run) as session:

        def update() -> tuple[int, dict[str, Any]]:
            row = require(session, node_id)
            if node.name not in (None, row.name):
                # Inventories, AWX and operations that are at work know it by its name.
                raise Conflict(f"a node is not renamed; this one is called {row.name}")
            _apply(session, who, [{**node.model_dump(exclude_unset=True), "name": row.name}])
            if not how.dry_run:
                count(request, "rate_limit_node_update")
            return 200, _told("Node updated successfully", data=_data(row, _last(session, row)))

        status, told = answered(session, call, update)
    return JSONResponse(_plan(told) if how.dry_run else told, status)


@router.delete(
    "/api/nodes/{node_id}",
    response_model=RemovedAnswer,
    response_model_exclude_unset=True,
    dependencies=[Depends(repeatable_at_once)],
    responses={
        409: {
            "description": "Instances are on the node, or something is still to be taken down there. Of a machine that "
            "is no more, see `lost`"
        },
        422: {},
    },
)
def delete_node(
    service: TheService, who: Ops, node_id: NodeId, how: Annotated[Removal, Query()], call: TheCall
) -> Any:
    """Take a node out of the registry; nothing may be on it."""
    name = ""
    with service.registry.write(keep=not how.dry_run) as session:

        def delete() -> tuple[int, dict[str, Any]]:
            nonlocal name
            name = require(session, node_id).name
            _apply(session, who, [{"name": name, "state": "absent", "lost": how.lost}])
            return 200, _told("Node deleted successfully")

        status, told = answered(session, call, delete)
    if not how.dry_run:
        service.metrics.forget_node(name)
    return JSONResponse(_plan(told) if how.dry_run else told, status)


def _apply(session: Session, who: Caller, wanted: Sequence[Mapping[str, Any]]) -> list[registry_nodes.Change]:
    changes = registry_nodes.apply_nodes(session, wanted)
    registry_nodes.record(session, changes, who.actor)
    return changes


def _named(session: Session, name: str) -> Node:
    return session.scalars(select(Node).where(Node.name == name)).one()


def _data(node: Node, last: NodeCheck | None) -> dict[str, Any]:
    return {
        "id": node.id,
        **registry_nodes.described(node),
        "last_seen": shown_time(node.last_seen),
        "created_at": shown_time(node.created_at),
        "updated_at": shown_time(node.updated_at),
        "last_check": None if last is None else check_data(last),
    }


def _last(session: Session, node: Node) -> NodeCheck | None:
    return next(iter(checks.recent(session, node.id, 1)), None)


def _told(message: str, **more: Any) -> dict[str, Any]:
    return {"status": True, "message": message, **more}


def _plan(told: dict[str, Any]) -> dict[str, Any]:
    """The answer to a dry run."""
    return {**told, "message": f"Would be: {told['message']}", "dry_run": True}
