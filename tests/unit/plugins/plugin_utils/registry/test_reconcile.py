"""What reconcile.yml mends, tells and records, and what it finishes for runs that are gone, on nodes in memory."""

from __future__ import annotations

import os
import pickle
import time
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.action import operation_begin
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import owner
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Busy,
    Conflict,
    Invalid,
    NodeBusy,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    require_instance,
    require_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    Operation,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_operations import of_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.reconcile import Repair
from tests.unit.plugins.plugin_utils.registry import reconciled_fleet
from tests.unit.plugins.plugin_utils.registry.interrupted_runs import (
    SERVED,
    Asked,
    to,
)
from tests.unit.plugins.plugin_utils.registry.reconciled_fleet import (
    EVERYTHING,
    NOTHING,
    all_is_well,
    drift_of_alice,
    keys_of,
    last_operation,
    mended_once,
    up_on,
)
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, any_key
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather, nothing
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller, token_of_the_dead

fleet = reconciled_fleet.fleet


# ---- peers


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Added 1 peers, Updated 1 peers, 0 errors"),
        (EVERYTHING, "Added 1 peers, Updated 1 peers, Removed 1 peers, 0 errors"),
        ({"reconcile_missing": False}, "Updated 1 peers, 0 errors"),
        ({"reconcile_mismatched": "no"}, "Added 1 peers, 0 errors"),
        ({**NOTHING, "remove_unknown": True}, "Removed 1 peers, 0 errors"),
        (NOTHING, "Nothing to repair that the switches allow"),
    ],
)
def test_peers_as_the_switches_allow(fleet: DriftController, asked: dict[str, Any], message: str) -> None:
    phone, tablet, stranger = drift_of_alice(fleet)
    result = mended_once(fleet, **asked)
    assert fleet.modules == [(NL, "wg_drift")]
    assert result["message"] == message
    data = result["data"]
    assert data["added"] == ([phone] if "Added" in message else [])
    assert data["updated"] == ([tablet] if "Updated" in message else [])
    assert data["removed"] == ([stranger] if "Removed" in message else [])
    assert (data["errors"], data["instances"]) == ([], [])
    assert result["changed"] is ("Nothing" not in message)
    expected = {tablet} | ({phone} if data["added"] else set()) | (set() if data["removed"] else {stranger})
    assert set(keys_of(up_on(fleet, NL, ALICE))) == expected
    if asked == EVERYTHING:
        assert all_is_well(fleet)


def test_where_nothing_differs_it_says_so(fleet: DriftController) -> None:
    (result,) = fleet.reconcile(NL)
    assert (result["message"], result["changed"]) == ("Nothing to repair", False)


def test_a_peer_that_cannot_be_put_in_place_holds_up_nobody(fleet: DriftController) -> None:
    there, other = up_on(fleet, NL, ALICE), up_on(fleet, NL, BOB)
    phone, tablet = there["peers"]
    there["peers"] = [
        {"public_key": any_key(), "allowed_ips": phone["allowed_ips"][:1], "persistent_keepalive": 0}
    ]
    (laptop,) = other["peers"]
    other["peers"] = []
    (result,) = fleet.reconcile(NL)
    assert result["message"] == "Added 2 peers, 1 errors"
    assert (result["status"], result["code"], result["pending"]) == ("partial_success", 200, False)
    assert sorted(result["data"]["added"]) == sorted([tablet["public_key"], laptop["public_key"]])
    (error,) = result["data"]["errors"]
    assert (error["peer"], error["action"]) == (phone["public_key"], "add")
    assert "overlaps" in error["error"]
    assert error["error"] in result["warnings"][0]
    assert fleet.undone == []
    with fleet.registry.read() as session:
        row = session.get_one(Operation, result["operation_id"])
        assert (row.state, row.result) == ("succeeded", result)
        audit = session.scalars(select(AuditEntry).where(AuditEntry.operation_id == row.id)).one()
        assert (audit.action, audit.subject, audit.result) == ("reconcile", NL, "partial_success")


