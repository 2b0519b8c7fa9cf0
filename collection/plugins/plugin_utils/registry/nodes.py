# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes as code: the registry's nodes become what a list says of them. Those that are not in it stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from netaddr import IPNetwork
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import shown
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import endings, owner
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import new_ip6_pool
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict, Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Instance,
    Node,
    Operation,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.names import check_node_name
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_fields import (
    DEFAULTS,
    FIELDS,
    POOLS,
    check_flag,
)

CREATED, UPDATED, REMOVED = "created", "updated", "removed"

_MOST_NAMED = 5  # instances in a message

# The overrides that are in effect on the node itself, and what an instance may say instead.
_ON_NODE = (("override_mtu", Instance.mtu), ("override_keepalive", Instance.keepalive))


@dataclass(frozen=True)
class Change:
    """What happens to one node. `before` and `after` hold all its fields, in order; None where there is no node."""

    name: str
    action: str  # CREATED, UPDATED or REMOVED
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    forgotten: tuple[str, ...] = ()  # of a node that is lost: what was still to be taken down on it

    def fields(self) -> dict[str, dict[str, Any]]:
        """By the name of each field that changes, the two values."""
        before, after = self.before or {}, self.after or {}
        return {
            name: {"before": before.get(name), "after": after.get(name)}
            for name in FIELDS
            if before.get(name) != after.get(name)
        }


@dataclass(frozen=True)
class _Wanted:
    name: str
    present: bool
    fields: Mapping[str, Any]  # only those that are set
    lost: bool = False


