"""Nodes as code: what is written becomes what is there, and nothing that is in use goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import Registry
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict, Invalid
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Instance,
    Node,
    Operation,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_fields import FIELDS
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import (
    Change,
    apply_nodes,
    record,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.postgres.opened import opened
from tests.unit.plugins.plugin_utils.registry.described_nodes import EVERYTHING, LEAST, all_of, apply
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node, add_teardown


@pytest.fixture
def registry(registry_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = opened(registry_url)
    yield registry
    registry.close()


# -- create, update, remove


def test_a_node_is_created_as_it_is_described(registry: Registry) -> None:
    (change,) = apply(registry, EVERYTHING)
    assert change == Change("de1.example.com", "created", None, EVERYTHING)
    assert all_of(registry) == {"de1.example.com": EVERYTHING}
    assert set(EVERYTHING) == {"name", *FIELDS}


def test_every_column_that_an_operator_sets_is_a_field() -> None:
    columns = set(Node.__table__.columns.keys())
    assert columns - {"name", *FIELDS} == {
        *("id", "last_seen", "created_at", "updated_at"),
        *("agent_secret", "agent_secret_next", "agent_certificate"),  # playbooks/agent.yml sets them
    }


def test_little_has_to_be_said(registry: Registry) -> None:
    (change,) = apply(registry, LEAST)
    assert change.after is not None
    pool = change.after["ip6_pool_cidr"]
    assert re.fullmatch(r"fd[0-9a-f:]+::/48", pool)
    assert {key: value for key, value in change.after.items() if value is not None} == {
        **LEAST,
        "wg_interface": "wg0",
        "ip6_pool_cidr": pool,
        "enabled": True,
        "weight": 100,
    }
    assert all_of(registry) == {"de1.example.com": change.after}
    assert apply(registry, LEAST) == []  # and the IPv6 pool stays


def test_the_second_time_nothing_changes(registry: Registry) -> None:
    wanted = [EVERYTHING, {**LEAST, "name": "nl1.example.com", "ip_pool_cidr": "10.9.0.0/16"}]
    assert len(apply(registry, *wanted)) == 2
    with registry.read() as session:
        before = session.scalars(select(Node.updated_at).order_by(Node.name)).all()
    assert apply(registry, *wanted) == []
    with registry.read() as session:
        assert session.scalars(select(Node.updated_at).order_by(Node.name)).all() == before


def test_what_is_said_changes_and_nothing_else(registry: Registry) -> None:
    apply(registry, EVERYTHING)
    (change,) = apply(registry, {"name": "de1.example.com", "enabled": True, "weight": 50, "country": "DE"})
    assert change.action == "updated"
    assert change.fields() == {
        "enabled": {"before": False, "after": True},
        "country": {"before": "Germany", "after": "DE"},
    }
    assert change.before == EVERYTHING
    assert change.after == {**EVERYTHING, "enabled": True, "country": "DE"}
    assert all_of(registry) == {"de1.example.com": change.after}


def test_null_is_the_default(registry: Registry) -> None:
    apply(registry, EVERYTHING)
    apply(registry, {"name": "de1.example.com", **dict.fromkeys(FIELDS)})
    pools = {name: EVERYTHING[name] for name in ("ip_pool_cidr", "ip6_pool_cidr")}
    assert {
        name: value for name, value in all_of(registry)["de1.example.com"].items() if value is not None
    } == {
        "name": "de1.example.com",
        "wg_interface": "wg0",
        "enabled": True,
        "weight": 100,
        **pools,
    }


def test_texts_of_digits_are_numbers(registry: Registry) -> None:
    apply(registry, EVERYTHING)
    same = {"ansible_port": "2222", "weight": "50", "max_peers": "1000", "override_mtu": "1380"}
    assert apply(registry, {"name": "de1.example.com", **same}) == []


def test_a_node_that_is_left_out_stays_as_it_is(registry: Registry) -> None:
    apply(registry, {**EVERYTHING, "enabled": True}, {**LEAST, "name": "nl1.example.com"})
    before = all_of(registry)
    assert apply(registry) == []
    assert apply(registry, {"name": "nl1.example.com", "state": "present"}) == []
    assert all_of(registry) == before


def test_a_node_with_nothing_on_it_can_be_removed(registry: Registry) -> None:
    apply(registry, EVERYTHING, {**LEAST, "name": "nl1.example.com"})
    with registry.write() as session:
        node = session.scalars(select(Node).where(Node.name == "de1.example.com")).one()
        session.add(Operation(id="old", kind="drift", state="succeeded", node_id=node.id))
    (change,) = apply(registry, {"name": "de1.example.com", "state": "absent"})
    assert change == Change("de1.example.com", "removed", EVERYTHING, None)
    assert list(all_of(registry)) == ["nl1.example.com"]
    with registry.read() as session:
        assert session.get_one(Operation, "old").node_id is None
    assert apply(registry, {"name": "de1.example.com", "state": "absent"}) == []


# -- what is in use


def test_a_node_with_instances_is_not_removed(registry: Registry) -> None:
    with registry.write() as session:
        node = add_node(session)
        for number in range(7):
            add_instance(session, node, name=f"c{number}@example.com")
    with pytest.raises(Conflict) as caught:
        apply(registry, LEAST, {"name": "node1", "state": "absent"})
    named = ", ".join(f"c{number}@example.com" for number in range(5))
    assert str(caught.value) == (
        f"node node1 cannot be removed: 7 instances ({named} and 2 more) on it; transfer or remove them first"
    )
    assert list(all_of(registry)) == ["node1"]  # nothing of the list


@pytest.mark.parametrize("alive", [True, False])
def test_a_node_that_is_looked_at_is_not_removed(registry: Registry, alive: bool) -> None:
    with registry.write() as session:
        node = add_node(session)
        process = process_token(os.getpid()) if alive else "{}"
        session.add(Operation(id="look", kind="drift", state="running", node_id=node.id, owner=process))
    removal = {"name": "node1", "state": "absent"}
    if alive:
        with pytest.raises(Conflict, match="cannot be removed: drift look is at work on it; try again later"):
            apply(registry, removal)
    else:
        apply(registry, removal)
    assert list(all_of(registry)) == (["node1"] if alive else [])


def test_a_node_with_something_to_be_taken_down_is_not_removed(registry: Registry) -> None:
    with registry.write() as session:
        add_teardown(session, add_node(session), interface="wg7", instance_name="a@example.com")
    with pytest.raises(Conflict, match=r"still to be taken down on it: 1 interface \(wg7 of a@example.com\)"):
        apply(registry, {"name": "node1", "state": "absent"})


def test_what_was_to_be_taken_down_on_a_lost_node_is_forgotten(registry: Registry) -> None:
    with registry.write() as session:
        add_teardown(session, add_node(session), interface="wg7", instance_name="a@example.com")
    lost = {"name": "node1", "state": "absent", "lost": True}
    with registry.write() as session:
        changes = apply_nodes(session, [lost])
        record(session, changes, "ann")
    assert [change.forgotten for change in changes] == [("wg7 of a@example.com",)]
    assert all_of(registry) == {}
    with registry.read() as session:
        assert session.scalars(select(Teardown)).all() == []
        (row,) = session.scalars(select(AuditEntry))
        assert (row.actor, row.action, row.subject) == ("ann", "node removed", "node1")
        assert row.details["forgotten"] == ["wg7 of a@example.com"]


def test_what_lives_on_a_lost_node_has_to_go_elsewhere_first(registry: Registry) -> None:
    with registry.write() as session:
        add_instance(session, add_node(session), name="a@example.com")
    with pytest.raises(Conflict, match="transfer or remove them first"):
        apply(registry, {"name": "node1", "state": "absent", "lost": True})


def test_a_node_on_which_a_run_takes_something_down_is_not_lost(registry: Registry) -> None:
    with registry.write() as session:
        node = add_node(session)
        process = process_token(os.getpid())
        operation = Operation(id="gone", kind="remove", state="running", instance_name="a", owner=process)
        session.add(operation)
        session.flush()
        add_teardown(session, node, interface="wg7", instance_name="a", operation_id="gone")
    with pytest.raises(Conflict, match="remove gone is at work on it; try again later"):
        apply(registry, {"name": "node1", "state": "absent", "lost": True})


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("ip_pool_cidr", "10.8.0.0/20", "10.8.0.0/22"),
        ("ip_pool_cidr", "10.8.8.0/23", "10.9.0.0/16"),
        ("ip6_pool_cidr", "fd00:8::/32", "fd00:9::/48"),
        ("ip6_pool_cidr", "fd00:8:0:4::/62", "fd00:8:0:4::/64"),
    ],
)
def test_a_pool_keeps_what_was_taken_out_of_it(
    registry: Registry, field: str, inside: str, outside: str
) -> None:
    with registry.write() as session:
        node = add_node(session)
        add_instance(session, node, name="a@example.com", subnet="10.8.9.0/24", subnet6="fd00:8:0:5::/64")
        # It has come from another node, with its subnets.
        add_instance(session, node, subnet="10.77.0.0/24", subnet6="fd00:77::/64")
    with pytest.raises(Conflict, match=rf"{field} cannot be {outside}: 1 instance \(a@example.com \(.*8"):
        apply(registry, {"name": "node1", field: outside})
    assert apply(registry, {"name": "node1", field: inside})[0].fields()[field]["after"] == inside


def test_the_pool_of_an_empty_node_may_change(registry: Registry) -> None:
    with registry.write() as session:
        add_instance(session, add_node(session, "other"), subnet="10.8.9.0/24")
        add_node(session)
    assert apply(registry, {"name": "node1", "ip_pool_cidr": "10.99.0.0/16"})


@pytest.mark.parametrize(("override", "own"), [("override_mtu", "mtu"), ("override_keepalive", "keepalive")])
def test_what_is_in_effect_on_the_node_is_not_yet_applied(
    registry: Registry, override: str, own: str
) -> None:
    with registry.write() as session:
        node = add_node(session)
        add_instance(session, node, name="node's", applied=True)
        add_instance(session, node, name="own", applied=True, **{own: 1400})
        add_instance(session, node, name="down", applied=True, state="disconnected")
        add_instance(session, add_node(session, "node2"), name="elsewhere", applied=True)
    of_devices = {"override_dns": "10.0.0.1", "override_endpoint_allowed_ip": "10.0.0.0/8"}
    apply(registry, {"name": "node1", "override_listen_port": 40000, **of_devices})
    with registry.read() as session:
        assert all(session.scalars(select(Instance.applied)))
    for value in (1380, None):
        apply(registry, {"name": "node1", override: value})
        with registry.write() as session:
            unapplied = session.scalars(select(Instance).where(Instance.applied.is_(False))).all()
            assert [one.name for one in unapplied] == ["node's"]
            unapplied[0].applied = True
        apply(registry, {"name": "node1", override: value})
        with registry.read() as session:
            assert all(session.scalars(select(Instance.applied)))


def test_one_bad_node_is_enough_to_refuse_all(registry: Registry) -> None:
    apply(registry, LEAST)
    before = all_of(registry)
    with pytest.raises(Invalid, match=r"^node n3: weight: "):
        apply(
            registry,
            {**LEAST, "weight": 1},
            {"name": "n2", "ip_pool_cidr": "10.9.0.0/16"},
            {"name": "n3", "ip_pool_cidr": "10.10.0.0/16", "weight": "heavy"},
        )
    assert all_of(registry) == before


def test_each_change_has_its_audit_row(registry: Registry) -> None:
    with registry.write() as session:
        changes = apply_nodes(session, [LEAST, {"name": "n2", "ip_pool_cidr": "10.9.0.0/16"}])
        record(session, changes, "alice")
        record(session, apply_nodes(session, [{**LEAST, "weight": 7}]), "bob")
        record(session, apply_nodes(session, [{"name": "n2", "state": "absent"}]), "bob")
    with registry.read() as session:
        rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [(row.actor, row.action, row.subject, row.result) for row in rows] == [
        ("alice", "node created", "de1.example.com", "success"),
        ("alice", "node created", "n2", "success"),
        ("bob", "node updated", "de1.example.com", "success"),
        ("bob", "node removed", "n2", "success"),
    ]
    assert rows[2].details == {"fields": {"weight": {"before": 100, "after": 7}}}
    assert rows[3].details["fields"]["ip_pool_cidr"] == {"before": "10.9.0.0/16", "after": None}
