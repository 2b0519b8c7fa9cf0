# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking an instance down on its node. The registry keeps it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    stages,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    disconnected,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    require_instance,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    Result,
    error,
    success,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import (
    Job,
    Outcome,
)

APPLY = "apply"


def record(session: Session, operation: Operation) -> None:
    """Say that the instance shall be down. Raises NotFound."""
    instance = require_instance(session, str(operation.instance_name))
    if instance.state != "disconnected":
        instance.state = "disconnected"
        instance.applied = False
        stages.note(operation, changed=True)
    stages.note(operation, instance_id=instance.id)
    stages.plan(operation, APPLY, instance.node)
    teardown.claim(session, operation, APPLY)


def jobs(session: Session, operations: list[Operation], stage: str, node: Node) -> list[Job]:  # noqa: ARG001
    """The instances on `node`, and what is left of them there, as wg_instance takes them."""
    rows = teardown.claimed(session, operations, node)
    found = []
    for operation in operations:
        instance = require_instance(session, str(operation.instance_name))
        if instance.node_id == node.id:
            found.append(Job(operation.id, disconnected(instance)))
        found += [Job(operation.id, teardown.wanted(row)) for row in rows.get(operation.id, [])]
    return found


def settle(session: Session, operation: Operation, stage: str, node: Node, outcome: Outcome) -> None:  # noqa: ARG001
    """Note in the registry how it went."""
    instance = require_instance(session, str(operation.instance_name))
    if instance.node_id == node.id:
        # Also where nothing was to be changed: who has not answered has not confirmed it, and reconcile has a look.
        instance.applied = outcome.state == stages.DONE
    for row in teardown.claimed(session, [operation], node).get(operation.id, []):
        teardown.settle(session, row, outcome)


def result(session: Session, operation: Operation) -> Result:
    """What to tell of it."""
    instance = require_instance(session, str(operation.instance_name))
    details: dict[str, Any] = {
        "instance_id": instance.id,
        "interface": instance.interface,
        "node": instance.node.name,
    }
    left = stages.troubles(operation)
    if left:
        return error(
            f"{instance.name} is not disconnected: {'; '.join(left)}. It stays recorded, and the next reconcile of "
            "the node does it",
            pending=True,
            **details,
        )
    what = "disconnected from" if stages.changed(operation) else "was disconnected already from"
    return success(f"Instance {instance.interface} of {instance.name} {what} {instance.node.name}", **details)
