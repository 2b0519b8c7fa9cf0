"""Agents in the registry: secrets and certificates that change while calls go on, and nothing of them told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, text

from ansible_collections.vpnfleet.wireguard.plugins.action import registry_agent
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.agent_call import Agent
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import agents, secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import AuditEntry, Node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes, described
from tests.postgres.opened import opened
from tests.unit.plugins.plugin_utils.registry.consistency import told_secrets
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node

URL = "https://192.0.2.1:8443"
ONE, TWO = (f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----" for name in ("one", "two"))


@pytest.fixture
def registry(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = opened(registry_url)
    with registry.write() as session:
        add_instance(session, add_node(session))
    yield registry
    registry.close()


def deploy(registry: Registry, certificate: str) -> Agent:
    """All steps, as the playbook makes them."""
    with registry.write() as session:
        agents.prepare(require_node(session, "node1"), rotate=False)
    with registry.write() as session:
        agents.expect(require_node(session, "node1"), certificate)
    with registry.write() as session:
        node = require_node(session, "node1")
        agent = agents.newest(node, URL, certificate)
        assert agent is not None
        agents.confirm(session, node, agent, "ops")
    with registry.read() as session:
        found = agents.agent_of(session, "node1")
        assert agents.by_name(session) == {"node1": agent}
        assert agents.accepted(require_node(session, "node1")) == [agent.secret]
    assert found == agent
    return agent


def test_a_node_without_an_agent_is_reached_by_ssh(registry: Registry) -> None:
    with registry.read() as session:
        assert agents.agent_of(session, "node1") is None
        assert agents.agent_of(session, "nobody") is None


def test_a_url_alone_is_no_agent(registry: Registry) -> None:
    """It may be set by who has none of ours, and nothing could be signed."""
    with registry.write() as session:
        apply_nodes(session, [{"name": "node1", "agent_url": URL}])
        assert agents.agent_of(session, "node1") is None


def test_a_secret_alone_is_no_agent_yet(registry: Registry) -> None:
    with registry.write() as session:
        node = require_node(session, "node1")
        assert agents.prepare(node, rotate=False)
        assert not agents.prepare(node, rotate=False)
        assert not agents.prepare(node, rotate=True)  # what was begun is completed first
        session.flush()
        assert agents.agent_of(session, "node1") is None


def test_until_the_new_one_is_confirmed_the_old_one_signs(registry: Registry) -> None:
    first = deploy(registry, ONE)
    with registry.write() as session:
        node = require_node(session, "node1")
        assert agents.prepare(node, rotate=True)
        assert agents.expect(node, TWO)
        assert not agents.expect(node, TWO)
        following, old = agents.accepted(node)
        session.flush()
        known = agents.agent_of(session, "node1")
    assert (old, known and known.secret) == (first.secret, first.secret)
    assert following != old
    assert len(bytes.fromhex(following)) == 32
    assert known is not None
    assert known.certificate == f"{TWO}\n{ONE}\n"

    second = deploy(registry, TWO)
    assert second.secret == following
    assert second.certificate == TWO


def step(registry: Registry, name: str, check_mode: bool, **arguments: object) -> dict[str, Any]:
    """A step of the playbook for node1, with rotate=true."""
    task = SimpleNamespace(args={"step": name, **arguments}, check_mode=check_mode)
    action = registry_agent.ActionModule(task, None, None, None, None, None)
    action.registry = registry
    told = arguments.get("told", {})
    hosts = {"node1": {"ansible_facts": told}}
    variables = {"ansible_play_hosts_all": ["node1"], "inventory_hostname": "node1", "rotate": "true"}
    answer: dict[str, Any] = action.work({**variables, "hostvars": hosts})
    return answer


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_rotation_that_completes_an_earlier_one_says_so(
    registry: Registry, pending: bool, check_mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(registry, ONE)
    if pending:
        with registry.write() as session:
            agents.prepare(require_node(session, "node1"), rotate=True)
    begun = step(registry, "begin", check_mode)
    assert begun["changed"] is not pending
    run = begun["ansible_facts"]["vpnfleet_agents"]
    monkeypatch.setattr(registry_agent, "health", lambda _agent, _seconds: {})
    confirmed = step(registry, "confirm", check_mode, run=run, certificate=ONE)
    report = step(registry, "report", check_mode, run=run, told=confirmed["ansible_facts"])
    note = "its secret is the one that an earlier run has made and not completed: rotate again for a new one"
    for message in (confirmed["msg"], report["result"]["nodes"][0]["message"], report["result"]["message"]):
        assert (note in message) is pending


def test_there_and_back(registry: Registry) -> None:
    deploy(registry, ONE)
    with registry.write() as session:
        node = require_node(session, "node1")
        assert agents.forget(session, node, "ops")
        assert not agents.forget(session, node, "ops")
        session.flush()
        assert agents.agent_of(session, "node1") is None
    with registry.read() as session:
        told = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [(one.action, one.subject) for one in told] == [
        ("agent deployed", "node1"),
        ("agent removed", "node1"),
    ]
    assert told[0].details == {
        "agent_url": URL,
        "changed": ["agent_certificate", "agent_secret", "agent_url"],
    }


def test_a_second_deploy_is_no_news(registry: Registry) -> None:
    first = deploy(registry, ONE)
    with registry.write() as session:
        assert not any(agents.confirm(session, require_node(session, "node1"), first, "ops").values())
    with registry.read() as session:
        assert len(session.scalars(select(AuditEntry)).all()) == 1


def test_secrets_are_encrypted_and_told_nowhere(registry: Registry) -> None:
    deploy(registry, ONE)
    with registry.write() as session:
        agents.prepare(require_node(session, "node1"), rotate=True)
    with registry.read() as session:
        node = require_node(session, "node1")
        assert "agent_secret" not in described(node)
        shown = [described(node), dict(vars(node))]
        stored = session.execute(text("SELECT agent_secret, agent_secret_next FROM node")).one()
        shared = agents.accepted(node)
    assert len(shared) == 2
    assert not [secret for secret in shared if secret in "".join(stored)]
    assert told_secrets(registry, *shown) == []


def test_nodes_are_listed_without_their_secrets(registry: Registry) -> None:
    """The inventory has no key."""
    deploy(registry, ONE)
    with registry.read() as session:
        node = session.scalars(select(Node)).one()
        assert not {"agent_secret", "agent_secret_next"} & set(vars(node))
