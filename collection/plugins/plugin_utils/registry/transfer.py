# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving an instance to another node, with its keys and addresses.

First it comes up on the target, where its port is reserved; then it goes down on the source; then, in one transaction,
the registry and the licenses say so. The reservation is a teardown on the target: whoever finds it after a run was
killed takes down what came up there. The source's teardown is noted in that last transaction, if it is not done.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    allocation,
    stages,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    disconnected,
    endpoint,
    load_instances,
    of_devices,
    peers_of,
    present,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    find_instance,
    require_instance,
    require_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    License,
    Node,
    Operation,
    Peer,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.networks import check_move
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    Result,
    error,
    still_to_take_down,
    success,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    effective,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import (
    Job,
    Outcome,
)

ARRIVE = "arrive"
LEAVE = "leave"


def record(session: Session, operation: Operation) -> None:
    """Reserve the instance's place on the target. Raises NotFound, Conflict or Full."""
    instance = require_instance(session, str(operation.instance_name))
    target = require_node(session, operation.request["node"])
    if not _licenses(session, instance.name):
        raise NotFound(f"No active licenses found for {instance.name}")
    stages.note(operation, instance_id=instance.id, target=target.id, source=instance.node.name)
    kept: list[int] = []
    moves = target.id != instance.node_id
    if moves:
        allocation.require_room(session, target, _peer_count(session, instance), instance)
        check_move(session, instance, target)
        # One that is disconnected may still be up where an earlier transfer could not take it down.
        if instance.state == "present" or teardown.find(session, target.id, instance.interface) is not None:
            stages.plan(operation, ARRIVE, target)
        reserved = _reserve(session, operation, instance, target)
        kept = [reserved.id]
    if not instance.applied:
        # A run that was killed may have taken it down here already. Should it not get to the target, it stays here.
        stages.plan(operation, ARRIVE, instance.node, needed=not moves)
    if moves:
        stages.plan(operation, LEAVE, instance.node)
    else:
        # It is there; what the licenses say may be older.
        _move_licenses(session, operation, instance.name, target)
    # What an earlier transfer has left on other nodes is taken down along with the source.
    teardown.claim(session, operation, LEAVE, besides=kept)


def jobs(session: Session, operations: list[Operation], stage: str, node: Node) -> list[Job]:
    """The instances that are to come to `node`, or to leave it, as wg_instance takes them."""
    by_operation = {
        operation.id: require_instance(session, str(operation.instance_name)) for operation in operations
    }
    if stage == ARRIVE:
        ids = [instance.id for instance in by_operation.values()]
        instances, peers = load_instances(session, ids), peers_of(session, ids)
        return [
            Job(number, _wanted(session, instances[instance.id], node, peers[instance.id]))
            for number, instance in by_operation.items()
        ]
    rows = teardown.claimed(session, operations, node)
    found = []
    for operation in operations:
        instance = by_operation[operation.id]
        target = _target(session, operation)
        if instance.node_id == node.id and target.id != node.id:
            _require_reserved(session, instance, target)  # else nobody would serve it from here on
            # Should this run end right here, the source is known to need a look.
            instance.applied = False
            found.append(Job(operation.id, {**disconnected(instance), "state": "absent"}))
        found += [
            Job(operation.id, teardown.wanted(row))
            for row in rows.get(operation.id, [])
            if not _is_place(row, instance, target)
        ]
    return found


def _wanted(session: Session, instance: Instance, node: Node, peers: list[dict[str, Any]]) -> dict[str, Any]:
    """The instance as it is to be on the target, or where it is."""
    if instance.state != "present":
        return disconnected(instance)
    if instance.node_id == node.id:
        # As in provision: what somebody has added by hand is drift, and reconcile's to decide on.
        return {**present(instance, node, instance.listen_port, peers), "purge_peers": False}
    return present(instance, node, _require_reserved(session, instance, node).listen_port, peers)


def undo(session: Session, operation: Operation, stage: str, node: Node) -> list[Job]:
    """What is to be taken down on the target when the instance could not be brought up there."""
    if stage != ARRIVE:
        return []
    row = teardown.find(session, node.id, f"wg{(operation.progress or {})['instance_id']}")
    return [] if row is None else [Job(operation.id, teardown.wanted(row))]


def settle_undo(session: Session, operation: Operation, node: Node, outcome: Outcome) -> None:
    """Note how that went; what is not done is done by the target's next reconcile."""
    row = teardown.find(session, node.id, f"wg{(operation.progress or {})['instance_id']}")
    if row is not None:
        teardown.settle(session, row, outcome)


def settle(session: Session, operation: Operation, stage: str, node: Node, outcome: Outcome) -> None:
    """Note in the registry how it went; after the source, make the switch."""
    instance = require_instance(session, str(operation.instance_name))
    if stage == ARRIVE:
        if instance.node_id == node.id and outcome.state == stages.DONE:
            instance.applied = True
            instance.arrived = instance.arrived or instance.state == "present"
        return
    target = _target(session, operation)
    for row in teardown.claimed(session, [operation], node).get(operation.id, []):
        if not _is_place(row, instance, target):
            teardown.settle(session, row, outcome)
    if instance.node_id == node.id and node.id != target.id:
        _switch(session, operation, instance, node, target, outcome)


