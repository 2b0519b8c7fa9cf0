"""Nodes as they are written down, and what becomes of them in a registry."""

from __future__ import annotations

from typing import Any

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import (
    Change,
    apply_nodes,
    described,
    list_nodes,
)

EVERYTHING = {
    "name": "de1.example.com",
    "ansible_host": "192.0.2.11",
    "ansible_port": 2222,
    "ansible_user": "ops",
    "ansible_python_interpreter": "/usr/bin/python3.11",
    "agent_url": "https://de1.example.com:8443",
    "endpoint": "vpn.de1.example.com:51820",
    "wg_interface": "wg1",
    "ip_pool_cidr": "10.8.0.0/16",
    "ip6_pool_cidr": "fd00:8::/48",
    "enabled": False,
    "weight": 50,
    "max_peers": 1000,
    "country": "Germany",
    "dns_name": "de1.vpn.example.com",
    "override_listen_port": 40000,
    "override_dns": "10.8.0.1, example.com",
    "override_mtu": 1380,
    "override_keepalive": 30,
    "override_endpoint_allowed_ip": "0.0.0.0/0",
}
LEAST = {"name": "de1.example.com", "ip_pool_cidr": "10.8.0.0/16"}


def apply(registry: Registry, *wanted: Any) -> list[Change]:
    with registry.write() as session:
        return apply_nodes(session, wanted)


def all_of(registry: Registry) -> dict[str, dict[str, Any]]:
    with registry.read() as session:
        return {node.name: described(node) for node in list_nodes(session)}