def test_too_many_strangers_are_not_removed(fleet: DriftController) -> None:
    """And hold up nobody."""
    there = up_on(fleet, NL, ALICE)
    gone = there["peers"].pop()
    there["peers"] += [
        {"public_key": any_key(), "allowed_ips": [], "persistent_keepalive": 0} for _ in range(11)
    ]
    (result,) = fleet.reconcile(NL, remove_unknown=True)
    assert "11 unknown peers would be removed, 10 are allowed" in result["data"]["errors"][0]["error"]
    assert result["data"]["added"] == [gone["public_key"]]
    assert len(there["peers"]) == 13
    with fleet.registry.read() as session:
        progress = session.get_one(Operation, result["operation_id"]).progress or {}
    assert (progress["left"]["missing_count"], progress["left"]["unknown_count"]) == (0, 11)
    (result,) = fleet.reconcile(NL, remove_unknown=True, max_removals="11")
    assert result["data"]["summary"]["removed_count"] == 11
    assert all_is_well(fleet)


# ---- interfaces


def test_a_missing_interface_comes_back_with_all_its_peers(fleet: DriftController) -> None:
    before = fleet.fleet.nodes[NL].up.copy()
    gone = fleet.fleet.nodes[NL].up.pop(interface_of(fleet, ALICE))
    (result,) = fleet.reconcile(NL, reconcile_missing=False)
    assert (result["message"], result["status"]) == (
        "Nothing to repair that the switches allow",
        "success",
    )
    result = mended_once(fleet)
    assert fleet.modules == [(NL, "wg_drift"), (NL, "wg_instance")]
    assert result["message"] == "Added 2 peers, Put right 1 instances, 0 errors"
    assert sorted(result["data"]["added"]) == sorted(keys_of(gone))
    assert result["data"]["instances"] == [
        {"interface": gone["name"], "instance": ALICE, "state": "present", "changed": True}
    ]
    assert fleet.fleet.nodes[NL].up.keys() == before.keys()
    assert all_is_well(fleet)


@pytest.mark.parametrize(
    "fields", [{"listen_port": 9}, {"addresses": ["10.99.0.1/24"]}, {"private_key": any_key()}]
)
def test_an_interface_set_up_otherwise_is_put_right_and_its_peers_stay(
    fleet: DriftController, fields: dict[str, Any]
) -> None:
    there = up_on(fleet, NL, ALICE)
    there.update(fields)
    stranger = {"public_key": any_key(), "allowed_ips": [], "persistent_keepalive": 0}
    there["peers"].append(stranger)
    (result,) = fleet.reconcile(NL, reconcile_mismatched=False)
    assert result["data"]["instances"] == []
    result = mended_once(fleet)
    assert result["message"] == "Put right 1 instances, 0 errors"
    assert stranger in up_on(fleet, NL, ALICE)["peers"]
    mended_once(fleet, remove_unknown=True)
    assert all_is_well(fleet)


def test_what_nobody_knows_is_left_alone(fleet: DriftController) -> None:
    up = fleet.fleet.nodes[NL].up
    up["wg4711"] = {**up_on(fleet, NL, ALICE), "name": "wg4711", "listen_port": 4711}
    before = pickle.dumps(up["wg4711"])
    (result,) = fleet.reconcile(NL, **EVERYTHING)
    assert result["changed"] is False
    assert pickle.dumps(up["wg4711"]) == before


def test_a_node_that_was_rebuilt(fleet: DriftController) -> None:
    """More is missing than a report may hold: all of it comes back, in the right order of steps."""
    with fleet.registry.write() as session:
        node = require_node(session, NL)
        ids = [add_instance(session, node, peers=1500, applied=number == 0).id for number in range(2)]
    fleet.fleet.nodes[NL].up.clear()
    (result,) = fleet.reconcile(NL)
    assert result["data"]["summary"]["added_count"] == 3003
    assert result["data"]["truncated"] is True
    assert all(len(fleet.fleet.nodes[NL].up[f"wg{number}"]["peers"]) == 1500 for number in ids)
    assert all_is_well(fleet)


# ---- wishes that a node has missed


MISSED: dict[str, tuple[list[Asked], Asked]] = {
    "a new customer": ([], ("provision", {"node": NL, "peers": [{"name": "phone"}]})),
    "another peer": ([*SERVED[0][:1]], ("provision", {"peers": [{"name": "tablet"}]})),
    "a disconnection": ([*SERVED[0][:1]], ("disconnect", {})),
    "a removal": ([*SERVED[0][:1]], ("remove", {})),
    "a transfer": ([*SERVED[0][:1]], to(DE)),
}


