# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes whose machine is no more: nothing can be taken down there, and nothing waits for it any longer."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    operations,
    owner,
    stages,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
)


def forget(session: Session, node: Node) -> list[str]:
    """Forget what is still to be taken down on a node, and end the operations that had nothing else left to do; returns
    what is forgotten, as `wg7 of name`. No instance is on the node, and no run that is alive is at work on it."""
    rows = session.scalars(select(Teardown).where(Teardown.node_id == node.id).order_by(Teardown.id)).all()
    forgotten = [f"{row.interface} of {row.instance_name}" for row in rows]
    for row in rows:
        session.delete(row)
    session.flush()
    for operation in _with_part_in(session, node):
        _end(session, operation, node)
    return forgotten


def _with_part_in(session: Session, node: Node) -> list[Operation]:
    """Operations on instances that were begun, are not at work, and had something to do on this node."""
    unfinished = select(Operation).where(
        Operation.state.in_(("pending", "running")),
        Operation.instance_name.is_not(None),
        Operation.attempts > 0,
    )
    return [
        operation
        for operation in session.scalars(unfinished.order_by(Operation.created_at, Operation.id))
        if not (operation.state == "running" and owner.is_alive(operation))
        and any(node.id in nodes for nodes in (operation.progress or {}).get("stages", {}).values())
    ]


def _end(session: Session, operation: Operation, node: Node) -> None:
    if operation.kind == "transfer" and (operation.progress or {}).get("target") == node.id:
        # Where the instance is, it stays: there is no place to go to any more.
        endings.cancel(session, operation, f"node {node.name} is lost", operation.requested_by)
        return
    stages.drop(operation, node)
    if operation.kind == "remove":
        told = f"node {node.name} is lost: nothing was taken down there"
        stages.note(operation, errors=[*(operation.progress or {})["errors"], told])
    if operation.kind == "transfer" and not _is_on(session, operation):
        return  # its run was killed on the way; the next one begins anew, without this node
    if not stages.troubles(operation):
        ended = operations.kind_of(operation.kind).result(session, operation)
        endings.end(session, operation, ended, operation.requested_by)


def _is_on(session: Session, operation: Operation) -> bool:
    """Whether the instance of a transfer is on its target."""
    found = session.scalar(select(Instance.node_id).where(Instance.name == operation.instance_name))
    return found is not None and bool(found == (operation.progress or {}).get("target"))
