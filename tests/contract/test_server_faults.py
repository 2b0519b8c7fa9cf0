"""Servers that die, databases that restart, and replicas that share the work: every accepted operation ends once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Operation
from tests.contract.server import Server, served
from tests.e2e import registry_fleet
from tests.e2e.registry_fleet import RegistryFleet, registered
from tests.lab.fleet import Lab
from tests.postgres.server import PostgresServer

lab = registry_fleet.lab
fleet = registry_fleet.fleet

PATIENCE = 600.0
CUSTOMERS = 40


def wanted(names: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """100 calls: some customers go, some move, some are disconnected; the order of a customer's calls counts."""
    asked: list[tuple[str, dict[str, Any]]] = []
    for number, name in enumerate(names):
        if number % 4 == 0:
            asked.append(("/remove_instances/", {"body": {"instance": name}}))
        elif number % 4 == 1:
            asked.append(("/api/transfer_instance/", {"email": name, "server_id": f"node{number % 3 + 1}"}))
        else:
            asked.append(("/api/disconnect_instance/", {"email": name}))
    for number, name in enumerate(names):
        if number % 4 == 1:
            asked.append(("/api/transfer_instance/", {"email": name, "server_id": "node3"}))
        elif number % 4 == 2:
            asked.append(("/remove_instances/", {"body": {"instance": name}}))
        elif number % 4 == 3:
            asked.append(("/api/instances", {"name": name}))
    asked += [
        ("/api/instances", {"name": f"new-{number}@example.com", "peers": [{"name": "phone"}]})
        for number in range(100 - len(asked))
    ]
    return asked