@pytest.mark.parametrize("name", MISSED)
@pytest.mark.parametrize("switches", [{}, NOTHING], ids=["by default", "nothing but wishes"])
def test_what_a_node_has_missed_is_done(controller: Controller, name: str, switches: dict[str, Any]) -> None:
    fleet = with_drift(controller)
    before, (kind, variables) = MISSED[name]
    for earlier, more in before:
        fleet.play(earlier, instance=ALICE, **more)
    fleet.fleet.set_weather(Weather.UNREACHABLE, NL)
    fleet.play(kind, instance=ALICE, **variables)
    assert last_operation(fleet, ALICE).state == "pending"
    (failed,) = fleet.reconcile(NL)
    assert (failed["status"], failed["code"], failed["pending"]) == ("error", 500, False)
    assert "cannot be reached" in failed["message"]
    assert fleet.undone == [failed["message"]]
    assert last_operation(fleet, ALICE).state == "pending"
    fleet.fleet.set_weather(Weather.FINE)

    result = mended_once(fleet, **switches)

    if kind == "provision" and switches:
        assert result["changed"] is False  # it brings nothing up
        return
    ended = last_operation(fleet, ALICE)
    assert ended.state == "succeeded"
    assert ended.result is not None
    assert (ended.result["pending"], ended.result["changed"]) == (False, True)
    assert ended.result["operation_id"] == ended.id
    assert "warnings" not in ended.result
    assert ended.owner is None
    assert ended.finished_at is not None
    assert all_is_well(fleet)
    with fleet.registry.read() as session:
        audits = session.scalars(select(AuditEntry).where(AuditEntry.operation_id == ended.id)).all()
    assert len(audits) == 2


def test_what_still_fails_stays_recorded(fleet: DriftController) -> None:
    fleet.fleet.set_weather(Weather.UNREACHABLE, NL)
    fleet.play("remove", instance=ALICE)
    fleet.fleet.set_weather(Weather.FINE)

    def lose(point: str) -> None:
        if point == f"while {NL} is called":
            fleet.fleet.set_weather(Weather.UNREACHABLE, NL)

    fleet.at = lose
    (result,) = fleet.reconcile(NL)
    fleet.at = nothing
    assert result["message"] == "1 errors"
    assert result["data"]["errors"][0]["action"] == "take down"
    assert result["data"]["errors"][0]["error"] == f"{NL} is down"
    with fleet.registry.read() as session:
        row = session.scalars(select(Teardown)).one()
        assert row.attempts == 2
    assert last_operation(fleet, ALICE).state == "pending"
    fleet.fleet.set_weather(Weather.FINE)
    fleet.reconcile(NL)
    assert all_is_well(fleet)


# ---- side by side


def test_of_two_reconciles_of_a_node_one_is_told(fleet: DriftController) -> None:
    with fleet.registry.write() as session:
        node = require_node(session, NL)
        other = Operation(kind="reconcile", state="running", node_id=node.id, run_id="other")
        other.owner = owner.process_token(os.getpid())
        session.add(other)
    with pytest.raises(Busy, match=f"{NL} is busy: reconcile {other.id} is at work"):
        fleet.play("reconcile", node=NL)
    assert fleet.report(NL)["has_drift"] is False
    fleet.reconcile(DE)
    with fleet.registry.write() as session:
        session.get_one(Operation, other.id).owner = token_of_the_dead()
    fleet.reconcile(NL)
    with fleet.registry.read() as session:
        assert session.get_one(Operation, other.id).state == "canceled"


