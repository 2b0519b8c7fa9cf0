"""What drift.yml finds, tells and records, on nodes in memory."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import drift, owner
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict, NotFound
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Instance,
    Node,
    Operation,
    Peer,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes
from tests.unit.plugins.plugin_utils.registry.rows import (
    add_instance,
    add_node,
    add_peer,
    add_peers,
    add_teardown,
    any_key,
    left_of,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

NOTHING: dict[str, Any] = {"unknown_peers": [], "missing_peers": [], "mismatched_peers": []}


@pytest.fixture
def fleet(controller: Controller) -> DriftController:
    """Alice and Bob on nl1, she with a phone and a tablet."""
    made = with_drift(controller)
    made.play("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}, {"name": "tablet"}])
    made.play("provision", instance=BOB, node=NL, peers=[{"name": "laptop", "persistent_keepalive": 25}])
    return made


def issues(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(one.values()) for one in report["interface_issues"]]


# ---- what is found


def test_what_changes_in_the_registry_while_a_node_is_read_is_no_drift(fleet: DriftController) -> None:
    """A run of somebody else begins and ends in between. What differs all the same is told."""
    ours, other = interface_of(fleet, ALICE), interface_of(fleet, BOB)
    up = fleet.fleet.nodes[NL].up
    phone = up[ours]["peers"][0]["public_key"]
    up[other]["listen_port"] = 9
    up[ours]["peers"] = [one for one in up[ours]["peers"] if one["public_key"] != phone]
    up[ours]["mtu"] = 1300

    def at(point: str) -> None:
        if point == f"before {NL} is called":
            fleet.at = lambda _point: None
            looked = fleet.modules
            with_drift(fleet).play("provision", instance="carl@example.com", node=NL, peers=[{"name": "pc"}])
            with_drift(fleet).play("provision", instance=ALICE, peers=[{"name": "watch"}])
            up[ours]["peers"] = [one for one in up[ours]["peers"] if one["public_key"] != phone]
            fleet.modules = looked

    fleet.at = at
    report = fleet.report(NL)
    assert [(one["interface"], one["public_key"]) for one in report["missing_peers"]] == [(ours, phone)]
    assert [issue[:2] for issue in issues(report)] == [(other, "listen_port")]
    assert report["unknown_peers"] == report["mismatched_peers"] == []
    assert report["summary"] == {
        "unknown_count": 0,
        "missing_count": 1,
        "mismatched_count": 0,
        "interface_count": 1,
        "total_issues": 2,
    }
    fleet.reconcile(NL)
    assert not fleet.report(NL)["has_drift"]


def test_no_drift(fleet: DriftController) -> None:
    report = fleet.report(NL)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", report.pop("detected_at"))
    with fleet.registry.read() as session:
        node_id = require_node(session, NL).id
    assert report == {
        "has_drift": False,
        **NOTHING,
        "interface_issues": [],
        "summary": {
            "unknown_count": 0,
            "missing_count": 0,
            "mismatched_count": 0,
            "interface_count": 0,
            "total_issues": 0,
        },
        "node_id": node_id,
    }


def test_peers_bear_the_registrys_names(fleet: DriftController) -> None:
    name, other = interface_of(fleet, ALICE), interface_of(fleet, BOB)
    up = fleet.fleet.nodes[NL].up
    stranger = {"public_key": any_key(), "allowed_ips": ["10.99.0.1/32"], "persistent_keepalive": 0}
    phone, tablet = up[name]["peers"]
    up[name]["peers"] = [tablet, stranger]
    up[other]["peers"][0]["persistent_keepalive"] = 30
    report = fleet.report(NL)
    with fleet.registry.read() as session:
        ids = {one.name: one.id for one in session.scalars(select(Peer))}
    assert report["missing_peers"] == [
        {
            "interface": name,
            "public_key": phone["public_key"],
            "name": "phone",
            "allowed_ips": phone["allowed_ips"],
            "peer_id": ids["phone"],
        }
    ]
    assert report["unknown_peers"] == [{"interface": name, "endpoint": None, **stranger}]
    (mismatched,) = report["mismatched_peers"]
    assert mismatched.pop("mismatches") == [{"field": "persistent_keepalive", "expected": 25, "actual": 30}]
    assert mismatched == {
        "interface": other,
        "public_key": up[other]["peers"][0]["public_key"],
        "name": "laptop",
        "peer_id": ids["laptop"],
    }
    assert report["summary"]["total_issues"] == 3


def test_an_interface_is_compared_in_all_that_the_registry_knows(fleet: DriftController) -> None:
    name = interface_of(fleet, ALICE)
    with fleet.registry.write() as session:
        require_node(session, NL).override_mtu = 1380
        instance = session.scalars(select(Instance).where(Instance.name == ALICE)).one()
        key, port = instance.public_key, instance.listen_port
    there = fleet.fleet.nodes[NL].up[name]
    addresses = there["addresses"]
    wrong = {"private_key": fleet.fleet.nodes[NL].up[interface_of(fleet, BOB)]["private_key"]}
    there.update(wrong, listen_port=9, addresses=["10.99.0.1/24"])
    found = {field: (should, is_) for _, field, should, is_ in issues(fleet.report(NL)) if _ == name}
    assert found.pop("public_key")[0] == key
    assert found == {
        "listen_port": (port, 9),
        "addresses": (sorted(addresses), ["10.99.0.1/24"]),
        "mtu": (1380, 1420),
    }


def test_overrides_are_drift_until_a_reconcile(fleet: DriftController) -> None:
    """Ports stay: a live tunnel is not moved by what a node says of new instances."""
    name = interface_of(fleet, ALICE)
    port = fleet.fleet.nodes[NL].up[name]["listen_port"]
    overrides = {
        "override_mtu": 1380,
        "override_keepalive": 30,
        "override_listen_port": 40000,
        "override_dns": "192.0.2.53",
        "override_endpoint_allowed_ip": "10.0.0.0/8",
    }
    with fleet.registry.write() as session:
        apply_nodes(session, [{"name": NL, **overrides}])
    report = fleet.report(NL)
    others = sorted({interface_of(fleet, ALICE), interface_of(fleet, BOB)})
    assert sorted(issues(report)) == [(each, "mtu", 1380, 1420) for each in others]
    # Bob's laptop says something itself.
    assert sorted((one["name"], one["mismatches"]) for one in report["mismatched_peers"]) == [
        (peer, [{"field": "persistent_keepalive", "expected": 30, "actual": 0}])
        for peer in ("phone", "tablet")
    ]
    assert report["summary"]["total_issues"] == 4
    fleet.reconcile(NL)
    assert fleet.report(NL)["has_drift"] is False
    there = fleet.fleet.nodes[NL].up[name]
    assert (there["mtu"], there["listen_port"]) == (1380, port)
    assert {peer["persistent_keepalive"] for peer in there["peers"]} == {30}
    assert all(one.applied for one in fleet.rows(Instance))
    assert fleet.one("provision", instance="carl@example.com", node=NL)["listen_port"] == 40000

    with fleet.registry.write() as session:
        apply_nodes(session, [{"name": NL, "override_keepalive": None}])
    report = fleet.report(NL)
    assert [one["mismatches"][0]["expected"] for one in report["mismatched_peers"]] == [0, 0]
    fleet.reconcile(NL)
    assert fleet.report(NL)["has_drift"] is False


def test_an_instance_that_moves_gets_what_the_other_node_says(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        apply_nodes(
            session,
            [
                {"name": NL, "override_keepalive": 30, "override_dns": "192.0.2.53"},
                {"name": DE, "override_mtu": 1300, "override_keepalive": 15, "override_listen_port": 40000},
            ],
        )
    told = fleet.one("transfer", instance=ALICE, node=DE)
    there = fleet.fleet.nodes[DE].up[interface_of(fleet, ALICE)]
    assert there["mtu"] == told["mtu"] == 1300
    assert {peer["persistent_keepalive"] for peer in there["peers"]} == {15}
    assert (told["keepalive"], told["dns"]) == (15, None)
    assert told["listen_port"] == 51820  # its own, as it is free there
    assert fleet.report(DE)["has_drift"] is False


def test_what_should_not_be_up(fleet: DriftController) -> None:
    """A disconnected instance, what is still to be taken down, and what nobody knows; not the node's own interface."""
    name = interface_of(fleet, ALICE)
    up = fleet.fleet.nodes[NL].up
    kept = up[name]
    fleet.play("disconnect", instance=ALICE)
    assert fleet.report(NL)["has_drift"] is False
    up[name] = kept
    with fleet.registry.write() as session:
        row = add_teardown(session, require_node(session, NL))
        not_there = add_teardown(session, require_node(session, NL))
    for other in (row.interface, "wg4711", "wg0", "tun7"):
        up[other] = kept
    report = fleet.report(NL)
    assert not_there.interface not in json.dumps(report)
    assert sorted(issues(report)) == sorted(
        (one, "interface", "absent", "up") for one in (name, row.interface, "wg4711")
    )
    assert {kind: report[kind] for kind in NOTHING} == NOTHING