def accepted(servers: list[Server], asked: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Post them all, each until it is accepted; returns the ids of the operations.

    A call whose answer was lost is repeated with its key: it must not become two operations.
    """
    found = []
    for number, (path, body) in enumerate(asked):
        headers = {"Prefer": "respond-async", "Idempotency-Key": f"call-{number}"}
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, (path, body)
            server = servers[number % len(servers)]
            try:
                with server.client("ops", timeout=20) as client:
                    answer = client.post(path, json=body, headers=headers)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 503:
                time.sleep(0.2)
                continue
            break
        if answer.status_code == 202:
            found.append(answer.json()["operation_id"])
        else:
            # Answered at once, or still at work when it was repeated: it is recorded.
            assert answer.status_code in (200, 201, 207, 409), (path, body, answer.text)
    return found


def settle(fleet: RegistryFleet, ids: list[str]) -> None:
    """Wait until nothing is to be done any more, and see that registry and nodes agree."""
    deadline = time.monotonic() + PATIENCE
    while fleet.unfinished():
        assert time.monotonic() < deadline, fleet.unfinished()
        time.sleep(0.5)
    with fleet.read() as session:
        states = Counter(
            (one.kind, one.state) for one in session.scalars(select(Operation).where(Operation.id.in_(ids)))
        )
        assert {state for _kind, state in states} == {"succeeded"}, states
        audited = session.execute(
            select(AuditEntry.operation_id, func.count())
            .where(AuditEntry.operation_id.in_(ids), AuditEntry.result.in_(("success", "partial_success")))
            .group_by(AuditEntry.operation_id)
        ).all()
        assert {number for number, _count in audited} == set(ids)
        assert {count for _number, count in audited} == {1}
    assert fleet.teardowns() == []
    for report in fleet.done("drift").published["data"]["nodes"].values():
        assert report["has_drift"] is False, report


def prepared(fleet: RegistryFleet, tag: str) -> list[tuple[str, dict[str, Any]]]:
    names = [f"{tag}-{number}@example.com" for number in range(CUSTOMERS)]
    fleet.provision({name: f"node{number % 3 + 1}" for number, name in enumerate(names)})
    return wanted(names)


def test_killed_at_random_moments(fleet: RegistryFleet, tmp_path: Path) -> None:
    """SIGKILL of the server while a hundred mixed operations come in and are carried out."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    asked = prepared(fleet, "killed")
    with served(fleet, tmp_path) as server, ThreadPoolExecutor(1) as pool:
        server.key("ops")
        posting = pool.submit(accepted, [server], asked)
        for _ in range(6):
            time.sleep(chance.uniform(0.5, 5))
            server.kill()
            server.start()
        ids = posting.result(PATIENCE)
        settle(fleet, ids)
        assert server.stop() == 0
    expected(fleet, asked)


def test_two_servers_and_a_database_that_restarts(
    own_postgres_server: PostgresServer, lab: Lab, tmp_path: Path
) -> None:
    with on(own_postgres_server, lab, tmp_path) as fleet, ExitStack() as stack:
        asked = prepared(fleet, "shared")
        servers = []
        for number in (1, 2):
            folder = tmp_path / f"server-{number}"
            folder.mkdir()
            servers.append(stack.enter_context(served(fleet, folder)))
        servers[0].key("ops")  # before its registry goes away
        with ThreadPoolExecutor(1) as pool:
            posting = pool.submit(accepted, servers, asked)
            time.sleep(3)
            own_postgres_server.kill()
            time.sleep(1)
            own_postgres_server.start()
            time.sleep(2)
            servers[1].kill()
            servers[1].start()
            ids = posting.result(PATIENCE)
        settle(fleet, ids)
        shares = [sum('"run ended"' in line for line in one.said().splitlines()) for one in servers]
        assert min(shares) > 0, shares
        expected(fleet, asked)


def expected(fleet: RegistryFleet, asked: list[tuple[str, dict[str, Any]]]) -> None:
    """What each customer's last call wanted is so."""
    last: dict[str, tuple[str, dict[str, Any]]] = {}
    for path, body in asked:
        name = body.get("email") or body.get("name") or body["body"]["instance"]
        last[name] = (path, body)
    states = fleet.states()
    for name, (path, body) in last.items():
        instance = fleet.instance(name)
        if path == "/remove_instances/":
            assert instance is None, name
            continue
        assert instance is not None, name
        places = fleet.places(instance.interface, states=states)
        if path == "/api/disconnect_instance/":
            assert places == {}, name
        elif path == "/api/transfer_instance/":
            assert places == {body["server_id"]: "up"}, name
        else:
            assert places == {instance.node.name: "up"}, name


@contextmanager
def on(server: PostgresServer, lab: Lab, folder: Path) -> Iterator[RegistryFleet]:
    with registered(lab, "postgresql", server.url(server.create_database()), folder) as fleet:
        yield fleet


@pytest.mark.parametrize("fleet", ["sqlite"], indirect=True)
def test_a_node_that_hangs_holds_up_nobody_else(fleet: RegistryFleet, tmp_path: Path) -> None:
    """It accepts connections and never answers."""
    slow, quick = "slow@example.com", "quick@example.com"
    told = fleet.provision({slow: "node1", quick: "node2"})
    with served(fleet, tmp_path, wait_seconds="1") as server, server.client("ops") as client:
        fleet.nodes["node1"].freeze()
        try:
            hanging = client.post("/api/disconnect_instance/", json={"email": slow})
            assert hanging.status_code == 202
            with server.client("ops", timeout=30) as other:
                asynchronous = {"Prefer": "respond-async"}
                answer = other.post("/api/disconnect_instance/", json={"email": quick}, headers=asynchronous)
                assert server.ended(answer.json()["operation_id"])["state"] == "succeeded"
                node_id = fleet.instance(slow).node_id  # type: ignore[union-attr]
                health = other.get(f"/api/nodes/{node_id}/health").json()["data"]
                assert health["reachable"] is False
        finally:
            fleet.nodes["node1"].thaw()
        assert server.ended(hanging.json()["operation_id"])["state"] == "succeeded"
    assert fleet.places(told[slow]["interface"]) == fleet.places(told[quick]["interface"]) == {}
