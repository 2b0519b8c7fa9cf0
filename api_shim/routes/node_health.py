"""Whether a node answers, what is on it, and what the last looks at it have found."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import Agent
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents, checks
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    NodeCheck,
    Peer,
    now,
)
from api_shim.agent_health import passed_on
from api_shim.auth import Reader
from api_shim.reachability import reachability
from api_shim.routes.parameters import NodeId, Number
from api_shim.routes.shown import Answer, CheckData, check_data, require, shown_time
from api_shim.service import TheService

router = APIRouter(tags=["nodes"])


class CheckInFull(CheckData):
    """The same with all that is kept of it."""

    missing_count: int | None = Field(ge=0)
    mismatched_count: int | None = Field(ge=0)
    unknown_count: int | None = Field(ge=0)
    interface_count: int | None = Field(ge=0)
    milliseconds: int | None = Field(ge=0, description="how long it took")
    operation_id: str | None


class AgentVersions(BaseModel):
    """What the node's software is; null: it is not there, or its version not known."""

    agent: str | None
    python: str | None
    kernel: str | None
    wireguard_tools: str | None
    wireguard_module: str | None
    wireguard_go: str | None


class AgentInterface(BaseModel):
    """A WireGuard interface that is on the node, whoever has made it."""

    name: str
    up: bool
    listen_port: int | None = Field(ge=0, le=65535)
    peers: int | None = Field(ge=0)
    latest_handshake: int | None = Field(ge=0, description="Unix seconds, of any peer; null: there was none")


class AgentHealth(BaseModel):
    """What the agent of a node says of it."""

    time: int | None = Field(ge=0, description="the node's clock, in Unix seconds")
    versions: AgentVersions
    interface_count: int = Field(ge=0)
    interfaces: list[AgentInterface] = Field(description="by name, the first 1000")


class NodeHealth(BaseModel):
    """Whether a node answers, what is on it, and what the last looks at it have found."""

    node_id: str
    name: str
    reachable: bool
    error: str | None = Field(examples=["connection refused"])
    last_seen: str | None = Field(
        description="when a run last reached it; null: none has yet. Asking for its health is none"
    )
    enabled: bool
    instances: int = Field(ge=0, description="in the registry, whatever is on the node")
    peers: int = Field(ge=0, description="in the registry, whatever is on the node")
    agent: AgentHealth | None = Field(
        description="what its agent says at the moment; null: it is reached by SSH, or does not answer"
    )
    checked_at: str = Field(description="when it was asked whether it answers: now")
    last_check: CheckData | None = Field(description="null: it was never looked at")
    checks: list[CheckInFull] = Field(description="the last ones, the newest first")


class HealthAnswer(Answer):
    """The health of a node."""

    data: NodeHealth


class History(BaseModel):
    """How much of what was found is wanted."""

    model_config = ConfigDict(extra="forbid")

    checks: Number = Field(10, ge=0, le=100, description="so many of the last looks at it are told")


@router.get("/api/nodes/{node_id}/health", response_model=HealthAnswer)
async def node_health(
    service: TheService, _who: Reader, node_id: NodeId, wanted: Annotated[History, Query()]
) -> Any:
    """Ask a node whether it is there, for a few seconds at the most, and tell what the last looks at it have found."""

    def read() -> tuple[Node, Agent | None, dict[str, Any]]:
        with service.registry.read() as session:
            node = require(session, node_id)
            on_node = select(Instance.id).where(Instance.node_id == node.id)
            instances = session.scalar(select(func.count()).select_from(on_node.subquery()))
            peers = session.scalar(select(func.count()).where(Peer.instance_id.in_(on_node)))
            recent = checks.recent(session, node.id, max(1, wanted.checks))
            return (
                node,
                agents.agent_of(session, node.name),
                {
                    "instances": instances or 0,
                    "peers": peers or 0,
                    "last_check": check_data(recent[0]) if recent else None,
                    "checks": [_check_in_full(one) for one in recent[: wanted.checks]],
                },
            )

    node, agent, known = await anyio.to_thread.run_sync(read)
    reached = await reachability(node, agent)
    service.metrics.set_reachable(node.name, reached.error is None)
    data = {
        "node_id": node.id,
        "name": node.name,
        "reachable": reached.error is None,
        "error": reached.error,
        "agent": None if reached.told is None else passed_on(reached.told),
        "last_seen": shown_time(node.last_seen),
        "enabled": node.enabled,
        "checked_at": shown_time(now()),
        **known,
    }
    return {"status": True, "message": "Node health checked", "data": data}


def _check_in_full(check: NodeCheck) -> dict[str, Any]:
    return {
        **check_data(check),
        **{f"{name}_count": getattr(check, f"{name}_count") for name in checks.COUNTED},
        "milliseconds": check.milliseconds,
        "operation_id": check.operation_id,
    }
