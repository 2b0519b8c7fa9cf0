"""Nodes as code: what is written becomes what is there, and nothing that is in use goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import secrets
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.database import (
    Registry,
    open_registry,
)
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
    check_connection,
    described,
    list_nodes,
    record,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.owner import process_token
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node, add_teardown

EVERYTHING = {
    "name": "de1.example.com",
    "ansible_host": "192.0.2.11",
    "ansible_port": 2222,
    "ansible_user": "ops",
    "ansible_python_interpreter": "/usr/bin/python3.11",
    "agent_url": "https://de1.example.com:8443",
    "endpoint": "vpn.de1.example.com:51820",
    "wg_interface": "wg1",
    "ip_pool_cidr": "10.8.0.0/16",
    "ip6_pool_cidr": "fd00:8::/48",
    "enabled": False,
    "weight": 50,
    "max_peers": 1000,
    "country": "Germany",
    "dns_name": "de1.vpn.example.com",
    "override_listen_port": 40000,
    "override_dns": "10.8.0.1, example.com",
    "override_mtu": 1380,
    "override_keepalive": 30,
    "override_endpoint_allowed_ip": "0.0.0.0/0",
}
LEAST = {"name": "de1.example.com", "ip_pool_cidr": "10.8.0.0/16"}


@pytest.fixture
def registry(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry = open_registry(database_url, schema_required=False)
    registry.upgrade()
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Without nodes, for what has nothing to do with the database: nothing is kept in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
        yield open_registry(f"sqlite:///{tmp_path_factory.mktemp('registry')}/registry.db")


def apply(registry: Registry, *wanted: Any) -> list[Change]:
    with registry.write() as session:
        return apply_nodes(session, wanted)


def all_of(registry: Registry) -> dict[str, dict[str, Any]]:
    with registry.read() as session:
        return {node.name: described(node) for node in list_nodes(session)}


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


# -- what is refused


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nodes", "nodes: is not a list"),
        ({"name": "n1"}, "nodes: is not a list"),
        (["n1"], "nodes[0]: is not a mapping of a node's fields"),
        ([LEAST, {"enabled": True}], "nodes[1].name: is needed"),
        ([{"name": "{{ lookup('pipe', 'id') }}"}], "nodes[0].name: "),
        ([{"name": "localhost"}], "nodes[0].name: "),
        ([LEAST, {**LEAST, "name": "DE1.example.com"}], "nodes[1].name: DE1.example.com is there twice"),
        ([{"name": "n1"}], "node n1: ip_pool_cidr: is needed for a new node"),
        (
            [{"name": "n1", "wieght": 1}],
            "node n1: 'wieght': is no field of a node; these are: ansible_host, ",
        ),
        ([{"name": "n1", "id": "x"}], "node n1: 'id': is no field of a node"),
        ([{"name": "n1", 1: "x"}], "node n1: '1': is no field of a node"),
        ([{"name": "n1", "state": "gone"}], "node n1: state: 'gone' is neither present nor absent"),
        ([{"name": "n1", "state": None}], "node n1: state: "),
        ([{"name": "n1", "lost": True}], "node n1: lost: goes with state: absent"),
        (
            [{"name": "n1", "lost": "yes", "state": "absent"}],
            "node n1: lost: 'yes' is neither true nor false",
        ),
    ],
)
def test_a_useless_list_is_refused(sqlite: Registry, wanted: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught, sqlite.write() as session:
        apply_nodes(session, wanted)
    assert str(caught.value).startswith(message)
    assert all_of(sqlite) == {}


TEMPLATE = "{{ lookup('pipe', 'id') }}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, TEMPLATE) for field in FIELDS),
        *((field, ["x"]) for field in FIELDS),
        *((field, {}) for field in FIELDS),
        *((field, "x" * 5000) for field in FIELDS),
        ("ansible_host", "-oProxyCommand=id"),
        ("ansible_host", "a b"),
        ("ansible_host", "a/b"),
        ("ansible_host", "192.0.2"),
        ("ansible_host", "192.0.2.300"),
        ("ansible_host", "fe80::1%eth0"),
        ("ansible_host", "host:22"),
        ("ansible_host", 22),
        ("ansible_host", True),
        ("ansible_port", 0),
        ("ansible_port", 65536),
        ("ansible_user", "-oProxyCommand=id"),
        ("ansible_user", "root;id"),
        ("ansible_user", "a b"),
        ("ansible_python_interpreter", "python3"),
        ("ansible_python_interpreter", "/usr/bin/python3;id"),
        ("ansible_python_interpreter", "/usr/bin/env python3"),
        ("ansible_python_interpreter", "/usr/bin/"),
        ("agent_url", "ftp://host/"),
        ("agent_url", "https://ops:hunter@host/"),
        ("agent_url", "https://"),
        ("agent_url", "https:///x"),
        ("agent_url", "https://host:0/"),
        ("agent_url", "https://host:x/"),
        ("agent_url", "https://host/?a=b"),
        ("agent_url", "https://host/#a"),
        ("agent_url", "https://fd00::1/"),
        ("agent_url", "https://host/a b"),
        ("agent_url", "https://host/agent"),
        ("agent_url", "https://host//"),
        ("endpoint", "host:0"),
        ("endpoint", "host:65536"),
        ("endpoint", "host:"),
        ("endpoint", ":51820"),
        ("endpoint", "host:51820:51820"),
        ("endpoint", "[fd00::1"),
        ("endpoint", "[192.0.2.1]:51820"),
        ("endpoint", "[::g]:51820"),
        ("endpoint", "https://host"),
        ("endpoint", "host\n"),
        ("wg_interface", "a/b"),
        ("wg_interface", "wg0123456789012345"),
        ("ip_pool_cidr", "fd00::/48"),
        ("ip6_pool_cidr", "10.0.0.0/8"),
        ("enabled", "no"),
        ("enabled", 0),
        ("weight", -1),
        ("max_peers", -1),
        ("country", "Ger\nmany"),
        ("country", "<b>"),
        ("country", "$(id)"),
        ("country", "../x"),
        ("country", " DE"),
        ("country", "D" * 65),
        ("dns_name", "a b"),
        ("override_mtu", 100),
    ],
)
def test_what_a_field_cannot_hold_is_refused(sqlite: Registry, field: str, value: object) -> None:
    with pytest.raises(Invalid, match=rf"^node n1: {field}: ") as caught, sqlite.write() as session:
        apply_nodes(session, [{"name": "n1", "ip_pool_cidr": "10.8.0.0/16", field: value}])
    assert len(str(caught.value)) < 250
    assert all_of(sqlite) == {}


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("ansible_host", "fd00::1", "fd00::1"),
        ("ansible_host", "node1", "node1"),
        ("ansible_host", "", None),
        ("ansible_user", "ops@corp.example.com", "ops@corp.example.com"),
        ("agent_url", "http://[fd00::1]:8443", "http://[fd00::1]:8443"),
        ("agent_url", "http://192.0.2.1/", "http://192.0.2.1/"),
        ("endpoint", "192.0.2.1", "192.0.2.1"),
        ("endpoint", "fd00::1", "fd00::1"),
        ("endpoint", "[fd00::1]", "fd00::1"),
        ("endpoint", "[fd00::1]:51820", "[fd00::1]:51820"),
        ("endpoint", "192.0.2.1:51820", "192.0.2.1:51820"),
        ("ip6_pool_cidr", "FD00:8:0::/48", "fd00:8::/48"),
        ("country", "Côte d'Ivoire", "Côte d'Ivoire"),
        ("country", "Bosnia and Herzegovina (BA)", "Bosnia and Herzegovina (BA)"),
        ("weight", 0, 0),
        ("max_peers", 0, 0),
    ],
)
def test_what_a_field_can_hold(sqlite: Registry, field: str, value: object, kept: object) -> None:
    with sqlite.write(keep=False) as session:
        (change,) = apply_nodes(session, [{"name": "n1", "ip_pool_cidr": "10.8.0.0/16", field: value}])
    assert change.after is not None
    assert change.after[field] == kept


def test_a_node_has_one_spelling(sqlite: Registry) -> None:
    apply(sqlite, LEAST)
    with pytest.raises(
        Conflict, match=r"node DE1.example.com is in the registry already, as de1.example.com"
    ):
        apply(sqlite, {**LEAST, "name": "DE1.example.com"})


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


# -- what else is kept, and how a node is reached


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "-oProxyCommand=id"),
        ("name", "all"),
        ("ansible_host", "-oProxyCommand=id"),
        ("ansible_port", 70000),
        ("ansible_user", "-oProxyCommand=id"),
        ("ansible_python_interpreter", "/bin/sh -c id #"),
    ],
)
def test_what_came_into_the_registry_otherwise_is_checked_too(field: str, value: object) -> None:
    check_connection(Node(**EVERYTHING))
    with pytest.raises(Invalid):
        check_connection(Node(**{**EVERYTHING, field: value}))
