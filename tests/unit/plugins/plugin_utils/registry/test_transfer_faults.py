"""Transfers on nodes that do not do what they are told, and after runs that were killed half-way."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    License,
    Teardown,
)
from tests.unit.plugins.plugin_utils.registry import test_transfer
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, problems
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

served = test_transfer.served


def forget_teardowns(controller: Controller) -> None:
    with controller.registry.write() as session:
        session.execute(delete(Teardown))


@pytest.mark.parametrize("weather", [Weather.REFUSES, Weather.CRASHES, Weather.UNREACHABLE])
def test_a_target_that_fails_changes_nothing(served: Controller, weather: Weather) -> None:
    served.fleet.set_weather(weather, DE)
    result = served.one("transfer", instance=ALICE, node=DE)
    assert (result["status"], result["code"], result["updated_licenses"]) == ("error", 500, 0)
    assert result["message"].startswith(f"{ALICE} stays on {NL}, nothing has changed for it: node {DE}")
    assert served.up(ALICE) == [NL]
    assert served.instance(ALICE).applied
    with served.registry.read() as session:
        assert (
            session.scalars(select(License.server).where(License.email == ALICE)).one()
            == "vpn-nl1.example.com"
        )
    # A node that says no is rid of what may be there; one that says nothing may have it, and has it taken down later.
    left = served.rows(Teardown)
    assert [row.reason for row in left] == ["reserved"] * len(left)
    served.fleet.set_weather(Weather.FINE)
    assert served.one("transfer", instance=ALICE, node=DE)["status"] == "success"
    assert_all_is_well(served.registry, served.fleet)


def test_a_target_that_is_lost_is_cleared_later(served: Controller) -> None:
    """It was up there when the connection broke, and nobody knows."""
    served.fleet.set_weather(Weather.LOST, DE)
    assert served.one("transfer", instance=ALICE, node=DE)["status"] == "error"
    assert served.up(ALICE) == [DE, NL]
    assert [row.reason for row in served.rows(Teardown)] == ["reserved"]
    assert problems(served.registry, served.fleet) == []
    served.fleet.set_weather(Weather.FINE)
    assert served.one("transfer", instance=ALICE, node=FR)["status"] == "success"
    assert served.up(ALICE) == [FR]
    assert_all_is_well(served.registry, served.fleet)


def test_a_target_that_refuses_and_cannot_be_cleared_is_remembered(served: Controller) -> None:
    served.fleet.set_weather(Weather.REFUSES, DE)
    served.one("transfer", instance=ALICE, node=DE)
    (row,) = served.rows(Teardown)
    assert (row.reason, row.attempts, row.error) == ("reserved", 1, "refused")


@pytest.mark.parametrize("weather", [Weather.UNREACHABLE, Weather.LOST, Weather.REFUSES, Weather.CRASHES])
def test_a_source_that_fails_stops_nothing(served: Controller, weather: Weather) -> None:
    served.fleet.set_weather(weather, NL)
    result = served.one("transfer", instance=ALICE, node=DE)
    assert (result["status"], result["code"], result["updated_licenses"]) == ("success", 200, 1)
    assert result["pending"]
    assert NL in result["warnings"][0]
    assert DE in served.up(ALICE)
    (row,) = served.rows(Teardown)
    assert (row.reason, row.interface, row.listen_port, row.attempts) == (
        "transferred", result["interface"], 51820, 1,
    )  # fmt: skip
    assert row.error
    assert problems(served.registry, served.fleet) == []
    # Nobody gets the port before it is taken down, and a repeated call takes it down.
    served.fleet.set_weather(Weather.FINE)
    served.play("provision", instance="carol@example.com", node=NL)
    assert served.instance("carol@example.com").listen_port == 51822
    again = served.one("transfer", instance=ALICE, node=DE)
    assert (again["status"], again["operation_id"]) == ("success", result["operation_id"])
    assert not again["pending"]
    assert "warnings" not in again
    assert served.up(ALICE) == [DE]
    assert_all_is_well(served.registry, served.fleet)


def test_back_to_a_source_that_still_has_it(served: Controller) -> None:
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("transfer", instance=ALICE, node=DE)
    assert served.up(ALICE) == [DE, NL]
    served.fleet.set_weather(Weather.FINE)
    result = served.one("transfer", instance=ALICE, node=NL)
    assert (result["status"], result["listen_port"]) == ("success", 51820)
    assert served.up(ALICE) == [NL]
    assert_all_is_well(served.registry, served.fleet)


def test_a_disconnected_one_that_is_still_up_where_it_goes_to(served: Controller) -> None:
    served.fleet.set_weather(Weather.UNREACHABLE, NL)
    served.play("transfer", instance=ALICE, node=DE)
    served.play("disconnect", instance=ALICE)
    assert served.up(ALICE) == [NL]
    # What cannot be taken down there cannot be said to be down there.
    assert served.one("transfer", instance=ALICE, node=NL)["status"] == "error"
    assert [row.reason for row in served.rows(Teardown)] == ["reserved"]
    served.fleet.set_weather(Weather.FINE)
    assert served.one("transfer", instance=ALICE, node=NL)["status"] == "success"
    assert served.up(ALICE) == []
    assert_all_is_well(served.registry, served.fleet)


@pytest.mark.parametrize(
    ("turn", "up"), [(2, [NL]), (4, [DE, NL])], ids=["before it comes up there", "before it leaves"]
)
def test_whose_place_is_no_longer_reserved_stays_up(served: Controller, turn: int, up: list[str]) -> None:
    """Whoever takes the run for dead may have given the place away: no tunnel is taken down for nothing."""
    seen = 0

    def give_away(point: str) -> None:
        nonlocal seen
        seen += point == "before a transaction"
        if seen == turn and point == "before a transaction":
            forget_teardowns(served)

    served.at = give_away
    with pytest.raises(Conflict, match=rf"the place of wg\d+ on {DE} is no longer reserved"):
        served.play("transfer", instance=ALICE, node=DE)
    assert served.up(ALICE) == up


def test_what_another_has_cleared_on_a_target_that_refuses_is_no_error(served: Controller) -> None:
    served.fleet.set_weather(Weather.REFUSES, DE)
    calls = 0

    def clear(point: str) -> None:
        nonlocal calls
        calls += point == f"before {DE} is called"
        if calls == 2 and point == f"before {DE} is called":
            forget_teardowns(served)

    served.at = clear
    result = served.one("transfer", instance=ALICE, node=DE)
    assert (result["status"], result["pending"], served.rows(Teardown)) == ("error", False, [])
    assert served.up(ALICE) == [NL]


def test_what_a_former_instance_has_left_where_the_new_one_goes_to(served: Controller) -> None:
    """It is taken down there; the place that is reserved beside it is not."""
    served.play("provision", instance="carol@example.com", node=DE)
    former = served.instance("carol@example.com").interface
    served.fleet.set_weather(Weather.UNREACHABLE, DE)
    served.play("remove", instance="carol@example.com")
    served.play("provision", instance="carol@example.com", node=NL)
    served.fleet.set_weather(Weather.FINE)
    assert served.fleet.where(former) == [DE]
    result = served.one("transfer", instance="carol@example.com", node=DE)
    assert (result["status"], result["pending"]) == ("success", False)
    assert (served.fleet.where(former), served.up("carol@example.com")) == ([], [DE])
    assert_all_is_well(served.registry, served.fleet)


# ---- after a run that was killed when the instance was up on the target and down on the source


@pytest.fixture
def between(served: Controller) -> Controller:
    assert served.killed(f"while {NL} is called", "transfer", instance=ALICE, node=DE)
    assert served.up(ALICE) == [DE]
    assert served.instance(ALICE).node.name == NL
    return served


@pytest.mark.parametrize("weather", [Weather.REFUSES, Weather.CRASHES, Weather.UNREACHABLE])
@pytest.mark.parametrize("target", [DE, FR])
def test_who_cannot_go_on_comes_back(between: Controller, weather: Weather, target: str) -> None:
    between.fleet.set_weather(weather, target)
    result = between.one("transfer", instance=ALICE, node=target)
    assert result["status"] == "error"
    assert result["message"].startswith(f"{ALICE} stays on {NL}, nothing has changed for it: node {target}")
    assert NL in between.up(ALICE)
    assert between.instance(ALICE).applied
    assert problems(between.registry, between.fleet) == []


def test_who_shall_go_elsewhere_leaves_both(between: Controller) -> None:
    result = between.one("transfer", instance=ALICE, node=FR)
    assert (result["status"], result["pending"], between.up(ALICE)) == ("success", False, [FR])
    assert_all_is_well(between.registry, between.fleet)


def test_who_shall_stay_is_up_before_it_is_taken_down_elsewhere(between: Controller) -> None:
    between.fleet.set_weather(Weather.REFUSES, NL)
    result = between.one("transfer", instance=ALICE, node=NL)
    assert (result["status"], result["pending"], between.up(ALICE)) == ("error", True, [DE])
    assert result["message"].startswith(
        f"{ALICE} is on {NL} already, but not as it should be: node {NL}: refused"
    )
    between.fleet.set_weather(Weather.FINE)
    result = between.one("transfer", instance=ALICE, node=NL)
    assert (result["status"], result["pending"], between.up(ALICE)) == ("success", False, [NL])
    assert_all_is_well(between.registry, between.fleet)


@pytest.mark.parametrize("weather", [Weather.REFUSES, Weather.UNREACHABLE])
def test_a_source_that_fails_now_stops_nothing(between: Controller, weather: Weather) -> None:
    between.fleet.set_weather(weather, NL)
    result = between.one("transfer", instance=ALICE, node=DE)
    assert (result["status"], result["pending"], between.up(ALICE)) == ("success", True, [DE])
    (warning,) = result["warnings"]
    assert warning.count(f"node {NL}") == 1
    between.fleet.set_weather(Weather.FINE)
    between.play("transfer", instance=ALICE, node=DE)
    assert_all_is_well(between.registry, between.fleet)
