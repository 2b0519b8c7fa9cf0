"""The calls of the systems that were there before, as their documents write them, against a server and real nodes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import License, Node, User
from tests.contract.server import Server, served
from tests.e2e import registry_fleet
from tests.e2e.registry_fleet import RegistryFleet, names_of

lab = registry_fleet.lab
fleet = registry_fleet.fleet

USER = "user@example.com"


@pytest.fixture(scope="module")
def server(fleet: RegistryFleet) -> Iterator[Server]:
    with served(fleet, fleet.folder, wait_seconds="60") as server:
        yield server


def curl(*arguments: str, data: Any = None) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of a call as a shell makes it."""
    body = ["--data", json.dumps(data)] if data is not None else []
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--include", "--max-time", "90", *arguments, *body],
        check=True,
        capture_output=True,
    )
    head, _, content = done.stdout.decode().partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    named = {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}
    return int(status.split()[1]), named, json.loads(content)


def test_a_customer_is_disconnected_and_transferred(server: Server, fleet: RegistryFleet) -> None:
    """As the portal does it: disconnect on the old node, then the new server."""
    fleet.provision({USER: "node1"})
    told = fleet.instance(USER)
    assert told is not None
    interface = told.interface
    with fleet.registry() as registry, registry.write() as session:
        session.query(License).filter(License.email == USER).update({"server": "node1.example.com"})
        node2 = session.query(Node).filter(Node.name == "node2").one()
        target = node2.id

    response = httpx.post(
        f"{server.url}/api/disconnect_instance/",
        json={"email": USER},
        headers={"X-API-Key": server.key("billing")},
        timeout=90,
    )
    assert (response.status_code, sorted(response.json())) == (200, ["instance_id", "message", "status"])
    assert response.json()["status"] == "success"
    assert response.json()["instance_id"] == told.id
    assert fleet.places(interface) == {}
    assert fleet.instance(USER) is not None

    again = curl(
        *("-X", "POST", f"{server.url}/api/transfer_instance/"),
        *("-H", f"X-API-Key: {server.key('billing')}", "-H", "Content-Type: application/json"),
        data={"email": USER, "server_id": target},
    )
    status, _headers, body = again
    assert (status, body["status"], body["updated_licenses"]) == (200, "success", 1)
    assert body["new_server"] == {"country": "Netherlands", "dns_name": "node2.example.com"}
    assert body["message"].startswith("Instance transferred successfully to Netherlands (node2.example.com).")
    assert set(body) == {"status", "message", "updated_licenses", "new_server"}
    with fleet.read() as session:
        (license_,) = session.query(License).filter(License.email == USER)
        assert license_.server == "node2.example.com"
    assert fleet.node_of(USER) == "node2"


def test_a_transfer_that_cannot_be(server: Server, fleet: RegistryFleet) -> None:
    (name,) = names_of("unlicensed")
    fleet.provision({name: "node1"})
    with fleet.registry() as registry, registry.write() as session:
        session.query(License).filter(License.email == name).update({"is_active": False})
    with server.client("billing") as client:
        answers = {
            "no server": client.post("/api/transfer_instance/", json={"email": name}),
            "unknown": client.post("/api/transfer_instance/", json={"email": name, "server_id": "node9"}),
            "number": client.post("/api/transfer_instance/", json={"email": name, "server_id": 7}),
            "license": client.post("/api/transfer_instance/", json={"email": name, "server_id": "node2"}),
            "method": client.get("/api/transfer_instance/"),
        }
    assert {what: (one.status_code, one.json()) for what, one in answers.items()} == {
        "no server": (400, {"error": "server_id: is needed"}),
        "unknown": (404, {"error": "Server not found"}),
        "number": (404, {"error": "Server not found"}),
        "license": (404, {"error": "No active licenses found"}),
        "method": (405, {"error": "POST method required"}),
    }
    assert fleet.node_of(name) == "node1"


def test_a_customer_is_removed(server: Server, fleet: RegistryFleet) -> None:
    (name,) = names_of("removed")
    told = fleet.provision({name: "node1"})[name]
    call = (
        *("-X", "POST", f"{server.url}/remove_instances/"),
        *("-H", f"x-api-key: {server.key('billing')}", "-H", "Content-Type: application/json"),
    )

    status, headers, body = curl(*call, data={"body": {"instance": name}})

    assert status == 200
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert (body["status"], body["message"]) == ("success", f"Removal completed for {name}")
    results = body["results"]
    assert results["instance_identifier"] == name
    assert [one["type"] for one in results["removed_items"]] == [
        "wireguard_instance",
        "peer_group",
        "user_acl",
        "user",
        "wireguard_configs",
    ]
    assert results["removed_items"][0]["peers_removed"] == 1
    assert results["removed_items"][1]["identifier"] == f"{name}_group"
    assert results["errors"] == []
    assert fleet.places(told["interface"]) == {}
    with fleet.read() as session:
        assert session.query(User).filter(User.email == name).all() == []

    status, _headers, body = curl(*call, data={"body": {"instance": name}})
    assert (status, body["status"], body["results"]["removed_items"]) == (207, "partial_success", [])
    assert body["results"]["errors"] == [
        f"WireGuard instance not found: {name}",
        f"Peer group not found: {name}_group",
        f"User not found: {name}",
    ]

    bodies: list[Any] = [{}, {"body": {}}, {"instance": name}, {"body": {"instance": 7}}, []]
    for wrong in bodies:
        status, _headers, body = curl(*call, data=wrong)
        assert (status, body["status"]) == (400, "error"), wrong
    status, _headers, body = curl(
        "-X", "POST", f"{server.url}/remove_instances/", data={"body": {"instance": name}}
    )
    assert (status, body["status"]) == (401, "error")


