"""Operations over HTTP: waiting and not, repeating, planning, following, cancelling."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Node,
    Operation,
)
from api_shim.schedule import ACTOR
from tests.contract.server import Server, served
from tests.e2e import registry_fleet
from tests.e2e.broken_tools import GO, WAIT, stand_ins, waiting
from tests.e2e.registry_fleet import RegistryFleet, names_of
from tests.e2e.waiting import wait_for
from tests.e2e.wireguard_keys import public_key

lab = registry_fleet.lab
fleet = registry_fleet.fleet


@pytest.fixture(scope="module")
def server(fleet: RegistryFleet) -> Iterator[Server]:
    with served(fleet, fleet.folder, wait_seconds="60") as server:
        yield server


def disconnect(client: httpx.Client, name: str, **options: Any) -> httpx.Response:
    return client.post("/api/disconnect_instance/", json={"email": name}, **options)


def provision(client: httpx.Client, name: str, node: str | None = None) -> dict[str, Any]:
    body = {"name": name, "peers": [{"name": "phone"}], **({"node": node} if node else {})}
    response = client.post("/api/instances", json=body)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def test_an_instance_is_made_and_made_again(server: Server, fleet: RegistryFleet) -> None:
    (name,) = names_of("new")
    with server.client("ops") as client:
        told = provision(client, name)
        assert fleet.places(told["interface"]) == {told["node"]: "up"}
        again = client.post("/api/instances", json={"name": name})
        assert (again.status_code, again.json()["changed"]) == (200, False)
        elsewhere = next(node for node in fleet.nodes if node != told["node"])
        refused = client.post("/api/instances", json={"name": name, "node": elsewhere})
        assert refused.status_code == 409
        assert refused.headers["content-type"] == "application/problem+json"
        assert "transfer" in refused.json()["detail"]
        seen = client.get(f"/api/instances/{name}")
        assert seen.status_code == 200
        assert "private_key" not in seen.text


def test_not_waiting(server: Server) -> None:
    (name,) = names_of("patient")
    with server.client("ops") as client:
        provision(client, name)
        answer = disconnect(client, name, headers={"Prefer": "respond-async, wait=10"})
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "respond-async"
        where = answer.headers["location"]
        assert where == f"/api/operations/{answer.json()['operation_id']}"
        assert answer.json()["status"] == "accepted"
        ended = server.ended(answer.json()["operation_id"])
        assert (ended["state"], ended["kind"], ended["instance"]) == ("succeeded", "disconnect", name)
        assert ended["requested_by"] == "api:test-ops"
        assert ended["result"]["code"] == 200


def test_repeating_with_a_key(server: Server, fleet: RegistryFleet) -> None:
    (name,) = names_of("repeated")
    headers = {"Idempotency-Key": "bill-0001"}
    with server.client("ops") as client, server.client("billing") as other:
        told = provision(client, name, "node1")
        node = fleet.nodes["node1"]
        with stand_ins(node):
            node.run(["sh", "-c", WAIT])
            answers: list[httpx.Response] = []
            first = threading.Thread(target=lambda: answers.append(disconnect(client, name, headers=headers)))
            first.start()
            wait_for(node, waiting(1))
            with server.client("ops") as second:
                running = disconnect(second, name, headers=headers)
            node.run(["sh", "-c", GO])
            first.join()
        (answer,) = answers
        assert running.status_code == 409
        assert running.json()["status"] == "error"
        assert answer.status_code == 200

        before = len(fleet.operations(name))
        replayed = disconnect(client, name, headers=headers)
        assert (replayed.status_code, replayed.json()) == (200, answer.json())
        mistaken = client.post(
            "/api/disconnect_instance/", json={"email": "else@example.com"}, headers=headers
        )
        assert mistaken.status_code == 422
        assert len(fleet.operations(name)) == before
        # Somebody else's key of the same name is another one; the work is found done.
        theirs = disconnect(other, name, headers=headers)
        assert theirs.status_code == 200
        assert "already" in theirs.json()["message"]
        assert len(fleet.operations(name)) == before + 1
    assert fleet.places(told["interface"]) == {}


def test_planning(server: Server, fleet: RegistryFleet) -> None:
    """A dry run of each changing call tells its plan, and neither nodes nor desired state change."""
    (name,) = names_of("planned")
    with server.client("ops") as client:
        provision(client, name, "node1")
        nodes = fleet.states()
        with fleet.read() as session:
            node_id = session.scalars(select(Node.id).where(Node.name == "node1")).one()
        before = desired(fleet)
        plans = {
            "disconnect": disconnect(client, name, params={"dry_run": "true"}),
            "remove": client.post(
                "/remove_instances/", json={"body": {"instance": name}}, params={"dry_run": "true"}
            ),
            "transfer": client.post(
                "/api/transfer_instance/",
                json={"email": name, "server_id": "node2"},
                params={"dry_run": "true"},
            ),
            "provision": client.post(
                "/api/instances", json={"name": "else@example.com"}, params={"dry_run": "true"}
            ),
            "reconcile": client.post(
                f"/api/drift/nodes/{node_id}/reconcile", json={}, params={"dry_run": "true"}
            ),
        }
        for kind, answer in plans.items():
            assert answer.status_code == 200, (kind, answer.text)
            body = answer.json()
            assert body["dry_run"] is True
            assert body["plan"]["status"] == "planned"
            assert body["plan"]["operation"] == kind
            assert body["message"].startswith("Would be: ")
        unknown = disconnect(client, "nobody@example.com", params={"dry_run": "true"})
        assert unknown.status_code == 404
        misspelled = disconnect(client, name, params={"dryrun": "true"})
        assert misspelled.status_code == 400
    assert fleet.states() == nodes
    assert desired(fleet) == before


def desired(fleet: RegistryFleet) -> dict[str, Any]:
    """What should be, without the record of what was asked."""
    history = ("operation", "operation_event", "idempotency_key", "audit_entry", "api_key")
    found = {table: rows for table, rows in fleet.tables().items() if table not in history}
    with fleet.read() as session:
        # When a node was last seen is no desire.
        found["node"] = sorted((node.id, node.name, node.enabled) for node in session.scalars(select(Node)))
    return found


def test_following(server: Server) -> None:
    """From the start, and from the middle by the id of the last event seen."""
    (name,) = names_of("followed")
    with server.client("ops") as client:
        provision(client, name)
        number = disconnect(client, name, headers={"Prefer": "respond-async"}).json()["operation_id"]
        events = list(followed(client, number))
        assert [one["event"] for one in events][-1] == "succeeded"
        steps = [one for one in events if one["event"] == "progress"]
        assert {one["data"]["step"] for one in steps} == {"started", "done"}
        assert [int(one["id"]) for one in steps] == sorted({int(one["id"]) for one in steps})
        middle = steps[len(steps) // 2]["id"]
        rest = list(followed(client, number, {"Last-Event-ID": middle}))
        seen = [one["id"] for one in steps if int(one["id"]) > int(middle)]
        # The last steps of a run may be written when the operation has ended already.
        assert [one["id"] for one in rest if one["event"] == "progress"][: len(seen)] == seen
        assert rest[-1]["event"] == "succeeded"
        assert (
            client.get(f"/api/operations/{number}/events", headers={"Last-Event-ID": "x"}).status_code == 400
        )
        assert client.get("/api/operations/nothing/events").status_code == 404


def followed(
    client: httpx.Client, number: str, headers: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    with client.stream("GET", f"/api/operations/{number}/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        one: dict[str, Any] = {}
        for line in stream.iter_lines():
            if not line:
                if one:
                    yield one
                one = {}
            elif not line.startswith(":"):
                field, _, value = line.partition(": ")
                one[field] = json.loads(value) if field == "data" else value


def test_cancelling_what_waits_and_what_runs(server: Server, fleet: RegistryFleet) -> None:
    """No process is left, and a transfer that was half-way is undone."""
    moving, queued = names_of("moving", "queued")
    target = fleet.nodes["node2"]
    with server.client("ops") as client:
        told = provision(client, moving, "node1")
        provision(client, queued, "node1")
        asynchronous = {"Prefer": "respond-async"}
        with stand_ins(target):
            target.run(["sh", "-c", WAIT])
            body = {"email": moving, "server_id": "node2"}
            number = client.post("/api/transfer_instance/", json=body, headers=asynchronous).json()[
                "operation_id"
            ]
            wait_for(target, waiting(1))
            behind = disconnect(client, moving, headers=asynchronous).json()["operation_id"]
            answer = client.post(f"/api/operations/{behind}/cancel")
            assert (answer.status_code, answer.json()["state"]) == (202, "canceled")
            answer = client.post(f"/api/operations/{number}/cancel")
            assert answer.status_code == 202
            target.run(["sh", "-c", GO])
            ended = server.ended(number)
        assert ended["state"] == "canceled"
        assert ended["error"] == "canceled by api:test-ops"
        assert client.post(f"/api/operations/{number}/cancel").status_code == 409
        deadline = time.monotonic() + 300
        while fleet.unfinished() or fleet.teardowns():
            assert time.monotonic() < deadline, (fleet.unfinished(), fleet.teardowns())
            time.sleep(0.2)
        assert fleet.places(told["interface"]) == {"node1": "up"}
        assert fleet.node_of(moving) == "node1"
    with fleet.read() as session:
        entries = select(AuditEntry).where(AuditEntry.operation_id == number).order_by(AuditEntry.id)
        audited = [(one.actor, one.action, one.result) for one in session.scalars(entries)]
        assert audited == [("api:test-ops", "cancel", "accepted"), ("api:test-ops", "transfer", "canceled")]
        # A plan of an earlier test is one without a node.
        repairs = select(Operation.requested_by).where(
            Operation.kind == "reconcile", Operation.node_id.is_not(None)
        )
        assert set(session.scalars(repairs)) == {"api:test-ops"}


@pytest.mark.parametrize("tail", ["/{node_id}", ""])
def test_ten_looks_at_once_make_one_run(server: Server, fleet: RegistryFleet, tail: str) -> None:
    """And each of them has its operation and its line in the audit."""
    server.key("ops")
    with fleet.read() as session:
        node_id = session.scalars(select(Node.id).where(Node.name == "node1")).one()
        before = set(session.scalars(select(AuditEntry.id)))
        rows = set(session.scalars(select(Operation.id)))
    at_once = threading.Barrier(10)

    def look() -> httpx.Response:
        with server.client("ops") as client:
            client.get("/healthz")
            at_once.wait(60)
            return client.get(f"/api/drift/nodes{tail}".format(node_id=node_id))

    with server.client("ops") as client:
        began = drift_runs(client)
        with ThreadPoolExecutor(10) as pool:
            answers = [one.result() for one in [pool.submit(look) for _ in range(10)]]
        assert drift_runs(client) == began + 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    places = {answer.headers["location"] for answer in answers}
    assert len(places) == 10
    nodes = len(fleet.nodes) if not tail else 1
    with fleet.read() as session:
        made = [one for one in session.scalars(select(Operation)) if one.id not in rows]
        assert len([one for one in made if one.node_id is not None]) == nodes
        looks = {one.id for one in made if one.node_id is None}
        assert places == {f"/api/operations/{number}" for number in looks}
        entries = [one for one in session.scalars(select(AuditEntry)) if one.id not in before]
    assert {(one.actor, one.action, one.result) for one in entries} == {("api:test-ops", "drift", "success")}
    assert len(entries) == 9 + nodes


def drift_runs(client: httpx.Client) -> float:
    """How many runs of the drift playbook have ended."""
    told = client.get("/metrics").text
    return sum(
        float(line.rpartition(" ")[2])
        for line in told.splitlines()
        if line.startswith('vpnfleet_runs_total{playbook="drift"')
    )


@pytest.mark.parametrize("fleet", ["sqlite"], indirect=True)
def test_a_node_that_hangs_is_an_error_while_its_callers_wait(server: Server, fleet: RegistryFleet) -> None:
    """It accepts connections and never answers; the others have their result."""
    with fleet.read() as session:
        nodes = {node.name: node.id for node in session.scalars(select(Node))}
    fleet.nodes["node2"].freeze()
    try:
        with server.client("ops") as client, ThreadPoolExecutor(1) as pool:
            one = pool.submit(client.get, f"/api/drift/nodes/{nodes['node2']}")
            everywhere = client.get("/api/drift/nodes")
            alone = one.result()
    finally:
        fleet.nodes["node2"].thaw()
    assert everywhere.status_code == 200, everywhere.text
    found = everywhere.json()["data"]["nodes"]
    assert set(found) == set(nodes.values())
    assert [number for number, told in found.items() if "error" in told] == [nodes["node2"]]
    assert "node node2 cannot be reached: " in found[nodes["node2"]]["error"]
    assert {found[nodes[name]]["has_drift"] for name in ("node1", "node3")} == {False}
    assert (alone.status_code, alone.json()["status"]) == (500, False)
    assert "node node2 cannot be reached: " in alone.json()["message"]
    with fleet.read() as session:
        limits = {
            one.request.get("timeout") for one in session.scalars(select(Operation)) if one.kind == "drift"
        }
    assert limits == {5}


@pytest.mark.parametrize("fleet", ["sqlite"], indirect=True)
def test_the_fleet_is_looked_at_by_schedule_only_if_it_is_set(
    server: Server, fleet: RegistryFleet, tmp_path: Path
) -> None:
    def scheduled() -> list[str]:
        with fleet.read() as session:
            asked = select(Operation).where(Operation.requested_by == ACTOR)
            return [one.state for one in session.scalars(asked)]

    assert server.process is not None
    assert scheduled() == []
    with served(fleet, tmp_path, drift_interval="1") as another:
        deadline = time.monotonic() + 120
        while "succeeded" not in scheduled():
            assert time.monotonic() < deadline, scheduled()
            time.sleep(0.2)
        with another.client("read") as client:
            assert "vpnfleet_fleet_check_timestamp_seconds 1." in client.get("/metrics").text


@pytest.mark.parametrize("fleet", ["sqlite"], indirect=True)
def test_a_repair_removes_no_more_than_it_may(server: Server, fleet: RegistryFleet) -> None:
    """And puts in place what is missing all the same."""
    (name,) = names_of("fused")
    node = fleet.nodes["node1"]
    with server.client("ops") as client:
        told = provision(client, name, "node1")
        with fleet.read() as session:
            node_id = session.scalars(select(Node.id).where(Node.name == "node1")).one()
        ours, unknown = told["peers"][0]["public_key"], public_key("unknown")
        wg = ("wg", "set", told["interface"])
        node.run([*wg, "peer", unknown, "allowed-ips", "10.99.0.1/32", "peer", ours, "remove"])
        place = f"/api/drift/nodes/{node_id}/reconcile"
        for wrong in (-1, "5", 2**31):
            answer = client.post(place, json={"max_removals": wrong})
            assert answer.status_code == 400, answer.text
        answer = client.post(place, json={"remove_unknown": True, "max_removals": 0})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] is True
        assert answer.json()["message"].endswith("1 errors")
        data = answer.json()["data"]
        assert (data["added"], data["updated"], data["removed"]) == ([ours], [], [])
        assert [(one["peer"], one["action"]) for one in data["errors"]] == [("", "remove")]
        assert "set max_removals to 1" in data["errors"][0]["error"]
        running = node.run(["wg", "show", told["interface"], "peers"]).stdout.split()
        assert sorted(running) == sorted([ours, unknown])
        answer = client.post(place, json={"remove_unknown": True, "max_removals": 1})
        assert answer.json()["data"] | {"errors": []} == answer.json()["data"]
        assert answer.json()["data"]["removed"] == [unknown]
        assert node.run(["wg", "show", told["interface"], "peers"]).stdout.split() == [ours]


def test_an_unreachable_node(server: Server, fleet: RegistryFleet) -> None:
    """disconnect: 500, and done when the node is back. remove: 207 with the rows gone."""
    down, gone = names_of("on-dead", "gone-from-dead")
    with server.client("ops") as client:
        told = {name: provision(client, name, "node3") for name in (down, gone)}
        fleet.nodes["node3"].kill()
        answer = disconnect(client, down)
        assert (answer.status_code, answer.json()["status"]) == (500, "error")
        assert "node node3 cannot be reached" in answer.json()["message"]
        answer = client.post("/remove_instances/", json={"body": {"instance": gone}})
        assert (answer.status_code, answer.json()["status"]) == (207, "partial_success")
        assert fleet.instance(gone) is None
        with fleet.read() as session:
            node_id = session.scalars(select(Node.id).where(Node.name == "node3")).one()
        answer = client.get(f"/api/drift/nodes/{node_id}")
        assert (answer.status_code, answer.json()["status"]) == (500, False)
        answer = client.get("/api/drift/nodes")
        assert answer.status_code == 200
        nodes = answer.json()["data"]["nodes"]
        assert "cannot be reached" in nodes[node_id]["error"]
        assert [one["reachable"] for one in nodes.values() if "error" in one] == [False]
        assert nodes[node_id]["last_seen"] is not None
        assert answer.json()["data"]["summary"]["unreachable_nodes"] == 1
        health = client.get(f"/api/nodes/{node_id}/health", params={"checks": 1}).json()["data"]
        assert (health["reachable"], health["last_check"]["reachable"]) == (False, False)
        assert health["last_check"]["error"]
        assert [one["kind"] for one in health["checks"]] == ["drift"]
        metrics = client.get("/metrics").text
        assert 'vpnfleet_node_check_reachable{node="node3"} 0.0' in metrics
        assert 'vpnfleet_node_drift{node="node3"}' not in metrics
        assert [one for one in nodes.values() if "error" not in one] != []
        fleet.nodes["node3"].boot()
        deadline = time.monotonic() + 300
        while fleet.unfinished():
            assert time.monotonic() < deadline, fleet.unfinished()
            time.sleep(0.5)
        for one in told.values():
            assert fleet.places(one["interface"]) == {}
        assert fleet.teardowns() == []
