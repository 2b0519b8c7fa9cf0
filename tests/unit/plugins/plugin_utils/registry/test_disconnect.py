"""Disconnections from begin to end."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import NotFound
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    License,
    Operation,
    Peer,
    Teardown,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, problems
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

# What the callers of the HTTP contract read.
FIELDS = {"status", "message", "instance_id"}


@pytest.fixture
def served(controller: Controller) -> Controller:
    """Alice and Bob are on nl1."""
    controller.play("provision", instances=[ALICE, BOB], node=NL, peers=[{"name": "phone"}])
    controller.fleet.calls.clear()
    return controller


def test_it_is_down_and_stays_in_the_registry(served: Controller) -> None:
    before = served.instance(ALICE)
    result = served.one("disconnect", instance=ALICE)
    assert {key: result[key] for key in FIELDS} == {
        "status": "success",
        "message": f"Instance {before.interface} of {ALICE} disconnected from {NL}",
        "instance_id": before.id,
    }
    assert (result["code"], result["changed"], result["pending"]) == (200, True, False)
    assert served.fleet.calls == [(NL, [(before.interface, "disconnected")])]
    assert (served.up(ALICE), served.up(BOB)) == ([], [NL])
    after = served.instance(ALICE)
    assert (after.state, after.applied, after.node.name) == ("disconnected", True, NL)
    for field in ("uuid", "public_key", "listen_port", "subnet", "subnet6"):
        assert getattr(after, field) == getattr(before, field)
    assert len(served.rows(Peer)) == len(served.rows(License)) == 2
    (operation,) = [one for one in served.rows(Operation) if one.kind == "disconnect"]
    assert (operation.state, operation.result, operation.error) == ("succeeded", result, None)
    (entry,) = [one for one in served.rows(AuditEntry) if one.action == "disconnect"]
    assert (entry.subject, entry.result, entry.operation_id) == (ALICE, "success", operation.id)
    assert_all_is_well(served.registry, served.fleet)


def test_a_repeated_call_finds_it_done(served: Controller) -> None:
    served.play("disconnect", instance=ALICE)
    result = served.one("disconnect", instance=ALICE)
    assert (result["status"], result["code"], result["changed"]) == ("success", 200, False)
    assert (
        result["message"] == f"Instance {result['interface']} of {ALICE} was disconnected already from {NL}"
    )


def test_what_somebody_has_brought_up_by_hand_goes_down_again(served: Controller) -> None:
    interface = served.instance(ALICE).interface
    up = dict(served.fleet.nodes[NL].up)
    served.play("disconnect", instance=ALICE)
    served.fleet.nodes[NL].up[interface] = up[interface]
    result = served.one("disconnect", instance=ALICE)
    assert (result["status"], result["changed"], served.up(ALICE)) == ("success", True, [])


def test_many_take_one_call_for_each_node(served: Controller) -> None:
    served.play("provision", instance="carol@example.com", node=DE)
    served.fleet.calls.clear()
    results = served.play("disconnect", instances=[ALICE, "carol@example.com", BOB])
    assert [one["instance"] for one in results["operations"]] == [ALICE, "carol@example.com", BOB]
    assert sorted((node, len(jobs)) for node, jobs in served.fleet.calls) == [(DE, 1), (NL, 2)]
    assert list(served.fleet.everything()) == []
    assert_all_is_well(served.registry, served.fleet)


def test_who_is_unknown_stops_all_of_it(served: Controller) -> None:
    names = [f"nobody{number}@example.com" for number in range(7)]
    with pytest.raises(NotFound) as caught:
        served.play("disconnect", instances=[ALICE, *names])
    assert str(caught.value) == f"no instance is called {', '.join(names[:5])} and 2 more"
    assert served.fleet.calls == []
    assert [one.kind for one in served.rows(Operation)] == ["provision"] * 2
    assert_all_is_well(served.registry, served.fleet)


def test_a_plan_changes_nothing(served: Controller) -> None:
    result = served.one("disconnect", instance=ALICE, check=True)
    assert (result["status"], result["operation_id"]) == ("planned", None)
    assert (served.fleet.calls, served.up(ALICE), served.instance(ALICE).state) == ([], [NL], "present")
    assert len(served.rows(Operation)) == 2
    assert_all_is_well(served.registry, served.fleet)


@pytest.mark.parametrize("weather", [Weather.UNREACHABLE, Weather.LOST, Weather.CRASHES, Weather.REFUSES])
def test_a_node_that_fails_is_an_error_and_tried_again(served: Controller, weather: Weather) -> None:
    served.fleet.set_weather(weather, NL)
    result = served.one("disconnect", instance=ALICE)
    assert (result["status"], result["code"], result["pending"]) == ("error", 500, True)
    assert result["message"].startswith(f"{ALICE} is not disconnected: node {NL}")
    after = served.instance(ALICE)
    assert (after.state, after.applied) == ("disconnected", False)
    (operation,) = [one for one in served.rows(Operation) if one.kind == "disconnect"]
    assert (operation.state, operation.error, operation.owner) == ("pending", result["message"], None)
    assert problems(served.registry, served.fleet) == []
    served.fleet.set_weather(Weather.FINE)
    again = served.one("disconnect", instance=ALICE)
    assert (again["status"], again["operation_id"]) == ("success", result["operation_id"])
    assert_all_is_well(served.registry, served.fleet)


def test_what_was_down_is_unconfirmed_when_its_node_fails(served: Controller) -> None:
    served.play("disconnect", instance=ALICE)
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    assert served.one("disconnect", instance=ALICE)["pending"]
    served.fleet.set_weather(Weather.FINE)
    with_drift(served).play("reconcile", node=NL)
    assert_all_is_well(served.registry, served.fleet)


def test_a_limit_leaves_it_for_later(served: Controller) -> None:
    served.play("provision", instance="carol@example.com", node=DE)
    results = served.play("disconnect", instances=[ALICE, "carol@example.com"], limit=[DE, FR])
    alice, carol = results["operations"]
    assert (results["status"], alice["status"], carol["status"]) == ("partial_success", "error", "success")
    assert f"node {NL} was left out of this run" in alice["message"]
    assert (served.up(ALICE), served.up("carol@example.com")) == ([NL], [])
    served.play("disconnect", instance=ALICE)
    assert_all_is_well(served.registry, served.fleet)


def test_what_a_transfer_has_left_behind_goes_down_too(served: Controller) -> None:
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("transfer", instance=ALICE, node=DE)
    assert served.up(ALICE) == [DE, NL]
    result = served.one("disconnect", instance=ALICE)
    assert result["pending"]
    assert served.up(ALICE) == [NL]
    assert [row.reason for row in served.rows(Teardown)] == ["transferred"]
    served.fleet.set_weather(Weather.FINE)
    served.play("disconnect", instance=ALICE)
    assert_all_is_well(served.registry, served.fleet)
