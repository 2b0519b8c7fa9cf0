# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances as wg_instance takes them, out of what the registry says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.allocation import (
    addresses_of,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    CHUNK,
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.settings import (
    effective,
)


def load_instances(session: Session, ids: Sequence[int]) -> dict[int, Instance]:
    """Instances by id, with their private keys."""
    found: dict[int, Instance] = {}
    for start in range(0, len(ids), CHUNK):
        query = (
            select(Instance)
            .where(Instance.id.in_(ids[start : start + CHUNK]))
            .options(undefer(Instance.private_key))
        )
        found.update({instance.id: instance for instance in session.scalars(query)})
    return found


def peers_of(session: Session, ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The peers of instances, as wg_instance and wg_drift take them, with `name` and `peer_id`; by instance id.

    Two queries for any number of instances, on columns: objects would cost a second for ten thousand peers.
    """
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in ids}
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        networks: dict[str, list[str]] = {}
        for peer_id, network in session.execute(
            select(PeerAllowedIp.peer_id, PeerAllowedIp.network)
            .where(PeerAllowedIp.instance_id.in_(some))
            .order_by(PeerAllowedIp.id)
        ):
            networks.setdefault(peer_id, []).append(network)
        for row in session.execute(
            select(
                Peer.id,
                Peer.instance_id,
                Peer.name,
                Peer.public_key,
                Peer.preshared_key,
                Peer.persistent_keepalive,
            ).where(Peer.instance_id.in_(some))
        ):
            peer: dict[str, Any] = {
                "public_key": row.public_key,
                "allowed_ips": networks.get(row.id, []),
                "persistent_keepalive": row.persistent_keepalive,
                "name": row.name,
                "peer_id": row.id,
            }
            if row.preshared_key is not None:
                peer["preshared_key"] = row.preshared_key
            found[row.instance_id].append(peer)
    return found


def on_node(instance: Instance, node: Node, peers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The peers of an instance as `node` is to run them: those without a keepalive of their own have the instance's or
    the node's."""
    keepalive = effective(instance, node).peer_keepalive
    if not keepalive:
        return list(peers)
    return [
        peer if peer["persistent_keepalive"] else {**peer, "persistent_keepalive": keepalive}
        for peer in peers
    ]


def present(
    instance: Instance, node: Node, listen_port: int, peers: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """An instance up on `node`. Where it has not been up before, what has its name and another key is left alone."""
    settings = effective(instance, node)
    wanted: dict[str, Any] = {
        "name": instance.interface,
        "state": "present",
        "private_key": instance.private_key,
        "listen_port": listen_port,
        "addresses": list(addresses_of(instance.subnet, instance.subnet6)),
        "peers": on_node(instance, node, peers),
        "fwmark": 0,  # the registry knows of none
    }
    if settings.mtu is not None:
        wanted["mtu"] = settings.mtu
    if not instance.arrived or instance.node_id != node.id:
        wanted["public_key"] = instance.public_key
    return wanted


def disconnected(instance: Instance) -> dict[str, Any]:
    """An instance down on its node."""
    wanted: dict[str, Any] = {"name": instance.interface, "state": "disconnected"}
    if not instance.arrived:
        wanted["public_key"] = instance.public_key
    return wanted


def of_devices(instance: Instance, node: Node) -> dict[str, Any]:
    """What the configuration of an instance's devices on `node` has besides keys and addresses."""
    settings = effective(instance, node)
    return {
        "dns": settings.dns,
        "mtu": settings.mtu,
        "keepalive": settings.keepalive,
        "endpoint_allowed_ip": settings.endpoint_allowed_ip,
    }


def endpoint(instance: Instance, node: Node) -> str:
    """Where devices reach an instance: host:port."""
    host = node.endpoint or node.dns_name or node.ansible_host or node.name
    if host.startswith("["):
        host = host.partition("]")[0] + "]"
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    elif ":" in host:
        host = f"[{host}]"
    return f"{host}:{instance.listen_port}"