def apply_nodes(session: Session, wanted: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Make the nodes of `wanted` as they are described; returns what that changes.

    Each is a mapping with `name`, any of FIELDS, `state` (present or absent), and with absent `lost`, which says that
    the machine is no more: what was still to be taken down on it is forgotten. A field that is not there stays as it
    is, one that is null goes back to its default. All of it or nothing: raises Invalid, which names node and field, or
    Conflict, and then nothing of the transaction is to be kept.
    """
    nodes = {node.name: node for node in list_nodes(session)}
    spelled = {name.lower(): name for name in nodes}
    changes = []
    for each in _read(wanted):
        known = spelled.get(each.name.lower())
        if known is not None and known != each.name:
            raise Conflict(f"node {each.name} is in the registry already, as {known}")
        change = _apply(session, nodes.get(each.name), each)
        if change is not None:
            changes.append(change)
    session.flush()
    return changes


def list_nodes(session: Session) -> list[Node]:
    """All nodes, by name."""
    return list(session.scalars(select(Node).order_by(Node.name)))


def described(node: Node) -> dict[str, Any]:
    """A node's name and fields, as apply_nodes takes them."""
    return {name: getattr(node, name) for name in ("name", *FIELDS)}


def check_connection(node: Node) -> None:
    """Make sure that how a node is reached is what `apply_nodes` would have taken, however it came into the registry:
    elsewhere, it could be an option of ssh's. Raises Invalid."""
    check_node_name(node.name)
    for name in ("ansible_host", "ansible_port", "ansible_user", "ansible_python_interpreter"):
        FIELDS[name](getattr(node, name), name)


def record(session: Session, changes: Sequence[Change], actor: str) -> None:
    """An audit row for each change."""
    session.add_all(
        AuditEntry(
            actor=actor,
            action=f"node {change.action}",
            subject=change.name,
            result="success",
            details={
                "fields": change.fields(),
                **({"forgotten": list(change.forgotten)} if change.forgotten else {}),
            },
        )
        for change in changes
    )


# ---- reading what is wanted


def _read(wanted: object) -> list[_Wanted]:
    if not isinstance(wanted, Sequence) or isinstance(wanted, str):
        raise Invalid("nodes", "is not a list")
    found: dict[str, _Wanted] = {}
    for index, one in enumerate(wanted):
        if not isinstance(one, Mapping):
            raise Invalid(f"nodes[{index}]", "is not a mapping of a node's fields")
        if one.get("name") is None:
            raise Invalid(f"nodes[{index}].name", "is needed")
        each = _read_one(one, check_node_name(one["name"], f"nodes[{index}].name"))
        if each.name.lower() in found:
            raise Invalid(f"nodes[{index}].name", f"{each.name} is there twice")
        found[each.name.lower()] = each
    return list(found.values())


def _read_one(one: Mapping[str, Any], name: str) -> _Wanted:
    place = f"node {name}"
    fields = {}
    for key, value in one.items():
        if key in ("name", "state", "lost"):
            continue
        if key not in FIELDS:
            raise Invalid(f"{place}: {shown(key)}", f"is no field of a node; these are: {', '.join(FIELDS)}")
        if value is None and key in POOLS:
            continue
        if value is None and key in DEFAULTS:
            fields[str(key)] = DEFAULTS[key]
        else:
            fields[str(key)] = FIELDS[key](value, f"{place}: {key}")
    state = one.get("state", "present")
    if state not in ("present", "absent"):
        raise Invalid(f"{place}: state", f"{shown(state)} is neither present nor absent")
    lost = check_flag(one.get("lost") or False, f"{place}: lost")
    if lost and state == "present":
        raise Invalid(f"{place}: lost", "goes with state: absent")
    return _Wanted(name, state == "present", fields, lost)


# ---- making it so


def _apply(session: Session, node: Node | None, wanted: _Wanted) -> Change | None:
    if node is None:
        if not wanted.present:
            return None
        return _create(session, wanted)
    before = described(node)
    if not wanted.present:
        _require_nothing_on(session, node, wanted.lost)
        forgotten = _forget(session, node) if wanted.lost else []
        _cancel_what_waits_for(session, node)
        session.delete(node)
        return Change(node.name, REMOVED, before, None, tuple(forgotten))
    changed = {name: value for name, value in wanted.fields.items() if value != before[name]}
    if not changed:
        return None
    for pool, subnet in zip(POOLS, (Instance.subnet, Instance.subnet6), strict=True):
        if pool in changed:
            _require_inside(session, node, pool, changed[pool], subnet)
    for name, value in changed.items():
        setattr(node, name, value)
    for name, own in _ON_NODE:
        if name in changed:
            _apply_again(session, node, own)
    return Change(node.name, UPDATED, before, described(node))


def _create(session: Session, wanted: _Wanted) -> Change:
    if "ip_pool_cidr" not in wanted.fields:
        raise Invalid(f"node {wanted.name}: ip_pool_cidr", "is needed for a new node")
    node = Node(name=wanted.name, **{**DEFAULTS, "ip6_pool_cidr": new_ip6_pool(), **wanted.fields})
    session.add(node)
    return Change(node.name, CREATED, None, described(node))


def _require_nothing_on(session: Session, node: Node, lost: bool) -> None:
    """What is on a node, or is still to be taken down there, needs it in the registry. Of one that is lost, what is to
    be taken down needs nothing more, unless a run is at work on it."""
    instances = session.scalars(select(Instance.name).where(Instance.node_id == node.id)).all()
    if instances:
        raise Conflict(
            f"node {node.name} cannot be removed: {_listed(instances, 'instance')} on it; transfer or remove them first"
        )
    left = session.execute(
        select(Teardown.interface, Teardown.instance_name).where(Teardown.node_id == node.id)
    ).all()
    if left and not lost:
        raise Conflict(
            f"node {node.name} cannot be removed: still to be taken down on it: "
            f"{_listed([f'{interface} of {name}' for interface, name in left], 'interface')}; reconcile it first, or "
            "remove it as lost if the machine is no more"
        )
    waited_for = select(Teardown.operation_id).where(Teardown.node_id == node.id)
    running = select(Operation).where(
        or_(Operation.node_id == node.id, Operation.id.in_(waited_for)), Operation.state == "running"
    )
    for operation in session.scalars(running):
        if owner.is_alive(operation):
            raise Conflict(
                f"node {node.name} cannot be removed: {operation.kind} {operation.id} is at work on it; try again later"
            )


def _cancel_what_waits_for(session: Session, node: Node) -> None:
    """There will be nothing to reconcile."""
    waiting = select(Operation).where(
        Operation.node_id == node.id, Operation.state.in_(("pending", "running"))
    )
    for operation in session.scalars(waiting):
        endings.cancel(session, operation, f"node {node.name} was removed", operation.requested_by)


def _forget(session: Session, node: Node) -> list[str]:
    # Only this needs operations; the inventory, which reads nodes at every start, does not pay for the import.
    found: list[str] = import_module(f"{__package__}.lost_nodes").forget(session, node)
    return found


def _require_inside(session: Session, node: Node, field: str, pool: str, column: Any) -> None:
    """A node's pool keeps what was taken out of it. What came from another node by transfer was never in it."""
    old, new = IPNetwork(getattr(node, field)), IPNetwork(pool)
    rows = session.execute(select(Instance.name, column).where(Instance.node_id == node.id)).all()
    outside = [
        f"{name} ({subnet})"
        for name, subnet in rows
        if IPNetwork(subnet) in old and IPNetwork(subnet) not in new
    ]
    if outside:
        raise Conflict(
            f"node {node.name}: {field} cannot be {pool}: {_listed(outside, 'instance')} on it would be outside"
        )


def _apply_again(session: Session, node: Node, own: Any) -> None:
    """The interfaces of instances that say nothing themselves have the node's: what is there is not what is wanted."""
    for instance in session.scalars(
        select(Instance).where(Instance.node_id == node.id, own.is_(None), Instance.state == "present")
    ):
        instance.applied = False


def _listed(what: Sequence[str], noun: str) -> str:
    named = ", ".join(sorted(what)[:_MOST_NAMED])
    more = f" and {len(what) - _MOST_NAMED} more" if len(what) > _MOST_NAMED else ""
    return f"{len(what)} {noun}{'s' if len(what) != 1 else ''} ({named}{more})"
