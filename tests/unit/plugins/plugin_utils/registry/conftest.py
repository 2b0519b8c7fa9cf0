"""A registry with three nodes, and the nodes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import event

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    open_registry,
)
from tests.unit.plugins.plugin_utils.registry.rows import add_node
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import SimulatedFleet, SimulatedNode
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller
from tests.unit.plugins.plugin_utils.registry.snapshots import empty

NODES = {"nl1.example.com": "Netherlands", "de1.example.com": "Germany", "fr1.example.com": "France"}


@pytest.fixture(params=["sqlite", "postgresql"])
def controller(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Controller]:
    """A fleet of three nodes without instances, each with a pool of its own; once on SQLite and once on PostgreSQL."""
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_with_schema"), tmp_path / "registry.sqlite3")
        registry = open_registry(f"sqlite:///{tmp_path}/registry.sqlite3")
        # No test here is about a power cut.
        event.listen(registry.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF"))
    else:
        registry = open_registry(request.getfixturevalue("postgres_with_schema"))
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
    with registry.write() as session:
        empty(session)
    registry.close()