def test_what_another_run_is_at_work_on_is_no_drift(fleet: DriftController) -> None:
    """Neither its instance, gone or not, nor what it has reserved, nor what others have left of hers elsewhere."""
    name = interface_of(fleet, ALICE)
    with fleet.registry.write() as session:
        node, target = require_node(session, NL), require_node(session, DE)
        instance = session.scalars(select(Instance).where(Instance.name == ALICE)).one()
        operation = Operation(kind="transfer", state="running", instance_name=ALICE)
        operation.owner = owner.process_token(os.getpid())
        session.add(operation)
        session.flush()
        add_teardown(session, target, operation_id=operation.id, **left_of(instance, "reserved"))
        add_teardown(session, require_node(session, FR), **left_of(instance, "transferred"))
        assert node.id == instance.node_id
    there = fleet.fleet.nodes[NL].up.pop(name)
    fleet.fleet.nodes[DE].up[name] = fleet.fleet.nodes[FR].up[name] = there
    assert [fleet.report(each)["has_drift"] for each in (NL, DE, FR)] == [False, False, False]
    with fleet.registry.write() as session:
        session.get_one(Operation, operation.id).owner = token_of_the_dead()
    assert [issues(fleet.report(each)) for each in (NL, DE, FR)] == [
        [(name, "interface", "up", "missing"), (name, "file", "as running", "missing")],
        [(name, "interface", "absent", "up")],
        [(name, "interface", "absent", "up")],
    ]


