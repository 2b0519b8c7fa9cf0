"""What drift.yml finds on nodes in memory."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import owner
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import require_node
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    Operation,
    Peer,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes
from tests.unit.plugins.plugin_utils.registry.rows import (
    add_teardown,
    any_key,
    left_of,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of, with_drift
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
