"""A registry with three nodes, and the nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from tests.postgres.opened import opened
from tests.unit.plugins.plugin_utils.registry.rows import add_node
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, SimulatedNode
from tests.unit.plugins.plugin_utils.registry.simulated_names import DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

NODES = {NL: "Netherlands", DE: "Germany", FR: "France"}


@pytest.fixture
def controller(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    """A fleet of three nodes without instances, each with a pool of its own; once on SQLite and once on PostgreSQL."""
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = opened(registry_url)
    with registry.write() as session:
        for number, (name, country) in enumerate(NODES.items(), 1):
            add_node(
                session,
                name,
                ip_pool_cidr=f"10.{number}.0.0/16",
                ip6_pool_cidr=f"fd00:{number}::/48",
                country=country,
                dns_name=f"vpn-{name}",
            )
    yield Controller(registry, SimulatedFleet({name: SimulatedNode() for name in NODES}))
    registry.close()
