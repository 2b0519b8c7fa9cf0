"""The application as the tests call it, and what is in its registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    ApiKey,
    AuditEntry,
    Base,
    now,
)
from api_shim import keys
from api_shim.application import create_app
from api_shim.service import Service
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node, add_peer, any_key

NODE = "node1.example.com"
INSTANCE = "alice@example.com"
NOBODY = "00000000-0000-4000-8000-000000000000"
#: Every path of the edge with a key, by method. `{node_id}` and `{name}` are filled in by `Edge.path`.
LOOKS = [
    "/api/nodes",
    "/api/nodes/{node_id}",
    "/api/nodes/{node_id}/health",
    "/api/instances",
    "/api/instances/{name}",
]
CHANGES = [("POST", "/api/nodes"), ("PUT", "/api/nodes/{node_id}"), ("DELETE", "/api/nodes/{node_id}")]
GUARDED = [*(("GET", path) for path in LOOKS), *CHANGES]


@dataclass
class Edge:
    """The application and its keys by name: ops, billing, read, expired, revoked, unknown."""

    app: FastAPI
    client: TestClient
    service: Service
    node_id: str
    keys: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)  # private and preshared keys in the registry

    @property
    def registry(self) -> Registry:
        """Its registry."""
        return self.service.registry

    def path(self, template: str) -> str:
        """A path of what is there."""
        return template.format(node_id=self.node_id, name=INSTANCE)

    def call(self, method: str, path: str, key: str | None = "ops", **more: Any) -> Any:
        """A call with the key of this name; None: without."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["X-API-Key"] = self.keys[key]
        return self.client.request(method, self.path(path), headers=headers, **more)

    def rows(self, audit: bool = True) -> dict[str, list[tuple[Any, ...]]]:
        """All that is in the registry, but for what says when keys were used; with or without the audit."""
        with self.registry.read() as session:
            return {
                table.name: sorted(
                    (
                        tuple(value for name, value in row._mapping.items() if name != "last_used_at")
                        for row in session.execute(select(table))
                    ),
                    key=repr,
                )
                for table in Base.metadata.sorted_tables
                if audit or table.name != "audit_entry"
            }

    def audit(self) -> list[AuditEntry]:
        """The audit, without how keys were made."""
        with self.registry.read() as session:
            return [
                row
                for row in session.scalars(select(AuditEntry).order_by(AuditEntry.id))
                if not row.action.startswith("api key")
            ]


def make_edge(service: Service) -> Edge:
    """The application with its keys, a node and an instance of two peers."""
    with service.registry.write() as session:
        made = {
            name: keys.create(session, name, [name], now() + timedelta(days=1), "tests")
            for name in keys.SCOPES
        }
        for name in ("expired", "revoked"):
            made[name] = keys.create(session, name, ["ops"], None, "tests")
        keys.revoke(session, "revoked", "tests")
        _key(session, "expired").expires_at = now() - timedelta(seconds=1)
        made["unknown"] = keys.PREFIX + "A" * 43
        node = add_node(session, NODE, ansible_host="192.0.2.1", dns_name="nl1.example.com")
        hidden = [any_key(), any_key(), any_key()]
        instance = add_instance(
            session,
            node,
            name=INSTANCE,
            private_key=hidden[0],
            subnet="10.8.1.0/24",
            subnet6="fd00:8:0:1::/64",
        )
        add_peer(
            session, instance, "10.8.1.2/32", name="phone", private_key=hidden[1], persistent_keepalive=25
        )
        add_peer(session, instance, "10.8.1.3/32", "192.168.7.0/24", name="router", preshared_key=hidden[2])
        node_id = node.id
    app = create_app(service)
    client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
    return Edge(app, client, service, node_id, made, hidden)


def _key(session: Session, name: str) -> ApiKey:
    return session.scalars(select(ApiKey).where(ApiKey.name == name)).one()
