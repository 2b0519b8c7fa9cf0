# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making an instance with its peers, or bringing one up again, on a node."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import network
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    allocation,
    stages,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
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
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import (
    new_key_pair,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    License,
    Node,
    Operation,
    PeerGroup,
    PeerGroupInstance,
    User,
    UserAcl,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.peers import (
    add_peers,
    change_known_peers,
    checked_peers,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import (
    unsealed_peers,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    Result,
    error,
    still_to_take_down,
    success,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import (
    Job,
    Outcome,
)

APPLY = "apply"


def record(session: Session, operation: Operation) -> None:
    """Put instance and peers into the registry, with all they need of a node.

    Raises Conflict, Full, Invalid or NotFound.
    """
    request = operation.request
    peers = checked_peers(unsealed_peers(request))
    wanted_node = require_node(session, request["node"]) if request.get("node") else None
    instance = find_instance(session, str(operation.instance_name))
    if instance is None:
        instance = _new_instance(session, str(operation.instance_name), request, wanted_node, len(peers))
        added = add_peers(session, instance, peers)
        stages.note(operation, changed=True, created=True)
    else:
        if wanted_node is not None and wanted_node.id != instance.node_id:
            raise Conflict(
                f"{instance.name} is on node {instance.node.name} already: a transfer moves it to {wanted_node.name}"
            )
        _require_prefix_length(instance, request.get("prefix_length"))
        new, updated = change_known_peers(session, instance, peers)
        if new:
            allocation.require_room(session, instance.node, len(new), instance)
        added = add_peers(session, instance, new)
        if instance.state != "present":
            stages.note(operation, back=True)
        if added or updated or instance.state != "present":
            instance.state = "present"
            instance.applied = False
            stages.note(operation, changed=True)
    before = (operation.progress or {}).get("peers_added", [])  # by a run that was killed
    stages.note(operation, instance_id=instance.id, peers_added=[*before, *added])
    stages.plan(operation, APPLY, instance.node)
    teardown.claim(session, operation, APPLY)


def jobs(session: Session, operations: list[Operation], stage: str, node: Node) -> list[Job]:  # noqa: ARG001
    """The instances on `node`, and what is left of them there, as wg_instance takes them."""
    by_operation = {
        operation.id: require_instance(session, str(operation.instance_name)) for operation in operations
    }
    ids = [instance.id for instance in by_operation.values() if instance.node_id == node.id]
    instances, peers = load_instances(session, ids), peers_of(session, ids)
    rows = teardown.claimed(session, operations, node)
    found = []
    for number, instance in by_operation.items():
        if instance.id in instances:
            wanted = present(instance, node, instance.listen_port, peers[instance.id])
            # What somebody has added by hand is drift, and reconcile's to decide on.
            found.append(Job(number, {**wanted, "purge_peers": False}))
        found += [Job(number, teardown.wanted(row)) for row in rows.get(number, [])]
    return found


def settle(session: Session, operation: Operation, stage: str, node: Node, outcome: Outcome) -> None:  # noqa: ARG001
    """Note in the registry how it went."""
    instance = require_instance(session, str(operation.instance_name))
    if instance.node_id == node.id:
        # Also where nothing was to be changed: who has not answered has not confirmed it, and reconcile has a look.
        instance.applied = outcome.state == stages.DONE
        instance.arrived = instance.arrived or instance.applied
    for row in teardown.claimed(session, [operation], node).get(operation.id, []):
        teardown.settle(session, row, outcome)


def result(session: Session, operation: Operation) -> Result:
    """What to tell of it."""
    instance = require_instance(session, str(operation.instance_name))
    node = instance.node
    peers = peers_of(session, [instance.id])[instance.id]
    added = set((operation.progress or {}).get("peers_added", []))
    details: dict[str, Any] = {
        "instance_id": instance.id,
        "interface": instance.interface,
        "node": node.name,
        "endpoint": endpoint(instance, node),
        "listen_port": instance.listen_port,
        "public_key": instance.public_key,
        "addresses": list(allocation.addresses_of(instance.subnet, instance.subnet6)),
        **of_devices(instance, node),
        "peers_count": len(peers),
        "peers": [
            {
                "peer_id": peer["peer_id"],
                "name": peer["name"],
                "public_key": peer["public_key"],
                "allowed_ips": peer["allowed_ips"],
                "added": peer["peer_id"] in added,
            }
            for peer in peers
        ],
    }
    left = stages.troubles(operation, instance.node_id)
    if left:
        return error(
            f"{instance.name} is recorded as {instance.interface} of {node.name} but not up yet: {'; '.join(left)}. "
            "The next reconcile of the node does it",
            pending=True,
            **details,
        )
    progress = operation.progress or {}
    created = progress.get("created")
    if created:
        what = "provisioned"
    elif progress.get("back"):
        what = "is up again"
    else:
        what = "updated" if stages.changed(operation) else "is as asked"
    message = f"Instance {instance.interface} of {instance.name} {what} on {node.name}"
    code = 201 if created else 200
    elsewhere = stages.troubles(operation, but=instance.node_id)
    if elsewhere:
        return still_to_take_down(message, code, elsewhere, **details)
    return success(message, code=code, **details)


def _require_prefix_length(instance: Instance, wanted: int | None) -> None:
    """An instance keeps its subnet. Raises Conflict."""
    there = network(instance.subnet)[2]
    if wanted is not None and wanted != there:
        raise Conflict(
            f"{instance.name} has {instance.subnet} already: prefix_length is that of a new instance, and cannot "
            f"become {wanted}"
        )


def _new_instance(
    session: Session, name: str, request: dict[str, Any], wanted_node: Node | None, peers: int
) -> Instance:
    place = allocation.find_place(session, peers, wanted_node, request.get("prefix_length"))
    private_key, public_key = new_key_pair()
    taken = set(session.scalars(select(Node.wg_interface)))
    while True:
        instance = Instance(
            name=name,
            node=place.node,
            listen_port=place.listen_port,
            private_key=private_key,
            public_key=public_key,
            subnet=place.subnet,
            subnet6=place.subnet6,
        )
        session.add(instance)
        session.flush()
        if instance.interface not in taken:
            break
        # A node's own interface is called so: the next number.
        session.delete(instance)
        session.flush()
    _make_account(session, instance)
    return instance


def _make_account(session: Session, instance: Instance) -> None:
    """What a customer has besides the instance; each only where it is missing."""
    group_name = f"{instance.name}_group"
    group = session.scalar(select(PeerGroup).where(PeerGroup.name == group_name))
    if group is None:
        group = PeerGroup(name=group_name)
        session.add(group)
        session.flush()
    session.add(PeerGroupInstance(group_id=group.id, instance_id=instance.id))
    user = session.scalar(select(User).where(User.email == instance.name))
    if user is None:
        user = User(email=instance.name)
        session.add(user)
        session.flush()
    if session.scalar(select(UserAcl).where(UserAcl.user_id == user.id)) is None:
        session.add(UserAcl(user_id=user.id, rights=["instance"]))
    if session.scalar(select(License.id).where(License.email == instance.name)) is None:
        server = instance.node.dns_name or instance.node.country
        session.add(License(email=instance.name, server=server, is_active=True))
    session.flush()
