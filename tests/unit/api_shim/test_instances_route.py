"""Instances over HTTP."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.unit.api_shim.edge import INSTANCE, NODE, Edge
from tests.unit.api_shim.test_nodes_route import HOSTILE
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node


def test_one_in_full_and_without_secrets(edge: Edge) -> None:
    answer = edge.call("GET", "/api/instances/{name}", "read")
    found = answer.json()
    assert (found["name"], found["node"], found["node_id"]) == (INSTANCE, NODE, edge.node_id)
    assert found["endpoint"] == f"nl1.example.com:{found['listen_port']}"
    assert found["addresses"] == ["10.8.1.1/24", "fd00:8:0:1::1/64"]
    assert [(peer["name"], peer["allowed_ips"], peer["persistent_keepalive"]) for peer in found["peers"]] == [
        ("phone", ["10.8.1.2/32"], 25),
        ("router", ["10.8.1.3/32", "192.168.7.0/24"], 0),
    ]
    assert set(found["peers"][0]) == {"id", "name", "public_key", "allowed_ips", "persistent_keepalive"}
    for secret in edge.secrets:
        assert secret not in answer.text


def test_what_holds_for_its_devices(edge: Edge) -> None:
    names = ("dns", "mtu", "keepalive", "endpoint_allowed_ip")
    found = edge.call("GET", "/api/instances/{name}", "read").json()
    assert [found[name] for name in names] == [None, None, 25, "0.0.0.0/0, ::/0"]
    overrides = {"dns": "192.0.2.53", "mtu": 1380, "keepalive": 30, "endpoint_allowed_ip": "10.0.0.0/8"}
    asked = {f"override_{name}": value for name, value in overrides.items()}
    assert edge.call("PUT", "/api/nodes/{node_id}", json=asked).status_code == 200
    found = edge.call("GET", "/api/instances/{name}", "read").json()
    assert {name: found[name] for name in names} == overrides
    assert [peer["persistent_keepalive"] for peer in found["peers"]] == [25, 30]
    assert found["applied"] is False


def test_some_of_many(edge: Edge) -> None:
    with edge.registry.write() as session:
        other = add_node(session, "node2.example.com")
        for number in range(4):
            add_instance(session, other, name=f"b{number}@example.com")
        add_instance(session, other, name="a_b@example.com", state="disconnected")
        add_instance(session, other, name="axb@example.com")
        other_id = other.id

    def names(query: str) -> list[str]:
        answer = edge.call("GET", "/api/instances?" + query, "read").json()
        assert answer["total"] >= len(answer["instances"])
        return [each["name"].partition("@")[0] for each in answer["instances"]]

    assert sorted(names("")) == sorted(["a_b", "alice", "axb", "b0", "b1", "b2", "b3"])
    assert (
        names("node=" + NODE)
        == names("node=" + edge.node_id)
        == names("node=" + edge.node_id.upper())
        == ["alice"]
    )
    assert len(names("node=" + other_id)) == 6
    assert names("state=disconnected") == ["a_b"]
    assert names("name=b") == ["b0", "b1", "b2", "b3"]
    assert names("name=a_b") == ["a_b"]  # no wildcard
    assert names("name=%25") == []
    assert names("name=b&limit=2&offset=1") == ["b1", "b2"]
    assert names("name=b&state=disconnected") == []
    for wrong in (
        "state=gone",
        "name=",
        "name=a%00",
        "name='",
        "node=%7B%7B1%7D%7D",
        "limit=501",
        "sort=name",
        "name=" + "x" * 300,
    ):
        assert edge.call("GET", "/api/instances?" + wrong, "read").status_code == 400


@pytest.mark.parametrize(
    "text", [*HOSTILE[:-1], "nobody@example.com", "ALICE@example.com", "alice@example.com\x00"]
)
def test_what_is_no_instance_is_not_found(edge: Edge, text: str) -> None:
    before = edge.rows()
    answer = edge.client.get(
        f"/api/instances/{quote(text, safe='')}", headers={"X-API-Key": edge.keys["read"]}
    )
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert edge.rows() == before