def test_no_run_takes_up_an_instance_of_a_node_that_is_reconciled(
    fleet: DriftController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits a while, and then says so. Others go on."""
    monkeypatch.setattr(operation_begin, "_PATIENCE", 0.0)
    fleet.play("provision", instance="carl@example.com", node=DE)
    fleet.fleet.set_weather(Weather.UNREACHABLE, NL)
    fleet.play("transfer", instance=BOB, node=FR)
    fleet.fleet.set_weather(Weather.FINE)
    with fleet.registry.write() as session:
        node = require_node(session, NL)
        other = Operation(kind="reconcile", state="running", node_id=node.id, run_id="other")
        other.owner = owner.process_token(os.getpid())
        session.add(other)
    before = pickle.dumps(fleet.fleet)
    for name in (ALICE, BOB):  # of hers there is the instance, of his what is left of it
        for kind in ("provision", "disconnect", "remove"):
            with pytest.raises(NodeBusy, match=f"{name} is busy: reconcile"):
                fleet.play(kind, instance=name)
        with pytest.raises(NodeBusy):
            fleet.play("transfer", instance=name, node=DE)
    assert pickle.dumps(fleet.fleet) == before
    fleet.play("transfer", instance="carl@example.com", node=NL)
    fleet.play("provision", instance="dora@example.com", node=NL)

    monkeypatch.setattr(operation_begin, "_PATIENCE", 60.0)
    monkeypatch.setattr(time, "sleep", lambda _seconds: end(fleet, other))
    assert fleet.one("disconnect", instance=ALICE)["status"] == "success"


def end(fleet: DriftController, other: Operation) -> None:
    with fleet.registry.write() as session:
        session.get_one(Operation, other.id).state = "succeeded"


@pytest.mark.parametrize("kind", ["provision", "disconnect", "transfer", "remove"])
def test_what_another_run_is_at_work_on_is_left_alone(fleet: DriftController, kind: str) -> None:
    """A reconcile of every node at every point of a run changes nothing for that run."""
    asked: dict[str, dict[str, Any]] = {"provision": {"peers": [{"name": "watch"}]}, "transfer": {"node": DE}}
    registry, at_once = fleet.registry, with_drift(fleet)

    def reconcile(point: str) -> None:
        if point == "before a commit" or not point.startswith(("after", "before", "while")):
            return
        if point == "before a transaction" and not running():
            return
        for name in (NL, DE):
            calls = len(fleet.fleet.calls)
            (result,) = at_once.reconcile(name, **EVERYTHING)
            assert (result["changed"], result["data"]["instances"]) == (False, [])
            assert len(fleet.fleet.calls) == calls

    def running() -> bool:
        with registry.read() as session:
            query = select(Operation).where(Operation.state == "running", Operation.instance_name == ALICE)
            return session.scalar(query) is not None

    fleet.at = reconcile
    result = fleet.one(kind, instance=ALICE, **asked.get(kind, {}))
    fleet.at = nothing
    assert result["status"] in ("success", "partial_success")
    assert all_is_well(fleet)


def test_what_is_no_node_is_refused(fleet: DriftController) -> None:
    with pytest.raises(NotFound, match="no node is called"):
        fleet.play("reconcile", node="us1.example.com")
    with pytest.raises(Conflict, match="is left out"):
        fleet.play("reconcile", node=NL, limit=[DE])


@pytest.mark.parametrize("kind", ["provision", "disconnect"])
def test_what_had_nothing_to_do_and_was_left_out_comes_to_its_end(fleet: DriftController, kind: str) -> None:
    """The node has confirmed it before, and says so again."""
    fleet.play(kind, instance=ALICE)
    assert fleet.one(kind, instance=ALICE, limit=[DE])["pending"]
    (result,) = fleet.reconcile(NL)
    assert result["data"]["summary"]["errors_count"] == 0
    assert last_operation(fleet, ALICE).state == "succeeded"
    assert all_is_well(fleet)


def test_what_no_run_has_begun_is_left_to_the_first(fleet: DriftController) -> None:
    """A request that is only recorded is nothing that a reconcile may end."""
    with fleet.registry.write() as session:
        session.add(Operation(kind="transfer", instance_name=ALICE, request={"instance": ALICE, "node": DE}))
    fleet.reconcile(NL, DE)
    assert last_operation(fleet, ALICE).state == "pending"


def test_several_nodes_in_one_run(fleet: DriftController) -> None:
    drift_of_alice(fleet)
    fleet.fleet.set_weather(Weather.UNREACHABLE, FR)
    with pytest.raises(Invalid, match=rf"^nodes: {NL} is there twice"):
        fleet.play("drift", nodes=[NL, NL])
    looked = fleet.play("drift", nodes=[FR, NL])
    assert [one["node"] for one in looked["operations"]] == [FR, NL]
    assert looked["data"]["summary"] == {
        "total_nodes": 2,
        "nodes_with_drift": 1,
        "total_issues": 3,
        "unreachable_nodes": 1,
    }
    mended = fleet.play("reconcile", nodes=[NL, DE], **EVERYTHING)
    assert [(one["node"], one["changed"]) for one in mended["operations"]] == [(NL, True), (DE, False)]
    assert all_is_well(fleet)


def test_a_repair_shows_no_key_and_what_is_not_there_is_told(fleet: DriftController) -> None:
    repair = Repair("wg1", ALICE, {"name": "wg1", "state": "present", "private_key": "secret"})
    assert repr(repair) == "Repair(wg1, present)"
    with fleet.registry.read() as session:
        with pytest.raises(NotFound, match=r"no instance is called nobody@example\.com"):
            require_instance(session, "nobody@example.com")
        with pytest.raises(Conflict, match=f"this run has nothing to do on {NL}"):
            of_node([], require_node(session, NL))
