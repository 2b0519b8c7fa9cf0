"""What comes in between while a reconcile is at work on a node, and what it makes of answers that are cut short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import drift, reconcile, results
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instances import (
    require_instance,
    require_node,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Operation, Teardown
from tests.unit.plugins.plugin_utils.registry import reconciled_fleet
from tests.unit.plugins.plugin_utils.registry.reconciled_fleet import all_is_well, last_operation, up_on
from tests.unit.plugins.plugin_utils.registry.rows import add_teardown, any_key
from tests.unit.plugins.plugin_utils.registry.simulated_drift import DriftController, interface_of
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather, nothing
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, NL

fleet = reconciled_fleet.fleet
SWITCHES = {"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": False}


def at_call(fleet: DriftController, number: int, change: Callable[[Session], object]) -> None:
    """Have something changed in the registry at the end of the call of nl1 that is the `number`th."""
    calls = 0

    def at(point: str) -> None:
        nonlocal calls
        if point != f"while {NL} is called":
            return
        calls += 1
        if calls == number:
            fleet.at = nothing
            with fleet.registry.write() as session:
                change(session)

    fleet.at = at


def test_what_comes_to_be_taken_down_after_the_look_is_left_to_the_next(fleet: DriftController) -> None:
    at_call(fleet, 1, lambda session: add_teardown(session, require_node(session, NL)))
    (result,) = fleet.reconcile(NL)
    assert (result["status"], result["data"]["instances"]) == ("success", [])
    assert len(fleet.rows(Teardown)) == 1
    fleet.reconcile(NL)
    assert fleet.rows(Teardown) == []


def test_what_another_has_noted_as_taken_down_is_done(fleet: DriftController) -> None:
    fleet.fleet.set_weather(Weather.UNREACHABLE, NL)
    fleet.play("remove", instance=ALICE)
    fleet.fleet.set_weather(Weather.FINE)
    at_call(fleet, 2, lambda session: session.execute(delete(Teardown)))
    (result,) = fleet.reconcile(NL)
    assert (result["status"], result["message"]) == ("success", "Took down 1 instances, 0 errors")
    assert last_operation(fleet, ALICE).state == "succeeded"
    assert all_is_well(fleet)


def test_who_has_gone_elsewhere_in_between_is_not_confirmed_there(fleet: DriftController) -> None:
    """Somebody has taken this run for dead."""
    fleet.fleet.nodes[NL].up.pop(interface_of(fleet, ALICE))

    def move(session: Session) -> None:
        instance = require_instance(session, ALICE)
        instance.node, instance.applied = require_node(session, DE), False

    at_call(fleet, 2, move)
    fleet.reconcile(NL)
    assert not fleet.instance(ALICE).applied


def missed_by_nl1(fleet: DriftController) -> dict[str, Any]:
    """A watch that the registry knows and the node has not confirmed; what is up there."""
    fleet.fleet.set_weather(Weather.UNREACHABLE, NL)
    fleet.play("provision", instance=ALICE, peers=[{"name": "watch"}])
    fleet.fleet.set_weather(Weather.FINE)
    assert not fleet.instance(ALICE).applied
    return up_on(fleet, NL, ALICE)


def test_what_is_missing_stays_so_where_that_is_not_to_be_mended(fleet: DriftController) -> None:
    missed_by_nl1(fleet)
    fleet.fleet.nodes[NL].up.pop(interface_of(fleet, ALICE))
    (result,) = fleet.reconcile(NL, reconcile_missing=False)
    assert (result["changed"], fleet.up(ALICE), fleet.instance(ALICE).applied) == (False, [], False)
    fleet.reconcile(NL)
    assert all_is_well(fleet)


def test_a_peer_that_cannot_be_put_in_place_is_still_to_be_confirmed(fleet: DriftController) -> None:
    there = missed_by_nl1(fleet)
    phone = there["peers"][0]
    there["peers"][0] = {**phone, "public_key": any_key()}
    (result,) = fleet.reconcile(NL)
    assert [one["peer"] for one in result["data"]["errors"]] == [phone["public_key"]]
    assert not fleet.instance(ALICE).applied
    fleet.reconcile(NL, remove_unknown=True)
    assert all_is_well(fleet)


def an_answer(interface: str, **lists: list[dict[str, Any]]) -> dict[str, Any]:
    """What wg_drift says of one interface whose file differs by one peer."""
    return {
        "interface_issues": [
            {
                "interface": interface,
                "field": "file",
                "expected": "as running",
                "actual": "1 peer only running",
            }
        ],
        "summary": {"interface_count": 1},
        "missing_peers": [],
        "mismatched_peers": [],
        "unknown_peers": [],
        **lists,
    }


def test_a_file_that_was_written_anew_with_the_peers_is_not_written_again(fleet: DriftController) -> None:
    interface = interface_of(fleet, ALICE)
    with fleet.registry.write() as session:
        node = require_node(session, NL)
        operation = Operation(kind="reconcile", node_id=node.id, request=SWITCHES)
        looked = drift.wanted(session, node)

        def planned(answer: dict[str, Any]) -> list[str]:
            found = reconcile.repairs(session, operation, node, looked, answer)
            return [repair.interface for repair in found]

        assert planned(an_answer(interface)) == [interface]
        mended = an_answer(interface, missing_peers=[{"interface": interface, "public_key": any_key()}])
        assert planned(mended) == []


def test_numbers_are_of_all_also_where_the_module_tells_some_alone() -> None:
    answer = an_answer("wg1")
    answer["reconciled"] = {
        "added": ["a", "b"],
        "added_count": 5000,
        "updated": [],
        "removed": [],
        "errors": [],
    }
    told = reconcile.report(Operation(kind="reconcile", request=SWITCHES), answer, [], {}, {})
    assert (told["added"], told["summary"]["added_count"], told["truncated"]) == (["a", "b"], 5000, True)


def test_what_never_fits_is_cut_as_short_as_can_be() -> None:
    reports = [{"names": list("abc"), "more": "x" * 100}]
    assert results.fit(reports, 10, ["names"]) == [{"names": [], "more": "x" * 100, "truncated": True}]