def test_drift_and_its_repair(server: Server, fleet: RegistryFleet) -> None:
    (name,) = names_of("drifting")
    told = fleet.provision({name: "node1"})[name]
    bearer = ("-H", f"Authorization: Bearer {server.key('ops')}")
    with fleet.read() as session:
        nodes = {node.name: node.id for node in session.query(Node)}
    base = f"{server.url}/api/drift/nodes"
    node = fleet.nodes["node1"]
    node.run(["wg", "set", told["interface"], "peer", told["peers"][0]["public_key"], "remove"])

    status, _headers, body = curl("-X", "GET", f"{base}/{nodes['node1']}", *bearer)
    assert (status, body["status"], body["message"]) == (200, True, "Drift detection completed")
    data = body["data"]
    assert (data["has_drift"], data["node_id"]) == (True, nodes["node1"])
    assert [one["public_key"] for one in data["missing_peers"]] == [told["peers"][0]["public_key"]]
    # The configuration file still has it: that is an issue of its own.
    assert (data["summary"]["missing_count"], data["summary"]["total_issues"]) == (1, 2)
    assert data["unknown_peers"] == data["mismatched_peers"] == []

    status, _headers, body = curl("-X", "GET", base, *bearer)
    assert (status, body["message"]) == (200, "Drift detection completed for all nodes")
    assert set(body["data"]["nodes"]) == set(nodes.values())
    assert body["data"]["summary"] == {
        "total_nodes": 3,
        "nodes_with_drift": 1,
        "total_issues": 2,
        "unreachable_nodes": 0,
    }

    status, _headers, body = curl(
        *(
            "-X",
            "POST",
            f"{base}/{nodes['node1']}/reconcile",
            *bearer,
            "-H",
            "Content-Type: application/json",
        ),
        data={"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": False},
    )
    assert (status, body["status"], body["message"]) == (200, True, "Added 1 peers, 0 errors")
    assert body["data"]["added"] == [told["peers"][0]["public_key"]]
    assert body["data"]["updated"] == body["data"]["removed"] == body["data"]["errors"] == []

    status, _headers, body = curl("-X", "GET", f"{base}/{nodes['node1']}", *bearer)
    assert (status, body["data"]["has_drift"]) == (200, False)
    status, _headers, body = curl("-X", "GET", f"{base}/abc-123-def", *bearer)
    assert (status, body) == (404, {"status": False, "message": "Node not found"})


def test_a_node_is_updated(server: Server, fleet: RegistryFleet) -> None:
    with fleet.read() as session:
        node = session.query(Node).filter(Node.name == "node3").one()
        before = {"ip_pool_cidr": node.ip_pool_cidr, "wg_interface": node.wg_interface}
    overrides = {
        "override_listen_port": 51821,
        "override_dns": "8.8.8.8",
        "override_mtu": 1380,
        "override_keepalive": 30,
        "override_endpoint_allowed_ip": "0.0.0.0/0,::/0",
    }
    asked = {
        "name": "node3",
        "agent_url": "http://node3.example.com:8080",
        "endpoint": "node3.example.com:51820",
        **before,
        "enabled": True,
        "weight": 100,
        "max_peers": 100,
        **overrides,
    }
    headers = (
        *("-H", f"Authorization: Bearer {server.key('ops')}"),
        *("-H", "Content-Type: application/json"),
    )
    put = ("-X", "PUT", f"{server.url}/api/nodes/{node.id}", *headers)
    status, _headers, body = curl(*put, data=asked)
    assert (status, body["status"], body["message"]) == (200, True, "Node updated successfully")
    assert body["data"].items() >= asked.items()
    assert body["data"].keys() >= {"id", "last_seen", "created_at", "updated_at"}
    status, _headers, body = curl(*put, data={"override_mtu": 1400, "override_dns": "1.1.1.1"})
    changed = {**asked, "override_mtu": 1400, "override_dns": "1.1.1.1"}
    assert body["data"].items() >= changed.items()
    status, _headers, body = curl(*put, data=dict.fromkeys((*overrides, "agent_url", "max_peers")))
    assert (status, body["data"]["override_mtu"]) == (200, None)
