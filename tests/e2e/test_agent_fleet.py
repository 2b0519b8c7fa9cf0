"""A fleet of which one node is reached by SSH and another one by its agent only: the same playbooks serve both."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Node
from tests.e2e import registry_fleet
from tests.e2e.node_agent import ETC, PORT, SECRETS, NodeAgent
from tests.e2e.registry_fleet import RegistryFleet
from tests.e2e.started_playbook import Run, Started
from tests.lab.fleet import ROOT
from tests.self_signed import Identity

lab = registry_fleet.lab
fleet = registry_fleet.sqlite_fleet

NODE1, NODE2 = "node1", "node2"
SEEN: set[str] = set()
ANSIBLE = [sys.executable, "-m", "ansible"]


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

    _reach_by_ssh(fleet, agent, False)
    return agent


def _reach_by_ssh(fleet: RegistryFleet, agent: NodeAgent, possible: bool) -> None:
    with fleet.registry() as registry, registry.write() as session:
        node = session.scalars(select(Node).where(Node.name == NODE2)).one()
        node.ansible_host = agent.node.address if possible else "nowhere.invalid"


@pytest.fixture(autouse=True)
def _secrets_are_seen(fleet: RegistryFleet) -> Iterator[None]:
    yield
    SEEN.update(fleet.secrets())
    with fleet.read() as session:
        for node in session.scalars(select(Node)):
            SEEN.update(agents.accepted(node))


@pytest.fixture(scope="module", autouse=True)
def _no_secret_is_told(fleet: RegistryFleet) -> Iterator[None]:
    yield
    with fleet.read() as session:
        audit = str([tuple(one) for one in session.execute(select(AuditEntry.action, AuditEntry.details))])
    assert SEEN
    assert not [text for text in [*fleet.outputs, audit] for secret in SEEN if secret in text]


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


def test_an_agent_that_is_away_is_a_node_that_is_away(fleet: RegistryFleet, agent: NodeAgent) -> None:
    told = fleet.provision({"carl@example.com": NODE2})["carl@example.com"]
    agent.stop()
    run = fleet.run("disconnect", instance="carl@example.com")
    assert run.code == 2
    assert run.result["message"].startswith(
        "carl@example.com is not disconnected: node node2 cannot be reached: its agent does not answer"
    )
    assert fleet.unfinished() == ["disconnect of carl@example.com is pending"]
    agent.start()
    fleet.done("reconcile", node=NODE2)
    assert fleet.places(told["interface"]) == {}
    assert fleet.unfinished() == []


def test_an_agent_whose_clock_is_off_is_an_error_of_that_node_alone(
    fleet: RegistryFleet, agent: NodeAgent
) -> None:
    agent.stop()
    agent.start(clock_off=-3600)
    run = fleet.run("drift")
    agent.restart()
    assert run.code == 2
    told = _looked_at(run)
    assert [name for name, found in told.items() if "error" in found] == [NODE2]
    assert "off the agent's clock" in told[NODE2]["error"]
    assert {found["has_drift"] for name, found in told.items() if name != NODE2} == {False}
    assert fleet.done("drift").published["status"] == "success"


def test_a_nodes_overrides_come_by_its_agent_too(fleet: RegistryFleet, agent: NodeAgent) -> None:
    told = fleet.provision({"gina@example.com": NODE2})["gina@example.com"]
    for mtu, keepalive in ((1380, 20), (1400, 30)):
        _override(fleet, mtu, keepalive)
        found = fleet.done("drift", node=NODE2).result["data"]
        assert [(one["field"], one["expected"]) for one in found["interface_issues"]] == [("mtu", mtu)]
        assert [one["mismatches"][0]["expected"] for one in found["mismatched_peers"]] == [keepalive]
        fleet.done("reconcile", node=NODE2)
        assert fleet.done("drift", node=NODE2).result["data"]["has_drift"] is False
        assert f"mtu {mtu} " in agent.node.run(["ip", "link", "show", told["interface"]]).stdout
    fleet.done("remove", instance="gina@example.com")
    _override(fleet, None, None)


def _override(fleet: RegistryFleet, mtu: int | None, keepalive: int | None) -> None:
    path = fleet.folder / "agent_overrides.json"
    overrides = {"override_mtu": mtu, "override_keepalive": keepalive}
    path.write_text(json.dumps([{"name": NODE2, **overrides}]), encoding="utf-8")
    fleet.done("nodes", nodes_file=str(path))


def test_half_a_dump_of_an_agents_node_is_an_error_of_that_node_alone(
    fleet: RegistryFleet, agent: NodeAgent
) -> None:
    fleet.provision({"fred@example.com": NODE2})
    half = (
        '#!/bin/sh\ncase "$*" in *dump) /usr/bin/wg "$@" | head -c 150 ;; *) exec /usr/bin/wg "$@" ;; esac\n'
    )
    agent.node.write("/usr/local/sbin/wg", half, 0o755)
    try:
        run = fleet.run("drift")
    finally:
        agent.node.run(["rm", "/usr/local/sbin/wg"])
    assert run.code == 2
    told = _looked_at(run)
    assert [name for name, found in told.items() if "error" in found] == [NODE2]
    assert (told[NODE2]["has_drift"], told[NODE2]["reachable"]) == (None, True)
    assert {found["has_drift"] for name, found in told.items() if name != NODE2} == {False}
    fleet.done("remove", instance="fred@example.com")


def _looked_at(run: Run) -> dict[str, Any]:
    """What a look has found, by the nodes' names."""
    found = run.published["data"]["nodes"]
    return {one["node"]: found[one["node_id"]] for one in run.published["operations"]}


