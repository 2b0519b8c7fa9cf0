# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a node to what the registry says of it.

First the peers of the interfaces that run, by wg_drift, each on its own. Then, if need be, what concerns whole
interfaces, by one call of wg_instance: those that are missing or set up otherwise, those that a node has not confirmed
yet, and those that are to be taken down. With that, operations come to their end that had been waiting for this node,
or whose run was killed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import (
    is_missing,
    only_peers_differ,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    checks,
    drift,
    left_undone,
    stages,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    disconnected,
    load_instances,
    peers_of,
    present,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Operation,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.requests import SWITCHES
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.results import (
    MOST_CHARACTERS,
    Result,
    error,
    fit,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.what_is_left import what_is_left

LISTS = ("errors", "instances", "added", "updated", "removed")
_MISSING, _MISMATCHED, _UNKNOWN = SWITCHES


@dataclass(frozen=True)
class Repair:
    """What is to be done to one whole interface."""

    interface: str
    name: str  # the instance's
    wanted: dict[str, Any]  # as wg_instance takes it
    instance_id: int | None = None
    teardown_id: int | None = None
    had_issues: bool = False  # which either of the two steps has mended

    @property
    def with_peers(self) -> bool:
        """Whether its peers are put in place along with it."""
        return "peers" in self.wanted

    def __repr__(self) -> str:
        return f"Repair({self.interface}, {self.wanted.get('state')})"


def switches(operation: Operation) -> dict[str, Any]:
    """What is allowed, as wg_drift takes it."""
    allowed: dict[str, Any] = {name: bool(operation.request[name]) for name in SWITCHES}
    if operation.request.get("max_removals") is not None:
        allowed["max_removals"] = operation.request["max_removals"]
    return allowed


def repairs(
    session: Session, operation: Operation, node: Node, looked: drift.Wanted, answer: Mapping[str, Any]
) -> list[Repair]:
    """What is left to do after wg_drift has answered. Nothing, most of the time."""
    issues: dict[str, list[Mapping[str, Any]]] = {}
    for issue in answer["interface_issues"]:
        issues.setdefault(issue["interface"], []).append(issue)
    all_known = len(answer["interface_issues"]) == answer["summary"]["interface_count"]
    allowed = switches(operation)
    kinds = ((_MISSING, "missing_peers"), (_MISMATCHED, "mismatched_peers"), (_UNKNOWN, "unknown_peers"))
    mended = {entry["interface"] for switch, kind in kinds if allowed[switch] for entry in answer[kind]}
    to_do, with_peers, with_issues, found = [], [], set(), []
    for instance in session.scalars(
        select(Instance).where(Instance.node_id == node.id).order_by(Instance.id)
    ):
        mine = issues.get(instance.interface, [])
        if looked.instances.get(instance.interface) != instance.id:
            continue
        if instance.state == "disconnected":
            if mine or not instance.applied:
                found.append(
                    Repair(instance.interface, instance.name, disconnected(instance), instance_id=instance.id)
                )
            continue
        to_mend = any(_allows(allowed, issue, instance.interface in mended) for issue in mine)
        if to_mend or (not instance.applied and (allowed[_MISSING] or allowed[_MISMATCHED])):
            missing = any(is_missing(issue) for issue in mine)
            if missing and not allowed[_MISSING]:
                continue
            to_do.append(instance.id)
            if to_mend:
                with_issues.add(instance.interface)
            # Those of an interface that runs are served already, each on its own.
            if missing or not all_known:
                with_peers.append(instance.id)
    found += _present(session, node, allowed, to_do, with_peers, with_issues)
    for row in teardown.abandoned(session, node):
        if looked.teardowns.get(row.interface) == row.id:
            found.append(Repair(row.interface, row.instance_name, teardown.wanted(row), teardown_id=row.id))
    return found


def settle_repairs(
    session: Session,
    operation: Operation,
    node: Node,
    done: Mapping[str, stages.Outcome],
    planned: Sequence[Repair],
    answer: Mapping[str, Any],
) -> None:
    """Note in the registry what the node has confirmed: `done` is by interface; and end what had waited for that."""
    for repair in planned:
        outcome = done[repair.interface]
        if repair.teardown_id is not None:
            row = session.get(Teardown, repair.teardown_id)
            if row is not None:
                teardown.settle(session, row, outcome)
        elif outcome.state == stages.DONE and _peers_are_right(operation, repair, answer):
            instance = session.get(Instance, repair.instance_id)
            if instance is not None and instance.node_id == node.id:
                instance.applied = True
                instance.arrived = instance.arrived or instance.state == "present"
    set_up = {name: repair for repair in planned if done[name := repair.interface].state == stages.DONE}
    with_peers = [name for name, repair in set_up.items() if repair.with_peers]
    stages.note(operation, left=what_is_left(answer, switches(operation), set_up, with_peers))
    session.flush()
    left_undone.end(session, operation, node, {repair.name for repair in planned})


def report(
    operation: Operation,
    answer: Mapping[str, Any],
    planned: Sequence[Repair],
    done: Mapping[str, stages.Outcome],
    told: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What was done, in the contract's shape. `answer` is wg_drift's, `told` is wg_instance's by interface."""
    peers = answer.get("reconciled") or {name: [] for name in ("added", "updated", "removed", "errors")}
    # That an interface is not there is no error any more, or none that was to be mended.
    again = {repair.interface for repair in planned if repair.with_peers}
    if not switches(operation)[_MISSING]:
        again |= {issue["interface"] for issue in answer["interface_issues"] if is_missing(issue)}
    errors = [one for one in peers["errors"] if one["peer"] or one["interface"] not in again]
    numbers = {name: peers.get(f"{name}_count", len(peers[name])) for name in ("added", "updated", "removed")}
    numbers["errors"] = peers.get("errors_count", len(peers["errors"])) - len(peers["errors"]) + len(errors)
    lists = {name: list(peers[name]) for name in ("added", "updated", "removed")}
    instances = []
    for repair in planned:
        outcome, more = done[repair.interface], told.get(repair.interface, {})
        # Whose interface is taken down is not removed one by one.
        for name in lists if repair.wanted["state"] == "present" else ():
            keys = more.get(f"peers_{name}", ())
            lists[name] += keys
            numbers[name] += more.get(f"peers_{name}_count", len(keys))
        one = {
            "interface": repair.interface,
            "instance": repair.name,
            "state": repair.wanted["state"],
            "changed": outcome.changed or (repair.had_issues and outcome.state == stages.DONE),
        }
        if outcome.error is not None:
            one["error"] = outcome.error
            numbers["errors"] += 1
            errors.append(
                {
                    "peer": "",
                    "interface": repair.interface,
                    "action": "bring up" if repair.wanted["state"] == "present" else "take down",
                    "error": outcome.error,
                }
            )
        instances.append(one)
    whole: dict[str, Any] = {
        **lists,
        "errors": errors,
        "instances": instances,
        "summary": {
            **{f"{name}_count": number for name, number in numbers.items()},
            "instances_count": sum(one["changed"] for one in instances),
        },
    }
    if any(numbers[name] > len(whole[name]) for name in numbers):
        whole["truncated"] = True
    (fitted,) = fit([whole], MOST_CHARACTERS, LISTS)
    return fitted


def settle(
    session: Session,
    operation: Operation,
    stage: str,  # noqa: ARG001
    node: Node,
    outcome: stages.Outcome,
) -> None:
    """Keep how it ended. All else is noted by settle_repairs."""
    checks.note(session, operation, node, outcome, (operation.progress or {}).get("left"))


def result(session: Session, operation: Operation) -> Result:
    """What to tell of it: the report of the HTTP contract. Errors of single peers or interfaces are no failure."""
    node = session.get_one(Node, operation.node_id)
    details: dict[str, Any] = {"node": node.name, "node_id": node.id}
    found = drift.take_report(operation)
    left = stages.troubles(operation)
    if found is None or left:
        return error(f"Nothing was reconciled: {'; '.join(left) or node.name}", **details)
    details["data"] = found
    if found["errors"]:
        details["warnings"] = [
            f"{one['interface']}: {one['action']} {one['peer']}".rstrip() + f": {one['error']}"
            for one in found["errors"][:20]
        ]
    status = "partial_success" if found["summary"]["errors_count"] else "success"
    return Result("succeeded", status, 200, _message(found, switches(operation)), details)


def _message(found: Mapping[str, Any], allowed: Mapping[str, Any]) -> str:
    numbers = found["summary"]
    parts = [
        f"{word} {numbers[f'{name}_count']} peers"
        for word, name in (("Added", "added"), ("Updated", "updated"), ("Removed", "removed"))
        if numbers[f"{name}_count"]
    ]
    for word, up in (("Put right", True), ("Took down", False)):
        number = sum(one["changed"] and (one["state"] == "present") is up for one in found["instances"])
        if number:
            parts.append(f"{word} {number} instances")
    if not parts and not numbers["errors_count"]:
        all_of_it = allowed[_MISSING] and allowed[_MISMATCHED]
        return "Nothing to repair" if all_of_it else "Nothing to repair that the switches allow"
    return ", ".join([*parts, f"{numbers['errors_count']} errors"])


def _allows(allowed: Mapping[str, Any], issue: Mapping[str, Any], peers_mended: bool) -> bool:
    """Whether an issue is one to be mended by wg_instance, as the switches are. `peers_mended`: by wg_drift."""
    if peers_mended and issue["field"] == "file" and only_peers_differ(issue["actual"]):
        return False  # wg_drift has written the file anew, and what it did to the peers tells of that
    missing = is_missing(issue) or issue["actual"] == "missing"
    return bool(allowed[_MISSING if missing else _MISMATCHED])


def _present(
    session: Session,
    node: Node,
    allowed: Mapping[str, Any],
    ids: Sequence[int],
    with_peers: Sequence[int],
    with_issues: Container[str],
) -> list[Repair]:
    instances, peers = load_instances(session, ids), peers_of(session, with_peers)
    found = []
    for number, instance in instances.items():
        wish = present(instance, node, instance.listen_port, peers.get(number, ()))
        if number not in peers:
            del wish["peers"]  # as they are
        wish["purge_peers"] = allowed[_UNKNOWN]
        found.append(
            Repair(
                instance.interface,
                instance.name,
                wish,
                instance_id=number,
                had_issues=instance.interface in with_issues,
            )
        )
    return found


def _peers_are_right(operation: Operation, repair: Repair, answer: Mapping[str, Any]) -> bool:
    """Whether all peers of a present instance are in place, after what wg_drift did."""
    if repair.with_peers or repair.wanted["state"] != "present":
        return True
    mended = answer.get("reconciled") or {"errors": []}
    errors = mended["errors"]
    if mended.get("errors_count", 0) > len(errors) or any(
        one["interface"] == repair.interface for one in errors
    ):
        return False
    allowed = switches(operation)
    return all(
        allowed[switch]
        or not (answer.get("truncated") or any(one["interface"] == repair.interface for one in answer[name]))
        for switch, name in ((_MISSING, "missing_peers"), (_MISMATCHED, "mismatched_peers"))
    )
