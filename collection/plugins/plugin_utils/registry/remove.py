# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a customer: everything there is of one, in the order of the HTTP contract, with a report of each item."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    endings,
    stages,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    find_instance,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuthToken,
    Instance,
    License,
    Node,
    Operation,
    Peer,
    PeerAllowedIp,
    PeerGroup,
    PeerGroupInstance,
    PeerGroupPeer,
    PeerInvite,
    PeerStatus,
    User,
    UserAcl,
    UserSession,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    Result,
    partial,
    success,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import (
    Job,
    Outcome,
)

APPLY = "apply"


def record(session: Session, operation: Operation) -> None:
    """Take the customer out of the registry, and note what is to be taken down on nodes. What is not there is an
    error in the report, and no failure."""
    name = str(operation.instance_name)
    progress = operation.progress or {}
    if "removed_items" not in progress or find_instance(session, name) is not None:
        removed: list[dict[str, Any]] = []
        errors: list[str] = []
        _remove_instance(session, name, operation, removed, errors)
        endings.forget_secrets_of(session, name)
        _remove_group(session, f"{name}_group", removed, errors)
        _remove_user(session, name, removed, errors)
        session.execute(delete(License).where(License.email == name))
        session.flush()
        stages.note(operation, removed_items=removed, errors=errors, changed=bool(removed))
    teardown.claim(session, operation, APPLY)


def jobs(session: Session, operations: list[Operation], stage: str, node: Node) -> list[Job]:  # noqa: ARG001
    """What is to be taken down on `node`, as wg_instance takes it."""
    return [
        Job(number, teardown.wanted(row))
        for number, rows in teardown.claimed(session, operations, node).items()
        for row in rows
    ]


def settle(session: Session, operation: Operation, stage: str, node: Node, outcome: Outcome) -> None:  # noqa: ARG001
    """Note in the registry how it went."""
    for row in teardown.claimed(session, [operation], node).get(operation.id, []):
        teardown.settle(session, row, outcome)


def result(session: Session, operation: Operation) -> Result:  # noqa: ARG001
    """What to tell of it: the report of the HTTP contract."""
    progress = operation.progress or {}
    name = str(operation.instance_name)
    removed, errors = list(progress["removed_items"]), list(progress["errors"])
    left = stages.troubles(operation)
    if left:
        errors += [f"{trouble}; it is taken down by the node's next reconcile" for trouble in left]
    elif stages.outcomes(operation, APPLY):
        removed.append({"type": "wireguard_configs", "identifier": "regenerated"})
    details: dict[str, Any] = {
        "results": {"instance_identifier": name, "removed_items": removed, "errors": errors}
    }
    message = f"Removal completed for {name}"
    if errors:
        return partial(message, bool(left), **details)
    return success(message, **details)


def _remove_instance(
    session: Session, name: str, operation: Operation, removed: list[dict[str, Any]], errors: list[str]
) -> None:
    instance = find_instance(session, name)
    if instance is None:
        errors.append(f"WireGuard instance not found: {name}")
        return
    teardown.record(session, instance.node_id, instance, instance.listen_port, operation, teardown.REMOVED)
    mine = select(Peer.id).where(Peer.instance_id == instance.id)
    session.execute(delete(PeerStatus).where(PeerStatus.peer_id.in_(mine)))
    session.execute(delete(PeerAllowedIp).where(PeerAllowedIp.instance_id == instance.id))
    session.execute(delete(PeerInvite).where(PeerInvite.peer_id.in_(mine)))
    session.execute(delete(PeerGroupPeer).where(PeerGroupPeer.peer_id.in_(mine)))
    session.execute(delete(PeerGroupInstance).where(PeerGroupInstance.instance_id == instance.id))
    gone = session.execute(delete(Peer).where(Peer.instance_id == instance.id))
    removed.append(
        {
            "type": "wireguard_instance",
            "identifier": instance.uuid,
            "peers_removed": gone.rowcount,  # type: ignore[attr-defined] # what a DELETE answers has it
        }
    )
    session.flush()
    session.execute(delete(Instance).where(Instance.id == instance.id))
    session.expunge(instance)


def _remove_group(session: Session, name: str, removed: list[dict[str, Any]], errors: list[str]) -> None:
    group = session.scalar(select(PeerGroup).where(PeerGroup.name == name))
    if group is None:
        errors.append(f"Peer group not found: {name}")
        return
    session.execute(delete(PeerGroupPeer).where(PeerGroupPeer.group_id == group.id))
    session.execute(delete(PeerGroupInstance).where(PeerGroupInstance.group_id == group.id))
    session.delete(group)
    removed.append({"type": "peer_group", "identifier": name})


def _remove_user(session: Session, email: str, removed: list[dict[str, Any]], errors: list[str]) -> None:
    user = session.scalar(select(User).where(User.email == email))
    if user is None:
        errors.append(f"User not found: {email}")
        return
    acl = session.scalar(select(UserAcl).where(UserAcl.user_id == user.id))
    if acl is None:
        errors.append(f"User ACL not found: {email}")
    else:
        removed.append({"type": "user_acl", "identifier": acl.id})
        session.delete(acl)
    session.execute(delete(AuthToken).where(AuthToken.user_id == user.id))
    session.execute(delete(UserSession).where(UserSession.user_id == user.id))
    session.flush()
    session.delete(user)
    removed.append({"type": "user", "identifier": email})
