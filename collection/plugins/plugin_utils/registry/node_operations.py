# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations on nodes, drift and reconcile: one row per node.

A reconcile has its node for itself: it leaves alone what a run is at work on when it begins, and no run takes up an
instance of the node before it has ended. Otherwise it would bring up what a transfer has just taken away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    owner,
    stages,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    NodeBusy,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    require_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    CHUNK,
    Instance,
    Node,
    Operation,
    Teardown,
    new_id,
    now,
)

if TYPE_CHECKING:
    from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.operations import Run

KINDS = ("drift", "reconcile")
APPLY = "apply"


def begin(
    session: Session,
    kind: str,
    requests: Sequence[dict[str, Any]],
    run: Run,
    recorded: Operation | None = None,
) -> list[Operation]:
    """Record and claim an operation for each node that is asked for, or, when a request names none, for all that are
    enabled and that the run may touch. `recorded` is the row of the only request, if there is one already. Raises
    NotFound, Busy or Conflict."""
    wanted = [(request, node) for request in requests for node in _nodes(session, request["node"], run)]
    others: dict[str | None, list[Operation]] = {}
    for other in session.scalars(
        select(Operation).where(Operation.state == "running", Operation.kind == kind)
    ):
        others.setdefault(other.node_id, []).append(other)
    operations = []
    for request, node in wanted:
        for other in (one for one in others.get(node.id, ()) if one is not recorded):
            _make_way(session, other, node, run)
        operation = recorded or Operation(
            id=new_id(), kind=kind, node_id=node.id, attempts=0, requested_by=run.actor
        )
        operation.state = "running"
        operation.request = {
            **request,
            "node": node.name,
            "several": len(wanted) > 1 or request["node"] is None,
        }
        operation.progress = {}
        operation.run_id, operation.owner, operation.lease_until = run.id, run.owner, owner.lease()
        operation.attempts += 1
        operation.started_at = now()
        operation.not_before = None
        stages.plan(operation, APPLY, node)
        operations.append(operation)
    session.flush()  # those that made way, before those that come
    session.add_all(operations)
    session.flush()
    return operations


def of_node(operations: Sequence[Operation], node: Node) -> Operation:
    """The one that is about a node. Raises Conflict when the run has none."""
    for operation in operations:
        if operation.node_id == node.id:
            return operation
    raise Conflict(f"this run has nothing to do on {node.name}")


def nodes_of(session: Session, held: Sequence[Operation]) -> list[Node]:
    """The nodes that operations are about, in their order. Whoever keeps them has each `get` of one for nothing."""
    numbers = [str(operation.node_id) for operation in held]
    found: dict[str, Node] = {}
    for start in range(0, len(numbers), CHUNK):
        query = select(Node).where(Node.id.in_(numbers[start : start + CHUNK]))
        found.update((node.id, node) for node in session.scalars(query))
    return [found[number] for number in numbers]


def at_work(session: Session) -> set[str]:
    """The names of the instances that runs are at work on."""
    running = (
        select(Operation)
        .where(Operation.state == "running", Operation.instance_name.is_not(None))
        .options(load_only(Operation.instance_name, Operation.owner, Operation.lease_until))
    )
    return {str(one.instance_name) for one in session.scalars(running) if owner.is_alive(one)}


def require_free(session: Session, names: Sequence[str]) -> None:
    """Make sure that no reconcile is at work on a node on which there is something of one of these instances. Raises
    NodeBusy."""
    running = {
        one.node_id: one
        for one in session.scalars(
            select(Operation).where(Operation.state == "running", Operation.kind == "reconcile")
        )
        if owner.is_alive(one)
    }
    if not running:
        return
    for start in range(0, len(names), CHUNK):
        some = names[start : start + CHUNK]
        for query in (
            select(Instance.name, Instance.node_id).where(
                Instance.node_id.in_(running), Instance.name.in_(some)
            ),
            select(Teardown.instance_name, Teardown.node_id).where(
                Teardown.node_id.in_(running), Teardown.instance_name.in_(some)
            ),
        ):
            found = session.execute(query.limit(1)).first()
            if found is not None:
                name, node_id = found
                node = session.get_one(Node, node_id)
                raise NodeBusy(f"{name} is busy: {_told(running[node_id], node)}")


def recall(session: Session, held: Sequence[Operation], looked: Mapping[str, Mapping[str, Any]]) -> None:
    """In check mode: how it went on the nodes, by name, of which the registry was told nothing."""
    for operation, node in zip(held, nodes_of(session, held), strict=True):
        told = looked.get(node.name, {"state": stages.WAITING})
        outcome = stages.Outcome(told["state"], bool(told.get("changed")), told.get("error"))
        stages.set_outcome(operation, APPLY, node, outcome)
        stages.note(operation, report=told.get("report"))


def _nodes(session: Session, name: str | None, run: Run) -> list[Node]:
    if name is not None:
        node = require_node(session, name)
        if node.name not in run.hosts:
            raise Conflict(f"node {node.name} is left out (--limit, or not in the inventory)")
        return [node]
    enabled = session.scalars(select(Node).where(Node.enabled.is_(True)).order_by(Node.name)).all()
    nodes = [node for node in enabled if node.name in run.hosts]
    if not nodes:
        raise NotFound(
            "the registry has no enabled node"
            if not enabled
            else f"none of {len(enabled)} enabled nodes is in this run (--limit, or not in the inventory)"
        )
    return nodes


def _make_way(session: Session, other: Operation, node: Node, run: Run) -> None:
    """Let an operation of the same kind on the same node make way, if its run is dead. Two looks do not disturb each
    other."""
    if owner.is_alive(other) and other.run_id != run.id:
        if other.kind == "reconcile":
            raise Busy(f"{node.name} is busy: {_told(other, node)}")
        return
    endings.cancel(session, other, "its run ended before it was done", run.actor)


def _told(other: Operation, node: Node) -> str:
    since = other.started_at.strftime("%H:%M:%S UTC") if other.started_at else "just now"
    return f"{other.kind} {other.id} is at work on node {node.name} since {since}; try again later"
