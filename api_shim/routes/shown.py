"""What several calls about nodes answer with, and which node is meant."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import checks
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, NodeCheck
from api_shim.problems import Problem
from api_shim.routes.parameters import uuid_of


class Answer(BaseModel):
    """What every call of the panel says."""

    status: Literal[True]
    message: str


class CheckData(BaseModel):
    """A look at a node, or a reconcile of it: how it ended, and what differed then, or was left."""

    at: str = Field(examples=["2024-01-15 10:30:00"])
    kind: Literal["drift", "reconcile"]
    ok: bool = Field(description="whether the node could be read")
    reachable: bool
    has_drift: bool | None = Field(description="null: not known")
    total_issues: int | None = Field(ge=0)
    error: str | None


def require(session: Session, node_id: str) -> Node:
    """The node of this id. Raises Problem 404, also for what is no id."""
    known = uuid_of(node_id)
    node = session.get(Node, known) if known else None
    if node is None:
        raise Problem(404, "Node not found")
    return node


def shown_time(at: datetime | None) -> str | None:
    """A time as the panel shows it, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else None


def check_data(check: NodeCheck) -> dict[str, Any]:
    return {"at": shown_time(check.at), "kind": check.kind, **checks.told(check)}