def result(session: Session, operation: Operation) -> Result:
    """What to tell of it."""
    instance = require_instance(session, str(operation.instance_name))
    target = _target(session, operation)
    progress = operation.progress or {}
    details: dict[str, Any] = {
        "instance_id": instance.id,
        "interface": instance.interface,
        "source": progress["source"],
        "updated_licenses": progress.get("updated_licenses", 0),
        "new_server": {"country": target.country, "dns_name": target.dns_name},
    }
    left = stages.troubles(operation)
    if instance.node_id != target.id:
        message = (
            f"{instance.name} stays on {instance.node.name}, nothing has changed for it: {'; '.join(left)}"
        )
        if teardown.find(session, target.id, instance.interface) is not None:
            message += f"; what may have come up on {target.name} is taken down by its next reconcile"
        return error(message, node=instance.node.name, **details)
    # With another node, devices may get other settings, too.
    details.update(
        node=target.name,
        endpoint=endpoint(instance, target),
        listen_port=instance.listen_port,
        **of_devices(instance, target),
    )
    if not _arrived(operation):
        return error(
            f"{instance.name} is on {target.name} already, but not as it should be: {'; '.join(left)}. The next "
            "reconcile of the node does it",
            pending=True,
            **details,
        )
    if not progress.get("moved"):
        message = f"Instance {instance.interface} of {instance.name} is on {target.name} already"
    else:
        message = f"Instance transferred successfully to {_where(target)}. Please update your client configurations."
    if left:
        return still_to_take_down(message, 200, left, **details)
    return success(message, **details)


def _where(node: Node) -> str:
    """Where a node is, and how it is called there, as far as it is known."""
    called = node.dns_name or node.name
    return f"{node.country} ({called})" if node.country else called


def complete(session: Session, operation: Operation) -> bool:
    """Make the switch for a run that was killed when the instance was up on the target and about to leave the source,
    or had left it. What may be left on the source stays to be taken down. Returns whether there was one to make."""
    instance = find_instance(session, str(operation.instance_name))
    target = _target(session, operation)
    if instance is None or instance.node_id == target.id or instance.applied or not _arrived(operation):
        return False
    reserved = teardown.find(session, target.id, instance.interface)
    if reserved is None or reserved.operation_id != operation.id:
        return False
    source = instance.node
    outcome = Outcome(stages.FAILED, error="the run was killed before it could tell how it went there")
    stages.set_outcome(operation, LEAVE, source, outcome)
    _switch(session, operation, instance, source, target, outcome)
    return True


def _switch(
    session: Session, operation: Operation, instance: Instance, source: Node, target: Node, outcome: Outcome
) -> None:
    reserved = _require_reserved(session, instance, target)
    old_port, new_port = instance.listen_port, reserved.listen_port
    session.delete(reserved)
    session.flush()
    instance.node = target
    instance.listen_port = new_port
    instance.applied = True
    if outcome.state != stages.DONE:
        row = teardown.record(session, source.id, instance, old_port, operation, teardown.TRANSFERRED)
        row.attempts, row.error = 1, outcome.error
    instance.arrived = instance.state == "present"
    stages.note(operation, moved=True, changed=True)
    _move_licenses(session, operation, instance.name, target)


def _move_licenses(session: Session, operation: Operation, email: str, target: Node) -> None:
    licenses, server = _licenses(session, email), target.dns_name or target.country
    if any(one.server != server for one in licenses):
        stages.note(operation, changed=True)
    for one in licenses:
        one.server = server
    session.flush()
    stages.note(operation, updated_licenses=len(licenses))


def _reserve(session: Session, operation: Operation, instance: Instance, target: Node) -> Teardown:
    """The instance's place on the target; one that a killed run has reserved is taken over, with its port."""
    there = teardown.find(session, target.id, instance.interface)
    if there is not None:
        port = there.listen_port
    else:
        port = allocation.free_port(session, target, instance.listen_port)
        if port != instance.listen_port:
            port = allocation.free_port(session, target, effective(None, target).listen_port_base)
    row = teardown.record(session, target.id, instance, port, operation, teardown.RESERVED)
    session.flush()
    return row


def _is_place(row: Teardown, instance: Instance, target: Node) -> bool:
    """Whether a teardown is the reservation of the place where the instance comes to."""
    return row.node_id == target.id and row.interface == instance.interface


def _require_reserved(session: Session, instance: Instance, target: Node) -> Teardown:
    row = teardown.find(session, target.id, instance.interface)
    if row is None:
        raise Conflict(f"the place of {instance.interface} on {target.name} is no longer reserved")
    return row


def _arrived(operation: Operation) -> bool:
    return not stages.held_up(operation, LEAVE)


def _target(session: Session, operation: Operation) -> Node:
    return session.get_one(Node, (operation.progress or {})["target"])


def _licenses(session: Session, email: str) -> list[License]:
    return list(session.scalars(select(License).where(License.email == email, License.is_active.is_(True))))


def _peer_count(session: Session, instance: Instance) -> int:
    return len(session.scalars(select(Peer.id).where(Peer.instance_id == instance.id)).all())
