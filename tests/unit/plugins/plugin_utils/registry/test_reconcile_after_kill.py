"""What reconcile.yml finishes or undoes for runs that were killed, on nodes in memory."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import delete, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import find_instance
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    License,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.stages import outcomes
from tests.unit.plugins.plugin_utils.registry import reconciled_fleet
from tests.unit.plugins.plugin_utils.registry.consistency import left_to_do, problems
from tests.unit.plugins.plugin_utils.registry.interrupted_runs import (
    SCENARIOS,
    concerned,
    each_kill,
    points_apart,
    prepare,
    set_weather,
    to,
)
from tests.unit.plugins.plugin_utils.registry.reconciled_fleet import (
    EVERYTHING,
    all_is_well,
    drift_of_alice,
    last_operation,
)
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of, with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

fleet = reconciled_fleet.fleet


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SCENARIOS)
def test_reconciles_finish_or_undo_what_a_killed_run_had_begun(controller: Controller, name: str) -> None:
    """Wherever it was killed, and in whatever order its nodes are reconciled."""
    scenario = SCENARIOS[name]
    fleet = with_drift(controller)
    prepare(fleet, scenario)
    registry = fleet.registry
    wrong = []
    for turn, number in enumerate(each_kill(fleet, scenario.asked, partial(points_apart, registry, name))):
        set_weather(fleet, {})
        order = concerned(fleet)[:: 1 if turn % 2 else -1]
        for node in order:
            fleet.reconcile(node)
            found = problems(registry, fleet.fleet)
            wrong += [f"killed at {number}, then {node} of {order}: {problem}" for problem in found]
        found = left_to_do(registry, fleet.fleet)
        wrong += [f"killed at {number}, then {order}: {problem}" for problem in found]
    assert not wrong, "\n".join(wrong)
    assert not any(result["changed"] for result in fleet.reconcile(NL, DE, FR))


@pytest.mark.parametrize("first", [NL, DE])
def test_a_half_done_transfer_ends_on_one_node_by_one_reconcile(controller: Controller, first: str) -> None:
    """Killed when the customer was down on the source already: the target alone serves, by either's reconcile."""
    fleet = with_drift(controller)
    prepare(fleet, SCENARIOS["transfer"])
    registry, interface = fleet.registry, interface_of(fleet, ALICE)
    seen = 0
    for _ in each_kill(fleet, to(DE)):
        with registry.read() as session:
            instance = find_instance(session, ALICE)
            assert instance is not None
            place = instance.node.name
        if fleet.fleet.where(interface) != [DE] or place == DE:
            continue
        seen += 1
        fleet.reconcile(first)
        assert fleet.fleet.where(interface) == [DE]
        operation = last_operation(fleet, ALICE)
        assert operation.result is not None
        assert operation.result["status"] == "success"
        assert operation.result["node"] == DE
        with registry.read() as session:
            assert session.scalars(select(License.server).where(License.email == ALICE)).all() == [
                f"vpn-{DE}"
            ]
        fleet.reconcile(NL)
        assert last_operation(fleet, ALICE).state == "succeeded"
        assert all_is_well(fleet)
    assert seen >= 1


def test_a_transfer_that_had_only_arrived_is_undone(controller: Controller) -> None:
    fleet = with_drift(controller)
    prepare(fleet, SCENARIOS["transfer"])
    registry, interface = fleet.registry, interface_of(fleet, ALICE)
    seen = 0
    for _ in each_kill(fleet, to(DE)):
        operation = last_operation(fleet, ALICE)
        with registry.read() as session:
            instance = find_instance(session, ALICE)
            assert instance is not None
            if operation.kind != "transfer" or not instance.applied or instance.node.name == DE:
                continue
        seen += 1
        fleet.reconcile(NL)
        assert last_operation(fleet, ALICE).state == "running"
        fleet.reconcile(DE)
        assert fleet.fleet.where(interface) == [NL]
        ended = last_operation(fleet, ALICE)
        assert ended.state == "failed"
        assert ended.result is not None
        assert ended.result["message"] == (
            f"{ALICE} stays on {NL}, nothing has changed for it: the run was killed, and what it had done is undone by "
            f"a reconcile of {DE}"
        )
        assert (ended.result["node"], ended.result["changed"]) == (NL, False)
        assert all_is_well(fleet)
    assert seen >= 3


