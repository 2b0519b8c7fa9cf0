# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes should run, in bulk: as drift compares it, out of a few queries on columns for any number of nodes.

What the registry holds was checked when it was written, and is not checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Executable, Text, select, type_coerce
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import (
    check_allowed_ip,
    check_interface_address,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.drift import Expected
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.state import Peer as WireGuardPeer
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import (
    node_operations,
    teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import addresses_of
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    CHUNK,
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.secrets import decrypted
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import effective


def expected(session: Session, ids: Sequence[str]) -> dict[str, list[Expected]]:
    """By node id, all the interfaces that should be there, and those that should not or are not to be looked at."""
    busy = node_operations.at_work(session)
    there: dict[str, dict[str, Instance]] = {number: {} for number in ids}
    for one in session.scalars(select(Instance).where(Instance.node_id.in_(ids))):
        there[one.node_id][one.interface] = one
    leaving: dict[str, set[str]] = {}
    for number, name in session.execute(
        select(Teardown.node_id, Teardown.interface).where(Teardown.node_id.in_(ids))
    ):
        leaving.setdefault(number, set()).add(name)
    present = [
        one.id
        for instances in there.values()
        for one in instances.values()
        if one.state == "present" and one.name not in busy
    ]
    peers, labels = _peers(session, present)
    found: dict[str, list[Expected]] = {}
    for node in session.scalars(select(Node).where(Node.id.in_(ids))):
        instances = there[node.id]
        items = {
            name: Expected(
                name,
                _on_node(peers[one.id], effective(one, node).peer_keepalive),
                labels[one.id],
                listen_port=one.listen_port,
                public_key=one.public_key,
                addresses=frozenset(
                    check_interface_address(text, "addresses")
                    for text in addresses_of(one.subnet, one.subnet6)
                ),
                mtu=effective(one, node).mtu,
            )
            if one.id in peers
            else _other(name, "absent")
            for name, one in instances.items()
            if one.name not in busy
        }
        theirs = leaving.get(node.id, set())
        for row in teardown.abandoned(session, node) if theirs else ():
            if row.instance_name not in busy and row.interface not in instances:
                items[row.interface] = _other(row.interface, "absent")
        for name in sorted((theirs | instances.keys() | {node.wg_interface}) - items.keys()):
            items[name] = _other(name, "any")
        found[node.id] = list(items.values())
    return found


def as_asked(wanted: Expected) -> dict[str, Any]:
    """An interface as wg_drift takes it."""
    if wanted.state != "present":
        return {"interface": wanted.interface, "state": wanted.state}
    return {
        "interface": wanted.interface,
        "peers": [
            {
                "public_key": key,
                "allowed_ips": list(peer.allowed_ips),
                "persistent_keepalive": peer.persistent_keepalive,
                **({"preshared_key": peer.preshared_key} if peer.preshared_key else {}),
                **wanted.labels.get(key, {}),
            }
            for key, peer in wanted.peers.items()
        ],
        "public_key": wanted.public_key,
        "listen_port": wanted.listen_port,
        "addresses": None if wanted.addresses is None else sorted(wanted.addresses),
        "mtu": wanted.mtu,
    }


def _on_node(peers: dict[str, WireGuardPeer], keepalive: int) -> dict[str, WireGuardPeer]:
    """Those without a keepalive of their own have the instance's or the node's."""
    if not keepalive:
        return peers
    return {
        key: peer if peer.persistent_keepalive else peer._replace(persistent_keepalive=keepalive)
        for key, peer in peers.items()
    }


def _other(interface: str, state: str) -> Expected:
    return Expected(interface, {}, {}, state=state)


def _peers(
    session: Session, ids: Sequence[int]
) -> tuple[dict[int, dict[str, WireGuardPeer]], dict[int, dict[str, dict[str, str]]]]:
    """By instance id and public key, the peers, and what they are called."""
    peers: dict[int, dict[str, WireGuardPeer]] = {number: {} for number in ids}
    labels: dict[int, dict[str, dict[str, str]]] = {number: {} for number in ids}
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        networks: dict[str, tuple[str, ...]] = {}
        for peer_id, network in _rows(
            session,
            select(PeerAllowedIp.peer_id, PeerAllowedIp.network).where(PeerAllowedIp.instance_id.in_(some)),
        ):
            # The one form that others write in another way than wg: an IPv4 address within IPv6.
            if "." in network and ":" in network:
                network = check_allowed_ip(network, "allowed_ips")
            networks[peer_id] = (*networks[peer_id], network) if peer_id in networks else (network,)
        for peer_id, instance_id, name, key, preshared_key, keepalive in _rows(
            session,
            select(
                Peer.id,
                Peer.instance_id,
                Peer.name,
                Peer.public_key,
                type_coerce(Peer.preshared_key, Text),
                Peer.persistent_keepalive,
            ).where(Peer.instance_id.in_(some)),
        ):
            allowed = networks.get(peer_id, ())
            peers[instance_id][key] = WireGuardPeer(
                key,
                allowed if len(allowed) < 2 else tuple(sorted(allowed)),
                None if preshared_key is None else decrypted(preshared_key),
                keepalive,
            )
            labels[instance_id][key] = {"name": name, "peer_id": peer_id}
    return peers, labels


def _rows(session: Session, query: Executable) -> list[tuple[Any, ...]]:
    """The rows as the database's driver gives them, in a fifth of the time. For texts and numbers, which it gives as
    they are."""
    cursor: Any = session.connection().execute(query).cursor
    found: list[tuple[Any, ...]] = cursor.fetchall()
    return found
