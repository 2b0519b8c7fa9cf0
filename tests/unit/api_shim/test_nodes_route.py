"""Nodes over HTTP."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node
from tests.unit.api_shim.edge import INSTANCE, NOBODY, NODE, Edge
from tests.unit.plugins.plugin_utils.registry.rows import add_node, add_teardown

NEW = {"name": "node2.example.com", "ip_pool_cidr": "10.9.0.0/16"}
# The fields of the seed's example.
SEED = {
    "id", "name", "agent_url", "wg_interface", "endpoint", "ip_pool_cidr", "enabled", "weight", "max_peers",
    "override_listen_port", "override_dns", "override_mtu", "override_keepalive", "override_endpoint_allowed_ip",
    "last_seen", "created_at", "updated_at",
}  # fmt: skip
HOSTILE = [
    "{{ lookup('pipe', 'id') }}",
    "{% raw %}",
    "$(reboot)",
    "`id`",
    "a; rm -rf /",
    "' OR '1'='1",
    "x'); DROP TABLE node; --",
    "../../etc/passwd",
    "/etc/passwd",
    "-oProxyCommand=id",
    "a\nb",
    "a\r\nSet-Cookie: x",
    "\u202egro.elpmaxe",
    "ｎode1.example.com",
    "nodе1.example.com",  # a Cyrillic letter
    "a\u200bb.example.com",
    "all",
    "localhost",
    "*",
    "node1.example.com ",
    "<script>alert(1)</script>",
    "%s%n",
    "x" * 1_000_000,
]


def test_a_letter_that_is_escaped_is_a_letter(edge: Edge) -> None:
    answer = edge.call("PUT", "/api/nodes/{node_id}", content=b'{"country": "\\u00d6sterreich"}')
    assert answer.json()["data"]["country"] == "Österreich"
    assert edge.call("GET", "/api/nodes/{node_id}").json()["data"]["country"] == "Österreich"


def test_the_seeds_update(edge: Edge) -> None:
    body = {
        "name": NODE,
        "agent_url": "http://node1.example.com:8080",
        "wg_interface": "wg0",
        "endpoint": "node1.example.com:51820",
        "ip_pool_cidr": "10.8.0.0/16",
        "enabled": True,
        "weight": 100,
        "max_peers": 100,
        "override_listen_port": 51821,
        "override_dns": "8.8.8.8",
        "override_mtu": 1380,
        "override_keepalive": 30,
        "override_endpoint_allowed_ip": "0.0.0.0/0,::/0",
    }
    answer = edge.call("PUT", "/api/nodes/{node_id}", json=body)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["message"]) == (True, "Node updated successfully")
    assert set(told["data"]) >= SEED
    assert {name: told["data"][name] for name in body} == body
    assert told["data"]["id"] == edge.node_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told["data"]["updated_at"])
    assert told["data"]["last_seen"] is None
    (row,) = edge.audit()
    assert (row.actor, row.action, row.subject, row.result) == ("api:ops", "node updated", NODE, "success")
    assert row.details["fields"]["override_mtu"] == {"before": None, "after": 1380}


def test_what_is_not_said_stays_and_null_is_the_default(edge: Edge) -> None:
    edge.call("PUT", "/api/nodes/{node_id}", json={"override_mtu": 1380, "weight": 7, "country": "Malta"})
    answer = edge.call("PUT", "/api/nodes/{node_id}", json={"override_mtu": None, "weight": None})
    data = answer.json()["data"]
    assert (data["override_mtu"], data["weight"], data["country"]) == (None, 100, "Malta")
    before = edge.rows()
    assert edge.call("PUT", "/api/nodes/{node_id}", json={}).json()["data"] == data
    assert edge.call("PUT", "/api/nodes/{node_id}", json={"country": "Malta"}).status_code == 200
    assert edge.rows() == before


def test_a_node_is_made_looked_at_and_taken_away(edge: Edge) -> None:
    answer = edge.call("POST", "/api/nodes/", json=NEW)
    assert answer.status_code == 201
    data = answer.json()["data"]
    where = answer.headers["Location"]
    assert where == f"/api/nodes/{data['id']}"
    assert edge.call("GET", where, "read").json()["data"] == data
    assert edge.call("GET", where.upper().replace("/API/NODES", "/api/nodes"), "read").json()["data"] == data
    assert [each["name"] for each in edge.call("GET", "/api/nodes", "read").json()["data"]] == [
        NODE,
        NEW["name"],
    ]
    assert edge.call("POST", "/api/nodes", json=NEW | {"weight": 5}).status_code == 409
    assert edge.call("POST", "/api/nodes", json=NEW).status_code == 409
    assert edge.call("POST", "/api/nodes", json=NEW | {"name": "NODE2.example.com"}).status_code == 409
    answer = edge.call("DELETE", where)
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": True, "message": "Node deleted successfully"},
    )
    for method in ("GET", "DELETE"):
        assert edge.call(method, where).json() == {"status": False, "message": "Node not found"}
    assert [(row.action, row.details.get("code")) for row in edge.audit()] == [
        ("node created", None),
        *[("api call", 409)] * 3,
        ("node removed", None),
        ("api call", 404),
    ]
    refused = edge.audit()[1]
    assert (refused.actor, refused.subject, refused.result) == ("api:ops", "POST /api/nodes", "refused")
    assert "is in the registry already" in refused.details["message"]


def test_the_same_call_with_a_key_is_answered_as_it_was(edge: Edge) -> None:
    def call(method: str, path: str, key: str, **more: Any) -> Any:
        answer = edge.call(method, path, headers={"Idempotency-Key": key}, **more)
        return answer.status_code, answer.json(), answer.headers.get("Location")

    made = call("POST", "/api/nodes", "a", json=NEW)
    assert made[0] == 201
    assert call("POST", "/api/nodes", "a", json=NEW) == made
    assert call("POST", "/api/nodes", "a", json=NEW | {"weight": 5})[0] == 422
    assert call("POST", "/api/nodes", "b", json=NEW)[0] == 409
    where = made[2]
    changed = call("PUT", where, "c", json={"weight": 5})
    edge.call("PUT", where, json={"weight": 6})
    assert call("PUT", where, "c", json={"weight": 5}) == changed
    assert edge.call("GET", where).json()["data"]["weight"] == 6
    plan = call("DELETE", f"{where}?dry_run=true", "d")
    assert call("DELETE", f"{where}?dry_run=true", "d") == plan
    removed = call("DELETE", where, "e")
    assert removed[0] == 200
    assert call("DELETE", where, "e") == removed


def test_the_registrys_rules_hold(edge: Edge) -> None:
    before = edge.rows(audit=False)
    answer = edge.call("DELETE", "/api/nodes/{node_id}")
    assert answer.status_code == 409
    assert INSTANCE in answer.json()["message"]
    assert edge.call("PUT", "/api/nodes/{node_id}", json={"ip_pool_cidr": "10.99.0.0/16"}).status_code == 409
    answer = edge.call("PUT", "/api/nodes/{node_id}", json={"name": "other.example.com", "weight": 1})
    assert answer.status_code == 409
    assert "not renamed" in answer.json()["message"]
    assert edge.rows(audit=False) == before


@pytest.mark.parametrize("path", ["/api/nodes?dry_run=true", "/api/nodes/{node_id}?dry_run=true"])
def test_a_dry_run_answers_what_would_be_and_changes_nothing(edge: Edge, path: str) -> None:
    before = edge.rows()
    if "{" not in path:
        answer = edge.call("POST", path, json=NEW)
        assert answer.status_code == 200
        assert "Location" not in answer.headers
        assert answer.json()["data"]["name"] == NEW["name"]
        assert edge.call("POST", path, json=NEW | {"name": NODE}).status_code == 409
    else:
        answer = edge.call("PUT", path, json={"weight": 3})
        assert answer.json()["data"]["weight"] == 3
        assert edge.call("DELETE", path).status_code == 409
        assert edge.call("PUT", path, json={"weight": -3}).status_code == 400
    assert answer.json()["dry_run"] is True
    assert edge.rows() == before
    # Misspelled, it must not be done for real.
    for wrong in ("dryrun=true", "dry_run=yes", "dry_run=", "dry_run=1", "Dry_Run=true"):
        assert edge.call("PUT", "/api/nodes/{node_id}?" + wrong, json={"weight": 3}).status_code == 400
        assert edge.call("POST", "/api/nodes?" + wrong, json=NEW).status_code == 400
    assert edge.rows() == before


def test_a_dry_run_of_a_removal(edge: Edge) -> None:
    where = edge.call("POST", "/api/nodes", json=NEW).headers["Location"]
    before = edge.rows()
    answer = edge.call("DELETE", where + "?dry_run=true")
    assert answer.json() == {
        "status": True,
        "message": "Would be: Node deleted successfully",
        "dry_run": True,
    }
    assert edge.rows() == before


def test_a_node_whose_machine_is_lost(edge: Edge) -> None:
    where = edge.call("POST", "/api/nodes", json=NEW).headers["Location"]
    with edge.registry.write() as session:
        node = session.scalars(select(Node).where(Node.name == NEW["name"])).one()
        add_teardown(session, node, interface="wg7", instance_name=INSTANCE)
    assert edge.call("DELETE", where).status_code == 409
    assert edge.call("DELETE", where + "?lost=false").status_code == 409
    assert edge.call("DELETE", where + "?lost=1").status_code == 400
    before = edge.rows()
    assert edge.call("DELETE", where + "?lost=true&dry_run=true").status_code == 200
    assert edge.rows() == before
    assert edge.call("DELETE", where + "?lost=true").status_code == 200
    assert edge.call("GET", where).status_code == 404
    assert edge.audit()[-1].details["forgotten"] == [f"wg7 of {INSTANCE}"]
    # What lives there is not forgotten.
    assert edge.call("DELETE", "/api/nodes/{node_id}?lost=true").status_code == 409


def test_a_long_list_comes_in_parts(edge: Edge) -> None:
    with edge.registry.write() as session:
        for number in range(5):
            add_node(session, f"x{number}.example.com")
    seen = []
    for offset in (0, 2, 4, 6):
        told = edge.call("GET", f"/api/nodes?limit=2&offset={offset}", "read").json()
        assert (told["total"], told["limit"], told["offset"]) == (6, 2, offset)
        seen += [each["name"] for each in told["data"]]
    assert seen == [NODE, *(f"x{number}.example.com" for number in range(5))]
    for wrong in (
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1.0",
        "limit=+1",
        "limit=x",
        "offset=-1",
        "offset=99999999999999999999",
        "page=2",
    ):
        assert edge.call("GET", "/api/nodes?" + wrong, "read").status_code == 400


@pytest.mark.parametrize("text", HOSTILE, ids=[each[:12] for each in HOSTILE])
def test_hostile_texts_change_nothing(edge: Edge, text: str) -> None:
    before = edge.rows(audit=False)
    name: Any
    for name in ("name", "ansible_host", "ansible_user", "ansible_python_interpreter", "agent_url", "endpoint",
                 "wg_interface", "ip_pool_cidr", "ip6_pool_cidr", "override_dns",
                 "override_endpoint_allowed_ip", "weight", "enabled", "override_mtu", "ansible_port",
                 "max_peers"):  # fmt: skip
        if (name, text) in (("ansible_user", "all"), ("ansible_user", "localhost")) or (
            text in ("all", "localhost", "/etc/passwd")
            and name not in ("name", "weight", "enabled", "ip_pool_cidr")
        ):
            continue  # a user may be called so, a host too, and it may be the path of a program
        if name == "override_dns" and text == "node1.example.com ":
            continue  # blanks around lists are left out
        answer = edge.call("POST", "/api/nodes?dry_run=true", json=NEW | {name: text})
        assert answer.status_code == 400, (name, answer.text)
        assert len(answer.content) < 700
    edge.service.rate_limits = type(edge.service.rate_limits)({"rate_limit_node_update": ""})
    assert edge.call("PUT", "/api/nodes/{node_id}", json={text: 1}).status_code == 400
    if len(text) < 1000:
        for method in ("GET", "PUT", "DELETE"):
            answer = edge.client.request(
                method,
                f"/api/nodes/{quote(text, safe='')}",
                headers={"X-API-Key": edge.keys["ops"]},
                **({"json": {}} if method == "PUT" else {}),
            )
            assert answer.status_code == 404
            assert "application/json" in answer.headers["Content-Type"]
    assert edge.rows(audit=False) == before


@pytest.mark.parametrize(
    "node_id",
    [NOBODY, NODE, "1", "{" + NOBODY + "}", NOBODY.replace("-", ""), f"urn:uuid:{NOBODY}", "x" * 5000],
)
def test_what_is_no_node_is_not_found(edge: Edge, node_id: str) -> None:
    for method, tail in (("GET", ""), ("GET", "/health"), ("PUT", ""), ("DELETE", "")):
        answer = edge.client.request(
            method, f"/api/nodes/{node_id}{tail}", headers={"X-API-Key": edge.keys["ops"]},
            **({"json": {}} if method == "PUT" else {}),
        )  # fmt: skip
        assert (answer.status_code, answer.json()) == (404, {"status": False, "message": "Node not found"})