def test_an_agent_that_is_killed_in_the_middle(fleet: RegistryFleet, agent: NodeAgent) -> None:
    started = _while_it_hangs(fleet, agent)
    agent.signal("KILL")
    run = started.finish()
    assert run.code == 2
    assert "its agent ended the connection before it had answered" in run.result["message"]
    agent.start()
    told = fleet.done("provision", instance="dora@example.com", node=NODE2, peers=[{"name": "phone"}]).result
    assert fleet.places(told["interface"]) == {NODE2: "up"}
    assert fleet.done("drift", node=NODE2).result["data"]["has_drift"] is False
    fleet.done("remove", instance="dora@example.com")


def _while_it_hangs(fleet: RegistryFleet, agent: NodeAgent) -> Started:
    """A playbook whose request the agent has taken, and whose privileged process does nothing with it."""
    agent.signal("STOP")
    started = fleet.start("provision", instance="dora@example.com", node=NODE2, peers=[{"name": "phone"}])
    deadline = time.monotonic() + 120
    established = ["ss", "-Htn", "state", "established", f"sport = :{PORT}"]
    while not agent.node.run(established).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # so that the request is there too
    return started


def test_another_secret_or_certificate_is_told_and_nothing_is_done(
    fleet: RegistryFleet, agent: NodeAgent
) -> None:
    def look() -> str:
        run = fleet.run("provision", instance="emil@example.com", node=NODE2)
        assert run.code == 2
        return str(run.result["message"])

    states = fleet.states(NODE2)
    right = agent.node.read(SECRETS)
    agent.node.write(SECRETS, f"{'f' * 64}\n", 0o600)
    assert "its agent refuses the signature" in look()
    agent.node.write(SECRETS, right, 0o600)

    with fleet.registry() as registry, registry.write() as session:
        node = session.scalars(select(Node).where(Node.name == NODE2)).one()
        certificate = node.agent_certificate
        node.agent_certificate = Identity.of("another")
    assert "certificate is not the one that it should be" in look()
    with fleet.registry() as registry, registry.write() as session:
        session.scalars(select(Node).where(Node.name == NODE2)).one().agent_certificate = certificate
    assert fleet.states(NODE2) == states
    fleet.done("remove", instance="emil@example.com")


@pytest.mark.usefixtures("agent")
def test_modules_without_the_registry(fleet: RegistryFleet) -> None:
    """By variables of the inventory; and by the registry's inventory, in which no secret is."""
    with fleet.read() as session:
        known = agents.agent_of(session, NODE2)
    assert known is not None
    variables = {
        "ansible_host": "nowhere.invalid",
        "vpnfleet_agent_url": known.url,
        "vpnfleet_agent_secret": known.secret,
        "vpnfleet_agent_certificate": known.certificate,
        "wireguard_instances": [
            {"name": "wg900", "listen_port": 51900, "addresses": ["10.90.0.1/24"], "peers": []}
        ],
    }
    inventory = fleet.folder / "variables.json"
    inventory.write_text(json.dumps({"nodes": {"hosts": {NODE2: variables}}}), encoding="utf-8")
    site = [*ANSIBLE, "playbook", "-i", str(inventory), "playbooks/site.yml", "--tags", "instance", "-vvv"]
    assert "changed=1" in _ran(fleet, site)
    assert fleet.places("wg900") == {NODE2: "up"}
    assert "changed=0" in _ran(fleet, site)
    by_registry = ["-i", str(fleet.folder / "registry.yml"), NODE2]
    told = _ran(fleet, [*ANSIBLE, "adhoc", *by_registry, "-m", "vpnfleet.wireguard.wg_info"])
    assert "name: wg900" in told
    state = {"name": "wg900", "state": "absent"}
    _ran(
        fleet,
        [*ANSIBLE, "adhoc", *by_registry, "-m", "vpnfleet.wireguard.wg_instance", "-a", json.dumps(state)],
    )
    assert fleet.places("wg900") == {}


def _ran(fleet: RegistryFleet, argv: list[str]) -> str:
    done = subprocess.run(
        argv, cwd=ROOT, env=fleet.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    fleet.outputs.append(done.stdout + done.stderr)
    assert done.returncode == 0, fleet.outputs[-1]
    return done.stdout


def test_a_rotation_that_is_broken_off_goes_on(fleet: RegistryFleet, agent: NodeAgent) -> None:
    """Here nobody has the agent show its new certificate: the node is reached as before until somebody does."""
    _reach_by_ssh(fleet, agent, True)
    with fleet.read() as session:
        before = agents.agent_of(session, NODE2)
    run = fleet.run("agent", "-vvv", node=NODE2, rotate=True)
    assert run.code == 2
    assert "certificate is not the one that it should be" in run.published["message"]
    assert fleet.done("drift", node=NODE2).result["data"]["has_drift"] is False
    agent.restart()
    assert fleet.done("drift", node=NODE2).result["data"]["has_drift"] is False
    fleet.done("agent", "-vvv", node=NODE2)
    with fleet.read() as session:
        after = agents.agent_of(session, NODE2)
    assert before is not None
    assert after is not None
    assert after.secret != before.secret
    assert after.certificate != before.certificate
    assert agent.node.read(SECRETS) == f"{after.secret}\n"


def test_and_back_to_ssh(fleet: RegistryFleet, agent: NodeAgent) -> None:
    _reach_by_ssh(fleet, agent, True)
    agent.stop()
    fleet.done("agent", node=NODE2, state="absent")
    for path in (ETC, "/usr/local/lib/vpnfleet-agent", "/var/lib/vpnfleet-agent"):
        assert agent.node.run(["test", "-e", path], check=False).returncode == 1
    sessions = fleet.sessions()[NODE2]
    assert fleet.done("drift", node=NODE2).result["data"]["has_drift"] is False
    assert fleet.sessions()[NODE2] > sessions