# ---- what is told and recorded


def test_a_look_changes_nothing_but_its_row_and_the_audit(fleet: DriftController) -> None:
    fleet.fleet.nodes[NL].up.clear()
    result = fleet.one("drift", node=NL)
    assert fleet.fleet.nodes[NL].up == {}
    assert fleet.modules == [(NL, "wg_drift")]
    assert (result["changed"], result["status"], result["code"], result["pending"]) == (
        False, "success", 200, False,
    )  # fmt: skip
    assert (result["operation"], result["node"], result["instance"]) == ("drift", NL, None)
    assert result["message"] == (
        f"Drift detection completed for {NL}: 3 missing peers, 0 mismatched peers, 0 unknown peers, "
        "4 interface issues"
    )
    assert f"{NL}: {interface_of(fleet, ALICE)}: interface is missing, should be up" in result["warnings"]
    with fleet.registry.read() as session:
        row = session.get_one(Operation, result["operation_id"])
        assert (row.kind, row.state, row.result, row.owner) == ("drift", "succeeded", result, None)
        assert "report" not in row.progress
        audit = session.scalars(select(AuditEntry).where(AuditEntry.operation_id == row.id)).one()
        assert (audit.action, audit.subject, audit.result) == ("drift", NL, "success")
        node = require_node(session, NL)
        assert node.id == row.node_id == result["node_id"]
        assert node.last_seen is not None
        assert not session.scalars(select(Instance).where(Instance.applied.is_(False))).all()


