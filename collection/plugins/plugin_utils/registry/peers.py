# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers of an instance, as they are asked for: checked, changed where they are known, added where they are not."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import covered, network
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import integer
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import InvalidInput
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.keys import (
    check_preshared_key,
    check_public_key,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import free_addresses
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict, Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import new_key_pair
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    CHUNK,
    Instance,
    Peer,
    PeerAllowedIp,
    PeerGroup,
    PeerGroupPeer,
    new_id,
    now,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.networks import check_networks


def checked_peers(peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Peers with valid fields, and with `field`, the place where each stands in the request. Raises Invalid, which
    names that and what is wrong there."""
    seen: set[str] = set()
    found = []
    for index, peer in enumerate(peers):
        field = f"peers[{index}]"
        checked: dict[str, Any] = {"field": field, "name": _name(peer.get("name", ""), f"{field}.name")}
        try:
            if peer.get("public_key") is not None:
                checked["public_key"] = check_public_key(peer["public_key"], f"{field}.public_key")
            if peer.get("preshared_key") is not None:
                checked["preshared_key"] = check_preshared_key(
                    peer["preshared_key"], f"{field}.preshared_key"
                )
            if peer.get("persistent_keepalive") is not None:
                checked["persistent_keepalive"] = integer(
                    peer["persistent_keepalive"], f"{field}.persistent_keepalive", 0, 65535
                )
        except InvalidInput as wrong:
            raise Invalid(wrong.field, wrong.problem) from None
        if not checked["name"] and "public_key" not in checked:
            raise Invalid(field, "has neither a name nor a public_key")
        mark = checked.get("public_key") or f"name {checked['name']}"
        if mark in seen:
            raise Invalid(field, "is there twice")
        seen.add(mark)
        if peer.get("allowed_ips") is not None:
            if not isinstance(peer["allowed_ips"], list):
                raise Invalid(f"{field}.allowed_ips", "is not a list")
            checked["allowed_ips"] = peer["allowed_ips"]
        found.append(checked)
    return found


def _name(value: Any, field: str) -> str:
    if not isinstance(value, str) or len(value) > 255 or not value.isprintable():
        raise Invalid(field, "is not a text of at most 255 printable characters")
    return value


def change_known_peers(
    session: Session, instance: Instance, wanted: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """Those of `wanted` that the instance has not, and how many that it has were changed."""
    peers = list(session.scalars(select(Peer).where(Peer.instance_id == instance.id))) if wanted else []
    by_key = {peer.public_key: peer for peer in peers}
    by_name = {peer.name: peer for peer in peers if peer.name}
    new, networks = [], {}
    updated = set()
    for asked in wanted:
        there = by_key.get(asked["public_key"]) if "public_key" in asked else by_name.get(asked["name"])
        if there is None:
            new.append(asked)
            continue
        before = (there.name, there.preshared_key, there.persistent_keepalive)
        there.name = asked["name"] or there.name
        there.preshared_key = asked.get("preshared_key", there.preshared_key)
        there.persistent_keepalive = asked.get("persistent_keepalive", there.persistent_keepalive)
        if before != (there.name, there.preshared_key, there.persistent_keepalive):
            updated.add(there.public_key)
        if "allowed_ips" in asked:
            networks[there.public_key] = asked["allowed_ips"]
    updated |= _change_networks(session, instance, networks)
    return new, len(updated)


def _change_networks(session: Session, instance: Instance, wanted: dict[str, list[Any]]) -> set[str]:
    """Give known peers, by public key, the networks behind them that are asked for now, instead of those that they
    have; returns the keys of those that this changes."""
    if not wanted:
        return set()
    checked = check_networks(session, instance, wanted)
    own: dict[str, list[str]] = {key: [] for key in checked}
    behind: dict[str, dict[str, PeerAllowedIp]] = {key: {} for key in checked}
    subnets = (network(instance.subnet), network(instance.subnet6))
    ids = {
        key: number
        for number, key in session.execute(
            select(Peer.id, Peer.public_key).where(Peer.instance_id == instance.id)
        )
    }
    for key, row in session.execute(
        select(Peer.public_key, PeerAllowedIp)
        .join(PeerAllowedIp, PeerAllowedIp.peer_id == Peer.id)
        .where(Peer.instance_id == instance.id)
        .order_by(PeerAllowedIp.id)
    ):
        if key not in checked:
            continue
        # Of each family, a peer's own address is the first in the instance's subnet.
        first = not any((":" in row.network) is (":" in text) for text in own[key])
        if first and any(covered(network(row.network), subnet) for subnet in subnets):
            own[key].append(row.network)
        else:
            behind[key][row.network] = row
    added, changed = [], set()
    for key, networks in checked.items():
        fresh = [text for text in networks if text not in own[key]]
        if set(fresh) == behind[key].keys():
            continue
        changed.add(key)
        for text, row in behind[key].items():
            if text not in fresh:
                session.delete(row)
        added += [
            PeerAllowedIp(peer_id=ids[key], instance_id=instance.id, network=text)
            for text in fresh
            if text not in behind[key]
        ]
    session.flush()  # a network may go from one peer to another
    session.add_all(added)
    return changed


def add_peers(session: Session, instance: Instance, wanted: list[dict[str, Any]]) -> list[str]:
    """Add peers with their own addresses and the networks behind them; returns their ids."""
    if not wanted:
        return []
    _refuse_known_keys(session, instance, [peer["public_key"] for peer in wanted if "public_key" in peer])
    further = {peer["field"]: peer["allowed_ips"] for peer in wanted if peer.get("allowed_ips")}
    networks = check_networks(session, instance, further) if further else {}
    named = [text for some in networks.values() for text in some]
    addresses = free_addresses(session, instance, len(wanted), besides=named)
    moment = now()
    rows, allowed, links = [], [], []
    group_id = session.scalar(select(PeerGroup.id).where(PeerGroup.name == f"{instance.name}_group"))
    for peer, (address, address6) in zip(wanted, addresses, strict=True):
        private_key, public_key = (None, peer["public_key"]) if "public_key" in peer else new_key_pair()
        number = new_id()
        rows.append(
            {
                "id": number,
                "instance_id": instance.id,
                "name": peer["name"],
                "public_key": public_key,
                "private_key": private_key,
                "preshared_key": peer.get("preshared_key"),
                "persistent_keepalive": peer.get("persistent_keepalive", 0),
                "created_at": moment,
                "updated_at": moment,
            }
        )
        for text in (address, address6, *networks.get(peer["field"], ())):
            allowed.append({"peer_id": number, "instance_id": instance.id, "network": text})
        if group_id is not None:
            links.append({"group_id": group_id, "peer_id": number})
    session.execute(insert(Peer), rows)
    session.execute(insert(PeerAllowedIp), allowed)
    if links:
        session.execute(insert(PeerGroupPeer), links)
    return [row["id"] for row in rows]


def _refuse_known_keys(session: Session, instance: Instance, keys: list[str]) -> None:
    """A public key belongs to one device in the whole fleet. Raises Conflict."""
    for start in range(0, len(keys), CHUNK):
        some = keys[start : start + CHUNK]
        taken = session.scalar(select(Peer.public_key).where(Peer.public_key.in_(some)).limit(1))
        taken = taken or session.scalar(
            select(Instance.public_key).where(Instance.public_key.in_(some)).limit(1)
        )
        if taken:
            raise Conflict(
                f"public key {taken} is that of another peer or instance: {instance.name} needs its own"
            )
