"""A fleet of which one node is reached by SSH and another one by its agent only: the same playbooks serve both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Node
from tests.e2e import registry_fleet
from tests.e2e.node_agent import NodeAgent
from tests.e2e.registry_fleet import RegistryFleet

lab = registry_fleet.lab
fleet = registry_fleet.sqlite_fleet

NODE1, NODE2 = "node1", "node2"


@pytest.fixture(scope="module")
def agent(fleet: RegistryFleet) -> NodeAgent:
    """Node2's, deployed over SSH. Afterwards, Ansible finds nobody where it would look for node2."""
    agent = NodeAgent(fleet.nodes[NODE2])
    nodes, tables = fleet.states(), fleet.tables()
    foreseen = fleet.done("agent", "--check", "--diff", node=NODE2)
    assert foreseen.published["status"] == "planned"
    assert (fleet.states(), fleet.tables()) == (nodes, tables)

    # Nobody starts it here: until it answers, the node is reached as before, and the next run goes on.
    run = fleet.run("agent", "-vvv", node=NODE2)
    assert run.code == 2, run.output
    assert "its agent does not answer: connection refused" in run.published["message"]
    with fleet.read() as session:
        assert agents.agent_of(session, NODE2) is None
    agent.start()
    run = fleet.done("agent", "-vvv", node=NODE2)
    assert run.published["nodes"] == [
        {
            "node": NODE2,
            "status": "success",
            "changed": True,
            "message": f"reached by its agent at https://{agent.node.address}:8443",
        }
    ]
    assert fleet.done("agent", node=NODE2).changed[NODE2] == 0

    with fleet.registry() as registry, registry.write() as session:
        session.scalars(select(Node).where(Node.name == NODE2)).one().ansible_host = "nowhere.invalid"
    return agent


@pytest.fixture(scope="module", autouse=True)
def _no_secret_is_told(fleet: RegistryFleet) -> Iterator[None]:
    seen: set[str] = set()
    yield
    with fleet.read() as session:
        for node in session.scalars(select(Node)):
            seen.update(agents.accepted(node))
        audit = str([tuple(one) for one in session.execute(select(AuditEntry.action, AuditEntry.details))])
    assert seen
    told = [*fleet.outputs, audit]
    assert not [text for text in told for secret in seen | fleet.secrets() if secret in text]


def test_both_are_served_by_the_same_playbooks(fleet: RegistryFleet, agent: NodeAgent) -> None:
    sessions = fleet.sessions()
    told = fleet.provision({"anna@example.com": NODE1, "bert@example.com": NODE2})
    bert = told["bert@example.com"]["interface"]
    assert fleet.places(bert) == {NODE2: "up"}
    report = fleet.done("drift").published
    assert report["status"] == "success"

    agent.node.run(["wg", "set", bert, "peer", told["bert@example.com"]["peers"][0]["public_key"], "remove"])
    assert fleet.done("drift", node=NODE2).result["data"]["summary"]["missing_count"] == 1
    fleet.done("reconcile", node=NODE2)
    assert fleet.done("drift", node=NODE2).result["data"]["has_drift"] is False

    for name, target in (
        ("anna@example.com", NODE2),
        ("anna@example.com", NODE1),
        ("bert@example.com", NODE1),
    ):
        fleet.done("transfer", instance=name, node=target)
        assert fleet.places(told[name]["interface"]) == {target: "up"}
    fleet.done("transfer", instance="bert@example.com", node=NODE2)
    fleet.done("disconnect", instance="bert@example.com")
    assert fleet.places(bert) == {}
    fleet.done("remove", instances=["anna@example.com", "bert@example.com"])
    assert fleet.done("drift").published["status"] == "success"
    assert fleet.sessions()[NODE2] == sessions[NODE2]
    assert fleet.unfinished() == []
