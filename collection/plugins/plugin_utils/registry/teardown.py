# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is still to be taken down on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    owner,
    stages,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
)

REMOVED = "removed"
TRANSFERRED = "transferred"
RESERVED = "reserved"


def find(session: Session, node_id: str, interface: str) -> Teardown | None:
    """The teardown of an interface on a node."""
    return session.scalar(
        select(Teardown).where(Teardown.node_id == node_id, Teardown.interface == interface)
    )


def record(
    session: Session, node_id: str, instance: Instance, listen_port: int, operation: Operation, reason: str
) -> Teardown:
    """Note that an instance's interface is to be taken down on a node. One that is noted already is taken over."""
    row = find(session, node_id, instance.interface)
    if row is None:
        row = Teardown(node_id=node_id, interface=instance.interface)
        session.add(row)
    row.listen_port = listen_port
    row.subnet = instance.subnet
    row.subnet6 = instance.subnet6
    row.public_key = None if instance.arrived and reason != RESERVED else instance.public_key
    row.instance_name = instance.name
    row.operation_id = operation.id
    row.reason = reason
    row.error = None
    return row


def claim(session: Session, operation: Operation, stage: str, besides: Sequence[int] = ()) -> list[Teardown]:
    """Let the operation do what is still to be taken down of its instance, on every node; `besides` are left."""
    rows = [
        row
        for row in session.scalars(
            select(Teardown).where(Teardown.instance_name == operation.instance_name).order_by(Teardown.id)
        )
        if row.id not in besides
    ]
    for row in rows:
        row.operation_id = operation.id
        stages.plan(operation, stage, session.get_one(Node, row.node_id))
    return rows


def claimed(session: Session, operations: Sequence[Operation], node: Node) -> dict[str, list[Teardown]]:
    """What these operations are to take down on a node, by operation id."""
    ids = {operation.id for operation in operations}
    found: dict[str, list[Teardown]] = {}
    query = select(Teardown).where(Teardown.node_id == node.id).order_by(Teardown.id)
    if len(ids) == 1:  # one after the other, each would read those of all
        query = query.where(Teardown.operation_id.in_(ids))
    for row in session.scalars(query):
        if row.operation_id in ids:
            found.setdefault(str(row.operation_id), []).append(row)
    return found


def abandoned(session: Session, node: Node) -> list[Teardown]:
    """What is to be taken down on a node and no run is at work on."""
    rows = session.execute(
        select(Teardown, Operation)
        .outerjoin(Operation, Teardown.operation_id == Operation.id)
        .where(Teardown.node_id == node.id)
        .order_by(Teardown.id)
    )
    return [row for row, operation in rows if not _at_work(operation)]


def wanted(row: Teardown) -> dict[str, Any]:
    """What is to be taken down, as wg_instance takes it."""
    gone: dict[str, Any] = {"name": row.interface, "state": "absent"}
    if row.public_key is not None:
        gone["public_key"] = row.public_key
    return gone


def settle(session: Session, row: Teardown, outcome: stages.Outcome) -> None:
    """Note how taking down went."""
    if outcome.state == stages.DONE:
        session.delete(row)
        return
    row.attempts += 1
    row.error = outcome.error


def _at_work(operation: Operation | None) -> bool:
    return operation is not None and operation.state == "running" and owner.is_alive(operation)
