# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The difference between what the registry says of nodes and what they run, in the shape of the HTTP contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    checks,
    looks,
    node_operations,
    owner,
    stages,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    addresses_of,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.counted import counted
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.fleet_report import LISTS
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    on_node,
    peers_of,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    MOST_CHARACTERS,
    Result,
    error,
    fit,
    success,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    effective,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.visible_text import visible

#: Differences that are told in sentences.
_MOST_TOLD = 10
#: Seconds for a node to answer.
TIMEOUT = 30.0


@dataclass(frozen=True)
class Wanted:
    """What a node should run: `interfaces` as wg_drift takes them, and by interface the ids of those instances and of
    those teardowns that are looked at. What a run is at work on is not."""

    interfaces: list[dict[str, Any]]
    instances: dict[str, int]
    teardowns: dict[str, int]


def wanted(session: Session, node: Node) -> Wanted:
    """What the registry says of a node. The cost grows with what is on this node, not with the fleet."""
    busy = node_operations.at_work(session)
    instances = {
        one.interface: one for one in session.scalars(select(Instance).where(Instance.node_id == node.id))
    }
    looked = {name: one for name, one in instances.items() if one.name not in busy}
    peers = peers_of(session, [one.id for one in looked.values() if one.state == "present"])
    interfaces = [_present(one, node, peers[one.id]) for one in looked.values() if one.id in peers]
    absent = [name for name, one in looked.items() if one.id not in peers]
    abandoned = {
        row.interface: row.id
        for row in teardown.abandoned(session, node)
        if row.instance_name not in busy and row.interface not in instances
    }
    interfaces += [{"interface": name, "state": "absent"} for name in (*absent, *abandoned)]
    theirs = set(session.scalars(select(Teardown.interface).where(Teardown.node_id == node.id)))
    theirs |= instances.keys() | {node.wg_interface}
    named = {one["interface"] for one in interfaces}
    interfaces += [{"interface": name, "state": "any"} for name in sorted(theirs - named)]
    return Wanted(interfaces, {name: one.id for name, one in looked.items()}, abandoned)


def _present(instance: Instance, node: Node, peers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interface": instance.interface,
        "peers": on_node(instance, node, peers),
        "public_key": instance.public_key,
        "listen_port": instance.listen_port,
        "addresses": list(addresses_of(instance.subnet, instance.subnet6)),
        "mtu": effective(instance, node).mtu,
    }


def report(node_id: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """A node's report in the contract's shape, out of what wg_drift answers."""
    made: dict[str, Any] = {
        "has_drift": bool(answer["has_drift"]),
        **{name: list(answer[name]) for name in LISTS},
        "summary": dict(answer["summary"]),
        "node_id": node_id,
        # As in the contract's examples: no fraction, no zone; it is UTC.
        "detected_at": now().strftime("%Y-%m-%dT%H:%M:%S"),
    }
    if answer.get("truncated"):
        made["truncated"] = True
    (fitted,) = fit([made], MOST_CHARACTERS, LISTS)
    return fitted


def settle(
    session: Session,
    operation: Operation,
    stage: str,  # noqa: ARG001
    node: Node,
    outcome: stages.Outcome,
) -> None:
    """Keep how it ended, and tell those who wait for this node alone."""
    found = (operation.progress or {}).get("report")
    checks.note(session, operation, node, outcome, None if found is None else found["summary"])
    if operation.request.get("several"):
        looks.answer(session, operation, _result(node, operation, found))


def settle_all(
    session: Session,
    stage: str,
    looked: Sequence[tuple[Operation, Node, stages.Outcome, dict[str, Any] | None]],
) -> None:
    """What `operations.settle` does, of all nodes of a look at once: how it went, and the report if there is one."""
    moment, lease = now(), owner.lease()
    for operation, node, outcome, found in looked:
        stages.set_outcome(operation, stage, node, outcome)
        stages.note(operation, report=found)
        operation.lease_until = lease
        if outcome.state != stages.UNREACHABLE:
            node.last_seen = moment
    checks.note_all(
        session,
        (
            (operation, node, outcome, None if found is None else found["summary"])
            for operation, node, outcome, found in looked
        ),
    )
    together = [one for one in looked if one[0].request.get("several")]
    waited_for = looks.waited_for(session, {str(one[0].run_id) for one in together})
    for operation, node, _outcome, found in together:
        if node.name in waited_for:
            looks.answer(session, operation, _result(node, operation, found))


def result(session: Session, operation: Operation) -> Result:
    """What to tell of a look at a node."""
    return _result(session.get_one(Node, operation.node_id), operation, take_report(operation))


def _result(node: Node, operation: Operation, found: dict[str, Any] | None) -> Result:
    details: dict[str, Any] = {"node": node.name, "node_id": node.id}
    left = stages.troubles(operation)
    if found is None or left:
        details["reachable"] = stages.UNREACHABLE not in stages.states(operation)
        # As in the contract's examples, in UTC.
        details["last_seen"] = node.last_seen.strftime("%Y-%m-%dT%H:%M:%S") if node.last_seen else None
        if not details["reachable"]:
            left.append(
                f"it was last seen at {details['last_seen']} UTC" if node.last_seen else "it was never seen"
            )
        return error(f"Drift detection failed: {'; '.join(left) or node.name}", **details)
    numbers = found["summary"]
    message = f"Drift detection completed for {node.name}: "
    if not found["has_drift"]:
        return success(f"{message}no drift", **details, data=found)
    message += (
        f"{counted(numbers['missing_count'], 'missing peer')}, "
        f"{counted(numbers['mismatched_count'], 'mismatched peer')}, "
        f"{counted(numbers['unknown_count'], 'unknown peer')}, "
        f"{counted(numbers['interface_count'], 'interface issue')}"
    )
    return success(message, **details, data=found, warnings=_warnings(node, found))


def take_report(operation: Operation) -> dict[str, Any] | None:
    """What was noted of a node. The row has it in its result from now on."""
    progress = dict(operation.progress or {})
    found: dict[str, Any] | None = progress.pop("report", None)
    operation.progress = progress
    return found


def _warnings(node: Node, found: Mapping[str, Any]) -> list[str]:
    """The drift in sentences, for whoever reads the output."""
    told = [
        f"{one['interface']}: {one['field']} is {_value(one['actual'])}, should be {_value(one['expected'])}"
        for one in found["interface_issues"]
    ]
    told += [f"{one['interface']}: {_peer(one)} is missing" for one in found["missing_peers"]]
    told += [
        f"{one['interface']}: {_peer(one)} differs in "
        + ", ".join(different["field"] for different in one["mismatches"])
        for one in found["mismatched_peers"]
    ]
    told += [f"{one['interface']}: {_peer(one)} is unknown" for one in found["unknown_peers"]]
    more = found["summary"]["total_issues"] - _MOST_TOLD
    return [
        *(visible(f"{node.name}: {text}", 500) for text in told[:_MOST_TOLD]),
        *([f"{node.name}: and {more} more"] if more > 0 else []),
    ]


def _peer(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    return f"peer {entry['public_key']}" + (f" ({str(name)[:60]})" if name else "")


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (text or "none")[:200]
