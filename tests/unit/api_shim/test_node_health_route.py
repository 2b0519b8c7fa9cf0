"""How a node is, over HTTP: whether it answers, and what the last looks have found."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, NodeCheck
from api_shim import reachability
from tests.unit.api_shim.edge import NODE, Edge
from tests.unit.plugins.plugin_utils.answering_server import Server, answering


@contextmanager
def server(*says: bytes, closes: bool = False) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for each in says:
                    connection.sendall(each)
                if not closes:
                    done.wait(5)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        done.set()


def health(edge: Edge, port: int) -> dict[str, Any]:
    with edge.registry.write() as session:
        node = session.get(Node, edge.node_id)
        assert node is not None
        node.ansible_host, node.ansible_port = "127.0.0.1", port
    answer = edge.call("GET", "/api/nodes/{node_id}/health", "read")
    assert answer.status_code == 200
    data: dict[str, Any] = answer.json()["data"]
    return data


def test_a_node_that_answers(edge: Edge) -> None:
    with server(b"hello\r\nSSH", b"-2.0-OpenSSH_9.6\r\n") as port:
        data = health(edge, port)
    assert set(data) == {
        "node_id", "name", "reachable", "error", "last_seen", "enabled", "instances", "peers", "checked_at",
        "last_check", "checks", "agent",
    }  # fmt: skip
    assert (data["reachable"], data["error"], data["instances"], data["peers"]) == (True, None, 1, 2)
    assert (data["last_check"], data["checks"], data["agent"]) == (None, [], None)
    assert f'vpnfleet_node_reachable{{node="{NODE}"}} 1.0' in edge.client.get("/metrics").text


def test_nodes_that_do_not(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability.unreachable, "__defaults__", (0.3,))
    with server(b"HTTP/1.1 400 Bad Request\r\n", closes=True) as port:
        assert health(edge, port)["error"] == "the connection ended before an SSH banner"
    with server(b"x" * 10000) as port:
        assert health(edge, port)["error"] == "what answers is no SSH server"
    with server() as port:
        assert health(edge, port)["error"] == "no answer within 0.3 s"
    data = health(edge, port)
    assert (data["reachable"], data["error"]) == (False, "connection refused")
    assert f'vpnfleet_node_reachable{{node="{NODE}"}} 0.0' in edge.client.get("/metrics").text


AGENT: dict[str, Any] = {
    "status": "ok",
    "time": 1700000000,
    "versions": {
        "agent": "1.2.3", "python": "3.11.2", "kernel": "6.1.0-13-amd64", "wireguard_tools": "1.0.20210914",
        "wireguard_module": "1.0.0", "wireguard_go": None,
    },
    "interface_count": 1,
    "interfaces": [
        {"name": "wg1", "up": True, "listen_port": 51820, "peers": 2, "latest_handshake": 1700000000}
    ],
}  # fmt: skip


def test_a_node_that_is_reached_by_its_agent(edge: Edge) -> None:
    """SSH has no part in it, and nothing tells the secret."""
    secret = "5ecre7" * 10
    told: list[str] = []
    for status, body, error in (
        (200, {**AGENT, "secret": secret}, None),
        (401, {"error": "the clock"}, "its agent refuses the signature: the clock"),
    ):
        agent = Server(answering(body, status))
        with edge.registry.write() as session:
            node = session.get_one(Node, edge.node_id)
            node.agent_url, node.agent_secret = agent.url, secret
        data = health(edge, 1)
        agent.close()
        assert (data["reachable"], data["error"]) == (error is None, error)
        assert data["agent"] == (None if error else {name: AGENT[name] for name in AGENT if name != "status"})
        assert agent.requests[0].startswith(b"GET /v1/health?nonce=")
        told.append(str(data))
    assert health(edge, 1)["error"] == "its agent does not answer: connection refused"
    told.append(edge.call("GET", "/api/nodes/{node_id}", "read").text)
    assert secret not in "".join(told)


def check(edge: Edge, **fields: Any) -> None:
    with edge.registry.write() as session:
        session.add(NodeCheck(node_id=edge.node_id, **{"kind": "drift", "state": "ok", **fields}))


def test_what_the_last_looks_have_found(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reachable(*_: object) -> reachability.Reached:
        return reachability.Reached(None)

    monkeypatch.setattr("api_shim.routes.node_health.reachability", reachable)
    for path in ("/api/nodes/{node_id}", "/api/nodes"):
        told = edge.call("GET", path, "read").json()["data"]
        assert (told if isinstance(told, dict) else told[0])["last_check"] is None
    at = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    for number in range(12):
        check(
            edge,
            at=at + timedelta(minutes=number),
            has_drift=bool(number),
            missing_count=number,
            mismatched_count=1 if number else 0,
            unknown_count=0,
            interface_count=0,
            milliseconds=700,
            operation_id=f"operation {number}",
        )
    check(edge, at=at + timedelta(hours=1), state="unreachable", error="it is down", kind="reconcile")
    last = {
        "at": "2026-01-15 11:30:00",
        "kind": "reconcile",
        "ok": False,
        "reachable": False,
        "has_drift": None,
        "total_issues": None,
        "error": "it is down",
    }
    data = edge.call("GET", "/api/nodes/{node_id}/health", "read").json()["data"]
    assert data["last_check"] == last
    assert len(data["checks"]) == 10
    assert {name: data["checks"][0][name] for name in last} == last
    assert data["checks"][1] == {
        "at": "2026-01-15 10:41:00",
        "kind": "drift",
        "ok": True,
        "reachable": True,
        "has_drift": True,
        "total_issues": 12,
        "error": None,
        "missing_count": 11,
        "mismatched_count": 1,
        "unknown_count": 0,
        "interface_count": 0,
        "milliseconds": 700,
        "operation_id": "operation 11",
    }
    assert edge.call("GET", "/api/nodes/{node_id}").json()["data"]["last_check"] == last
    assert [one["last_check"] for one in edge.call("GET", "/api/nodes").json()["data"]] == [last]
    assert edge.call("PUT", "/api/nodes/{node_id}", json={"weight": 7}).json()["data"]["last_check"] == last
    for many, count in ((0, 0), (1, 1), (100, 13)):
        told = edge.call("GET", f"/api/nodes/{{node_id}}/health?checks={many}").json()["data"]
        assert (len(told["checks"]), told["last_check"]) == (count, last)
    for wrong in ("checks=101", "checks=-1", "checks=1.5", "checks=many", "check=1"):
        assert edge.call("GET", f"/api/nodes/{{node_id}}/health?{wrong}").status_code == 400, wrong
