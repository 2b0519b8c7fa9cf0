"""Rows for the registry's tests, with all that a test does not care about made up."""

from __future__ import annotations

import base64
import itertools
import os
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Base,
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
    Teardown,
    new_id,
    now,
)

_numbers = itertools.count(1)


def any_key() -> str:
    """What a key looks like."""
    return base64.b64encode(os.urandom(32)).decode()


def add_node(session: Session, name: str = "node1", **fields: Any) -> Node:
    """A node with pools for 256 instances of a /24 (fields: those of the model)."""
    node = Node(name=name, **{"ip_pool_cidr": "10.8.0.0/16", "ip6_pool_cidr": "fd00:8::/48"} | fields)
    session.add(node)
    session.flush()
    return node


def add_instance(session: Session, node: Node, peers: int = 0, **fields: Any) -> Instance:
    """An instance of a customer of its own, with so many peers without networks. Its port and its subnets are out of
    no node's pool."""
    number = next(_numbers)
    made_up = {
        "name": f"customer{number}@example.com",
        "listen_port": 10000 + number % 20000,
        "public_key": any_key(),
        "private_key": any_key(),
        "subnet": f"10.{224 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32",
        "subnet6": f"fd00:ac:{number >> 16:x}:{number & 65535:x}::/64",
    }
    instance = Instance(node=node, **made_up | fields)
    session.add(instance)
    session.flush()
    add_peers(session, instance, peers)
    return instance


def add_peers(session: Session, instance: Instance, count: int) -> None:
    """So many peers without networks, quickly."""
    rows = [{"id": new_id(), "instance_id": instance.id, "public_key": any_key()} for _ in range(count)]
    if rows:
        session.execute(insert(Peer), rows)


def an_instance(session: Session, subnet: str = "10.8.1.0/24", subnet6: str = "fd00:8:0:1::/64") -> Instance:
    """An instance on a node of its own."""
    return add_instance(session, add_node(session), subnet=subnet, subnet6=subnet6)


def add_peer(session: Session, instance: Instance, *networks: str, **fields: Any) -> Peer:
    """One peer with these networks."""
    peer = Peer(instance_id=instance.id, **{"public_key": any_key()} | fields)
    session.add(peer)
    session.flush()
    for text in networks:
        session.add(PeerAllowedIp(peer_id=peer.id, instance_id=instance.id, network=text))
    session.flush()
    return peer


def add_teardown(session: Session, node: Node, **fields: Any) -> Teardown:
    """What is left of some instance on a node."""
    number = next(_numbers)
    made_up = {
        "interface": f"wg{900000 + number}",
        "listen_port": 10000 + number % 20000,
        "subnet": f"10.{240 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32",
        "subnet6": f"fd00:ad:{number >> 16:x}:{number & 65535:x}::/64",
        "instance_name": f"customer{number}@example.com",
        "reason": "removed",
        "created_at": now(),
    }
    teardown = Teardown(node_id=node.id, **made_up | fields)
    session.add(teardown)
    session.flush()
    return teardown


def left_of(instance: Instance, reason: str) -> dict[str, Any]:
    """The fields of a teardown of this instance."""
    return {
        "interface": instance.interface,
        "subnet": instance.subnet,
        "subnet6": instance.subnet6,
        "instance_name": instance.name,
        "reason": reason,
    }


def stored(registry: Registry) -> dict[str, int]:
    """How many rows each table has."""
    with registry.read() as session:
        tables = Base.metadata.sorted_tables
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}
