"""Interfaces that somebody else has made on a node, with the very name that an instance gets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import new_key_pair
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Node, Teardown
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller


@pytest.fixture
def fleet(controller: Controller) -> DriftController:
    return with_drift(controller)


def made_by_hand(fleet: Controller, node: str, interface: str) -> dict[str, Any]:
    """Somebody's own interface, with a peer."""
    theirs = {
        "name": interface,
        "state": "present",
        "private_key": new_key_pair()[0],
        "listen_port": 40000,
        "addresses": ["192.0.2.1/24"],
        "peers": [
            {"public_key": new_key_pair()[1], "allowed_ips": ["192.0.2.2/32"], "persistent_keepalive": 0}
        ],
    }
    fleet.fleet.nodes[node].up[interface] = theirs
    return copy.deepcopy(theirs)


def next_interface(fleet: Controller) -> str:
    number = int(fleet.one("provision", instance="before@example.com", node=DE)["instance_id"])
    return f"wg{number + 1}"


@pytest.mark.parametrize("then", ["remove", "disconnect", "reconcile", "transfer"])
def test_a_new_instance_does_not_take_it_over(fleet: DriftController, then: str) -> None:
    interface = next_interface(fleet)
    theirs = made_by_hand(fleet, NL, interface)
    result = fleet.one("provision", instance=ALICE, node=NL)
    assert (result["status"], result["pending"]) == ("error", True)
    assert "has another key" in result["message"]
    assert fleet.fleet.nodes[NL].up[interface] == theirs

    if then == "reconcile":
        assert fleet.one("reconcile", node=NL)["data"]["summary"]["errors_count"] == 1
    else:
        result = fleet.one(then, instance=ALICE, **({"node": DE} if then == "transfer" else {}))
        assert result["status"] in ("success", "partial_success") or then == "transfer"
    assert fleet.fleet.nodes[NL].up[interface] == theirs
    if then == "remove":
        assert fleet.rows(Teardown) == []

    # When it is out of the way, all is as ever.
    del fleet.fleet.nodes[NL].up[interface]
    fleet.play("provision", instance=ALICE)
    assert_all_is_well(fleet.registry, fleet.fleet)


def test_an_instance_that_arrives_does_not_take_it_over(fleet: DriftController) -> None:
    """What came up of it is undone, and that is nothing."""
    interface = fleet.one("provision", instance=ALICE, node=NL)["interface"]
    mine = copy.deepcopy(fleet.fleet.nodes[NL].up[interface])
    theirs = made_by_hand(fleet, DE, interface)
    result = fleet.one("transfer", instance=ALICE, node=DE)
    assert result["status"] == "error"
    assert "has another key" in result["message"]
    assert (fleet.fleet.nodes[NL].up[interface], fleet.fleet.nodes[DE].up[interface]) == (mine, theirs)
    assert fleet.rows(Teardown) == []
    fleet.reconcile(DE)
    assert fleet.fleet.nodes[DE].up[interface] == theirs


def test_the_place_of_a_killed_transfer_is_not_taken_down_either(fleet: DriftController) -> None:
    interface = fleet.one("provision", instance=ALICE, node=NL)["interface"]
    assert fleet.killed("after a transaction", "transfer", instance=ALICE, node=DE)
    assert [row.reason for row in fleet.rows(Teardown)] == ["reserved"]
    theirs = made_by_hand(fleet, DE, interface)
    fleet.reconcile(DE)
    assert fleet.rows(Teardown) == []
    assert fleet.fleet.nodes[DE].up[interface] == theirs
    assert fleet.up(ALICE) == [DE, NL]


def test_an_instance_whose_key_was_changed_by_hand_is_still_its_own(fleet: DriftController) -> None:
    """Once it has been up on its node, what has its name there is its own, and goes with it."""
    interface = fleet.one("provision", instance=ALICE, node=NL)["interface"]
    fleet.fleet.nodes[NL].up[interface]["private_key"] = new_key_pair()[0]
    fleet.play("provision", instance=ALICE)
    assert_all_is_well(fleet.registry, fleet.fleet)
    fleet.fleet.nodes[NL].up[interface]["private_key"] = new_key_pair()[0]
    fleet.play("remove", instance=ALICE)
    assert fleet.fleet.nodes[NL].up == {}


def test_one_that_was_never_up_and_now_is_elsewhere(fleet: DriftController) -> None:
    """Disconnected customers come to a node without being up there."""
    interface = fleet.one("provision", instance=ALICE, node=NL)["interface"]
    fleet.play("disconnect", instance=ALICE)
    theirs = made_by_hand(fleet, DE, interface)
    assert fleet.one("transfer", instance=ALICE, node=DE)["status"] == "success"
    assert fleet.one("provision", instance=ALICE)["status"] == "error"
    fleet.fleet.set_weather(Weather.UNREACHABLE, DE)
    assert fleet.one("remove", instance=ALICE)["status"] == "partial_success"
    fleet.fleet.set_weather(Weather.FINE)
    fleet.reconcile(DE)
    assert fleet.rows(Teardown) == []
    assert fleet.fleet.nodes[DE].up[interface] == theirs


def test_no_instance_is_called_as_a_nodes_own_interface(fleet: DriftController) -> None:
    first = int(next_interface(fleet)[2:])
    with fleet.registry.write() as session:
        for name, number in ((NL, first), (DE, first + 2)):
            session.scalars(select(Node).where(Node.name == name)).one().wg_interface = f"wg{number}"
    made = [fleet.one("provision", instance=name)["instance_id"] for name in (ALICE, BOB)]
    assert made == [first + 1, first + 3]
    assert_all_is_well(fleet.registry, fleet.fleet)