def test_check_mode_looks_all_the_same_and_records_nothing(fleet: DriftController) -> None:
    fleet.fleet.nodes[NL].up.clear()
    fleet.fleet.set_weather(Weather.UNREACHABLE, FR)
    with fleet.registry.read() as session:
        before = set(session.scalars(select(Operation.id)))
    published = fleet.play("drift", check=True)
    with fleet.registry.read() as session:
        assert set(session.scalars(select(Operation.id))) == before
    assert published["data"]["summary"] == {
        "total_nodes": 3,
        "nodes_with_drift": 1,
        "total_issues": 7,
        "unreachable_nodes": 1,
    }
    by_node = {one["node"]: one["status"] for one in published["operations"]}
    assert by_node == {NL: "planned", DE: "planned", FR: "error"}
    assert len(fleet.undone) == 1


def test_the_report_of_the_fleet(fleet: DriftController) -> None:
    fleet.fleet.nodes[NL].up.popitem()
    fleet.fleet.set_weather(Weather.UNREACHABLE, DE)
    fleet.fleet.set_weather(Weather.REFUSES, FR)
    seen = {NL: None, DE: datetime(2026, 1, 15, 10, 30, tzinfo=UTC), FR: None}
    with fleet.registry.write() as session:
        for name, at in seen.items():
            require_node(session, name).last_seen = at
    published = fleet.play("drift")
    nodes = {one["node"]: published["data"]["nodes"][one["node_id"]] for one in published["operations"]}
    assert nodes[NL]["summary"]["total_issues"] == 3
    for name, why in (
        (DE, "cannot be reached: de1.example.com is down"),
        (FR, ": wg7 is there but cannot be read"),
    ):
        assert why in nodes[name]["error"]
        assert (nodes[name]["has_drift"], nodes[name]["summary"]) == (None, {"total_issues": 0})
    # The one that answered, if only that it cannot be read, was seen now.
    assert {name: one["reachable"] for name, one in nodes.items()} == {NL: True, DE: False, FR: True}
    assert nodes[DE]["last_seen"] == "2026-01-15T10:30:00"
    assert nodes[DE]["error"].endswith("is down; it was last seen at 2026-01-15T10:30:00 UTC")
    assert nodes[FR]["last_seen"] > "2026-01-15T10:30:00"
    assert "error" not in nodes[NL]
    assert published["data"]["summary"] == {
        "total_nodes": 3,
        "nodes_with_drift": 1,
        "total_issues": 3,
        "unreachable_nodes": 1,
    }
    assert published["status"] == "partial_success"
    assert len(fleet.undone) == 2
    with fleet.registry.read() as session:
        rows = session.scalars(select(Operation).where(Operation.kind == "drift")).all()
        assert sorted(row.state for row in rows) == ["failed", "failed", "succeeded"]
    (alone,) = fleet.play("drift", node=DE)["operations"]
    assert (alone["status"], alone["code"], alone["pending"]) == ("error", 500, False)


