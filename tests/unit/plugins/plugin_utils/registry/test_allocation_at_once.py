from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from collections import Counter

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.addresses import first_overlap
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import open_registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Node,
    Peer,
    PeerAllowedIp,
)
from tests.unit.plugins.plugin_utils.registry import allocate_at_once
from tests.unit.plugins.plugin_utils.registry.rows import add_node

CUSTOMERS = 50
PEERS = 3
# Pools that overlap: what is unique is so in the whole registry. The subnets that node1 takes are taken from node2's
# pool, so that this one is full before its share is reached; node4 is so by its limit.
NODES = {
    "node1": {"ip_pool_cidr": "10.8.0.0/16", "weight": 100},
    "node2": {"ip_pool_cidr": "10.8.0.0/20", "weight": 100},
    "node3": {"ip_pool_cidr": "10.9.0.0/16", "weight": 50},
    "node4": {"ip_pool_cidr": "10.9.0.0/16", "weight": 100, "max_peers": 5 * PEERS},
}  # fmt: skip


def test_fifty_customers_at_once_get_each_their_own(
    registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = open_registry(registry_url)
    with registry.write() as session:
        for name, fields in NODES.items():
            add_node(session, name, **fields)

    done = subprocess.run(
        [sys.executable, "-m", allocate_at_once.__name__, registry_url, str(CUSTOMERS), str(PEERS)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "")

    with registry.read() as session:
        instances = list(session.scalars(select(Instance)))
        networks = [
            (number, ipaddress.ip_network(text))
            for number, text in session.execute(select(PeerAllowedIp.instance_id, PeerAllowedIp.network))
        ]
        by_node = Counter(session.scalars(select(Node.name).join(Instance, Instance.node_id == Node.id)))
        assert session.scalar(select(func.count()).select_from(Peer)) == CUSTOMERS * PEERS
    registry.close()

    assert len(instances) == len({instance.id for instance in instances}) == CUSTOMERS
    assert len({(instance.node_id, instance.listen_port) for instance in instances}) == CUSTOMERS
    owned = [(text, one.interface) for one in instances for text in (one.subnet, one.subnet6)]
    assert len(owned) == 2 * CUSTOMERS
    assert first_overlap(owned) is None
    # One IPv4 and one IPv6 address each, all different, in their instance's subnets.
    assert len(networks) == len({network for _number, network in networks}) == 2 * CUSTOMERS * PEERS
    subnets = {
        one.id: (ipaddress.ip_network(one.subnet), ipaddress.ip_network(one.subnet6)) for one in instances
    }
    assert all(
        any(network.network_address in subnet for subnet in subnets[number]) for number, network in networks
    )
    # As if they had come one after the other.
    assert by_node == {"node1": 19, "node2": 16, "node3": 10, "node4": 5}
    # Nor is anything left out between them.
    ports: dict[str, set[int]] = {}
    for one in instances:
        ports.setdefault(one.node_id, set()).add(one.listen_port)
    assert all(found == set(range(51820, 51820 + len(found))) for found in ports.values())