def test_a_reconcile_that_is_killed_is_done_by_the_next(fleet: DriftController) -> None:
    fleet.fleet.set_weather(Weather.UNREACHABLE, NL)
    fleet.play("transfer", instance=BOB, node=DE)
    fleet.fleet.set_weather(Weather.FINE)
    fleet.play("provision", instance="carl@example.com", node=NL, peers=[{"name": "phone"}])
    drift_of_alice(fleet)
    del fleet.fleet.nodes[NL].up[interface_of(fleet, "carl@example.com")]
    for _ in each_kill(fleet, ("reconcile", {"node": NL, **EVERYTHING})):
        fleet.reconcile(NL, **EVERYTHING)
        assert all_is_well(fleet)


def test_a_transfer_that_is_completed_in_the_registry_alone_is_a_change(controller: Controller) -> None:
    """Its nodes are as they should be already, and the reconcile of the target is what says so."""
    fleet = with_drift(controller)
    prepare(fleet, SCENARIOS["transfer"])
    interface = interface_of(fleet, ALICE)
    seen = 0
    for _ in each_kill(fleet, to(DE)):
        if fleet.fleet.where(interface) != [DE] or fleet.instance(ALICE).node.name == DE:
            continue
        seen += 1
        assert fleet.one("reconcile", node=DE, check=True)["changed"]
        assert fleet.one("reconcile", node=DE)["changed"]
        (_begun, mended, _told) = fleet.shown
        assert mended["changed"]
        assert not fleet.one("reconcile", node=DE)["changed"]
    assert seen >= 1


def test_a_killed_transfer_waits_for_its_target_when_an_earlier_ones_rest_is_gone(
    controller: Controller,
) -> None:
    fleet = with_drift(controller)
    prepare(fleet, SCENARIOS["transfer on"])
    set_weather(fleet, {})
    assert fleet.killed(3, "transfer", instance=ALICE, node=DE)
    fleet.reconcile(NL)
    assert fleet.up(ALICE) == [FR]
    killed = last_operation(fleet, ALICE)
    states = {found["node"]: found["state"] for found in outcomes(killed).values()}
    assert (killed.state, states) == ("running", {DE: "waiting", FR: "waiting", NL: "done"})
    fleet.reconcile(DE)
    ended = last_operation(fleet, ALICE)
    assert ended.state == "failed"
    assert (ended.result or {})["message"].startswith(f"{ALICE} stays on {FR}, nothing has changed for it")
    assert all_is_well(fleet)


def test_a_killed_transfer_of_a_disconnected_one_is_undone(controller: Controller) -> None:
    """On the target there was nothing to do but to reserve its place."""
    fleet = with_drift(controller)
    prepare(fleet, SCENARIOS["transfer of a disconnected one"])
    assert fleet.killed(3, "transfer", instance=ALICE, node=DE)
    fleet.reconcile(DE)
    ended = last_operation(fleet, ALICE)
    assert ended.state == "failed"
    assert (ended.result or {})["message"].endswith(f"what it had done is undone by a reconcile of {DE}")
    assert all_is_well(fleet)


def test_who_is_half_way_to_a_place_that_is_no_longer_reserved_is_served_where_he_was(
    controller: Controller,
) -> None:
    fleet = with_drift(controller)
    prepare(fleet, SCENARIOS["transfer"])
    assert fleet.killed(f"while {NL} is called", "transfer", instance=ALICE, node=DE)
    assert fleet.up(ALICE) == [DE]
    with fleet.registry.write() as session:
        session.execute(delete(Teardown))
    fleet.reconcile(NL)
    assert fleet.up(ALICE) == [DE, NL]
    assert last_operation(fleet, ALICE).state == "failed"