def test_the_fleet_are_the_enabled_nodes_that_the_run_may_touch(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        require_node(session, DE).enabled = False
    assert [one["node"] for one in fleet.play("drift")["operations"]] == [FR, NL]
    assert [one["node"] for one in fleet.play("drift", limit=[NL, DE])["operations"]] == [NL]
    assert [one["node"] for one in fleet.play("drift", node=DE)["operations"]] == [DE]
    with pytest.raises(NotFound, match="none of 2 enabled nodes is in this run"):
        fleet.play("drift", limit=[DE])
    with pytest.raises(Conflict, match=re.escape(f"node {NL} is left out")):
        fleet.play("drift", node=NL, limit=[DE])
    with pytest.raises(NotFound, match="no node is called"):
        fleet.play("drift", node="us1.example.com")
    with fleet.registry.write() as session:
        for node in session.scalars(select(Node)):
            node.enabled = False
    with pytest.raises(NotFound, match="no enabled node"):
        fleet.play("drift")


def test_what_is_published_has_a_limit_and_the_numbers_are_exact(fleet: DriftController) -> None:
    """A runner loses what is longer than 700,000 characters, and it stands in the task's result twice."""
    with fleet.registry.write() as session:
        for number in range(40):
            node = add_node(session, f"us{number}.example.com")
            add_instance(session, node, peers=500)
            fleet.fleet.nodes[node.name] = type(fleet.fleet.nodes[NL])()
        add_instance(session, require_node(session, NL), peers=3000)
    published = fleet.play("drift")
    assert len(json.dumps(published)) < 300_000
    assert published["data"]["summary"]["total_issues"] == 40 * 502 + 3002
    reports = list(published["data"]["nodes"].values())
    assert all(one["truncated"] for one in reports if one["has_drift"])
    # What concerns whole interfaces is cut last.
    assert all(len(one["interface_issues"]) == 2 for one in reports if one["has_drift"])
    (alone,) = fleet.play("drift", node=NL)["operations"]
    assert len(json.dumps(alone)) < 300_000
    assert alone["data"]["summary"]["missing_count"] == 3000
    assert len(alone["data"]["missing_peers"]) >= 500


# ---- side by side


def test_two_looks_do_not_disturb_each_other_and_the_dead_make_way(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        node = require_node(session, NL)
        others = {
            name: Operation(kind="drift", state="running", node_id=node.id, run_id=name, owner=token)
            for name, token in (
                ("alive", owner.process_token(os.getpid())),
                ("dead", token_of_the_dead()),
            )
        }
        session.add_all(others.values())
    assert fleet.one("drift", node=NL)["status"] == "success"
    with fleet.registry.read() as session:
        states = {name: session.get_one(Operation, one.id).state for name, one in others.items()}
    assert states == {"alive": "running", "dead": "canceled"}


# ---- what it costs


def test_the_cost_is_that_of_the_node_not_of_the_fleet(fleet: DriftController) -> None:
    """As many queries whatever else there is, and each by an index."""
    with fleet.registry.write() as session:
        for number in range(5):
            node = add_node(session, f"us{number}.example.com")
            instance = add_instance(session, node)
            add_peers(session, instance, 20)
            add_peer(session, instance, "10.77.0.0/24")
            add_teardown(session, node)
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        asked.append((statement, values))

    engine = fleet.registry.engine
    with fleet.registry.read() as session:
        node = require_node(session, NL)
        event.listen(engine, "before_cursor_execute", note)
        try:
            wanted = drift.wanted(session, node)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        plans = {statement: plan(engine, session, statement, values) for statement, values in asked}
    assert len(wanted.instances) == 2
    assert len(asked) <= 6
    for statement, found in plans.items():
        assert not re.search(r"\bSCAN\b|Seq Scan", found), (statement, found)


def plan(engine: Engine, session: Session, statement: str, values: Any) -> str:
    """How the database answers a query when the tables are long."""
    connection = session.connection()
    if engine.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
        return "\n".join(row[0] for row in rows)
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    return "\n".join(str(row[3]) for row in rows)


def test_what_is_wrong_with_a_row_is_told_of_its_node_and_of_no_other(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        session.execute(
            text("UPDATE peer SET preshared_key = 'nothing that this key has sealed' WHERE name = 'phone'")
        )
    found = fleet.play("drift")["data"]["nodes"]
    with fleet.registry.read() as session:
        bad = require_node(session, NL).id
    assert "error" in found[bad]
    assert [node for node, told in found.items() if "error" in told] == [bad]
    assert len(found) > 1
