"""What drift.yml tells and records of nodes in memory, side by side with others, and at what cost."""

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
)
from tests.unit.plugins.plugin_utils.registry import reconciled_fleet
from tests.unit.plugins.plugin_utils.registry.rows import (
    add_instance,
    add_node,
    add_peer,
    add_peers,
    add_teardown,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import token_of_the_dead

fleet = reconciled_fleet.fleet


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
