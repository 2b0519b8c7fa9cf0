# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations that a run has left undone, because it was killed or a node was away, and that a reconcile brings to their
end."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    operations,
    owner,
    stages,
    teardown,
    transfer,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
)


def complete_transfers(session: Session, operation: Operation, node: Node) -> None:
    """Make the switch of those transfers from or to this node whose run was killed when the instance was up on the
    target and to be taken down on the source: it may serve nowhere else any more. The source's rest is recorded."""
    concerned = set(
        session.scalars(
            select(Teardown.instance_name).where(
                Teardown.node_id == node.id, Teardown.reason == teardown.RESERVED
            )
        )
    )
    concerned |= set(
        session.scalars(select(Instance.name).where(Instance.node_id == node.id, Instance.applied.is_(False)))
    )
    for other in _dead(session):
        if (
            other.kind == "transfer"
            and other.instance_name in concerned
            and transfer.complete(session, other)
        ):
            ended = transfer.result(session, other)
            endings.end(session, other, ended, operation.requested_by)
            stages.note(operation, changed=True)


def end(session: Session, operation: Operation, node: Node, names: Container[str]) -> None:
    """End the operations that have nothing left to do, now that this is done on this node."""
    waiting = [
        other
        for other in _dead(session)
        if other.instance_name in names
        or _has_part_in(other, node)
        or not stages.troubles(other)  # killed when there was nothing left to do but to say so
    ]
    waiting += [
        other for other in _pending(session) if other.instance_name in names or _has_part_in(other, node)
    ]
    for other in waiting:
        if other.kind == "transfer" and not _is_switched(session, other):
            if _is_reserved(session, other):
                # To be undone by a reconcile of the target. What an earlier one had left elsewhere may be done.
                if not _is_left_here(session, other, node) and _place(session, other) != node.id:
                    _note_done(other, node)
                continue
            undone = f"the run was killed, and what it had done is undone by a reconcile of {node.name}"
            if node.id in stages.outcomes(other, transfer.ARRIVE):
                stages.set_outcome(other, transfer.ARRIVE, node, stages.Outcome(stages.FAILED, error=undone))
            ended = transfer.result(session, other)
            stays = f"{other.instance_name} stays on {ended.details['node']}, nothing has changed for it"
            ended = replace(ended, message=f"{stays}: {undone}")
        elif _is_left_here(session, other, node):
            continue
        else:
            _note_done(other, node)
            if stages.troubles(other):
                continue
            ended = operations.kind_of(other.kind).result(session, other)
        endings.end(session, other, ended, operation.requested_by)


def _dead(session: Session) -> list[Operation]:
    """Operations on instances whose run has ended before they were done."""
    running = select(Operation).where(Operation.state == "running", Operation.instance_name.is_not(None))
    return [one for one in session.scalars(running.order_by(Operation.created_at)) if not owner.is_alive(one)]


def _pending(session: Session) -> list[Operation]:
    """Operations on instances that a run has begun and left to be done."""
    pending = select(Operation).where(
        Operation.state == "pending", Operation.instance_name.is_not(None), Operation.attempts > 0
    )
    return list(session.scalars(pending.order_by(Operation.created_at)))


def _has_part_in(other: Operation, node: Node) -> bool:
    """Whether an operation has, or had, something to do on this node."""
    return any(found["node"] == node.name for found in stages.outcomes(other).values())


def _is_left_here(session: Session, other: Operation, node: Node) -> bool:
    """Whether something of an operation is still to be done on this node."""
    row = select(Teardown.id).where(Teardown.node_id == node.id, Teardown.operation_id == other.id)
    if session.scalar(row.limit(1)) is not None:
        return True
    if other.kind == "remove":
        return False
    instance = select(Instance.id).where(
        Instance.name == other.instance_name, Instance.node_id == node.id, Instance.applied.is_(False)
    )
    return session.scalar(instance) is not None


def _note_done(other: Operation, node: Node) -> None:
    for name, found in (other.progress or {}).get("stages", {}).items():
        if node.id in found and found[node.id]["state"] != stages.DONE:
            stages.set_outcome(other, name, node, stages.Outcome(stages.DONE, changed=True))


def _place(session: Session, other: Operation) -> str | None:
    """The id of the node of an operation's instance."""
    return session.scalar(select(Instance.node_id).where(Instance.name == other.instance_name))


def _is_switched(session: Session, other: Operation) -> bool:
    """Whether the instance of a transfer is on its target."""
    return bool(_place(session, other) == (other.progress or {})["target"])


def _is_reserved(session: Session, other: Operation) -> bool:
    """Whether a place is still reserved for the instance of a transfer."""
    progress = other.progress or {}
    return teardown.find(session, progress["target"], f"wg{progress['instance_id']}") is not None
