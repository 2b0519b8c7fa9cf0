"""Transfers from begin to end, on nodes that do not always do what they are told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    Invalid,
    NotFound,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    AuditEntry,
    License,
    Node,
    Operation,
    Teardown,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, problems
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

# What the callers of the HTTP contract read.
FIELDS = {"status", "message", "updated_licenses", "new_server"}


@pytest.fixture
def served(controller: Controller) -> Controller:
    """Alice, with two devices, and Bob are on nl1."""
    controller.play("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}, {"name": "tablet"}])
    controller.play("provision", instance=BOB, node=NL)
    return controller


# ---- as it should be


def test_keys_peers_and_addresses_go_along(served: Controller) -> None:
    interface = served.instance(ALICE).interface
    before = served.fleet.nodes[NL].up[interface]
    result = served.one("transfer", instance=ALICE, node=DE)
    assert {key: result[key] for key in FIELDS} == {
        "status": "success",
        "message": "Instance transferred successfully to Germany (vpn-de1.example.com). "
        "Please update your client configurations.",
        "updated_licenses": 1,
        "new_server": {"country": "Germany", "dns_name": "vpn-de1.example.com"},
    }
    assert (result["code"], result["changed"], result["pending"]) == (200, True, False)
    assert (result["node"], result["source"]) == (DE, NL)
    assert result["endpoint"] == f"vpn-de1.example.com:{result['listen_port']}"
    assert served.fleet.nodes[DE].up[interface] == {**before, "listen_port": result["listen_port"]}
    assert_all_is_well(served.registry, served.fleet)
    assert served.up(BOB) == [NL]
    with served.registry.read() as session:
        servers = {one.email: one.server for one in session.scalars(select(License))}
    assert servers == {ALICE: "vpn-de1.example.com", BOB: "vpn-nl1.example.com"}


def test_it_comes_up_there_before_it_goes_down_here(served: Controller) -> None:
    served.fleet.calls.clear()
    served.play("transfer", instances=[ALICE, BOB], node=DE)
    names = [(served.instance(name).interface) for name in (ALICE, BOB)]
    assert served.fleet.calls == [
        (DE, [(name, "present") for name in names]),
        (NL, [(name, "absent") for name in names]),
    ]
    assert_all_is_well(served.registry, served.fleet)


def test_the_port_stays_if_nobody_has_it_there(served: Controller) -> None:
    served.play("provision", instance="carol@example.com", node=DE)
    ports = [served.instance(name).listen_port for name in (ALICE, BOB, "carol@example.com")]
    assert ports == [51820, 51821, 51820]
    served.play("transfer", instances=[BOB, ALICE], node=DE)
    assert served.instance(BOB).listen_port == 51821
    assert served.instance(ALICE).listen_port == 51822
    assert_all_is_well(served.registry, served.fleet)


def test_a_repeated_transfer_finds_it_done(served: Controller) -> None:
    served.play("transfer", instance=ALICE, node=DE)
    served.fleet.calls.clear()
    result = served.one("transfer", instance=ALICE, node=DE)
    assert (result["status"], result["code"], result["changed"]) == ("success", 200, False)
    assert result["message"] == f"Instance {result['interface']} of {ALICE} is on {DE} already"
    assert (result["updated_licenses"], result["new_server"]["country"]) == (1, "Germany")
    assert served.fleet.calls == []


def test_the_row_keeps_the_result_and_the_audit_names_it(served: Controller) -> None:
    result = served.one("transfer", instance=ALICE, node=DE)
    (operation,) = [one for one in served.rows(Operation) if one.kind == "transfer"]
    assert (operation.id, operation.state, operation.result) == (result["operation_id"], "succeeded", result)
    assert (operation.owner, operation.lease_until, operation.error) == (None, None, None)
    assert operation.started_at <= operation.finished_at
    (entry,) = [one for one in served.rows(AuditEntry) if one.action == "transfer"]
    assert (entry.subject, entry.result, entry.operation_id) == (ALICE, "success", operation.id)
    assert entry.actor
    assert entry.details == {"message": result["message"], "code": 200}


def test_only_active_licenses_go_along(served: Controller) -> None:
    with served.registry.write() as session:
        session.add_all(
            [
                License(email=ALICE, server="old", is_active=False),
                License(email=ALICE, server="vpn-nl1.example.com"),
            ]
        )
    assert served.one("transfer", instance=ALICE, node=FR)["updated_licenses"] == 2
    with served.registry.read() as session:
        servers = list(
            session.scalars(select(License.server).where(License.email == ALICE).order_by(License.id))
        )
    assert servers == ["vpn-fr1.example.com", "old", "vpn-fr1.example.com"]


def test_a_server_without_a_name_is_its_country(served: Controller) -> None:
    with served.registry.write() as session:
        session.scalars(select(Node).where(Node.name == FR)).one().dns_name = None
    result = served.one("transfer", instance=ALICE, node=FR)
    assert result["new_server"] == {"country": "France", "dns_name": None}
    assert result["message"].startswith(f"Instance transferred successfully to France ({FR}). ")
    with served.registry.read() as session:
        assert session.scalars(select(License.server).where(License.email == ALICE)).one() == "France"


def test_a_server_without_a_country_is_told_by_its_name(served: Controller) -> None:
    with served.registry.write() as session:
        session.scalars(select(Node).where(Node.name == FR)).one().country = None
    result = served.one("transfer", instance=ALICE, node=FR)
    assert result["message"].startswith("Instance transferred successfully to vpn-fr1.example.com. ")


def test_a_license_that_says_otherwise_is_put_right(served: Controller) -> None:
    """Also where the instance is there already, as after a customer's first, least loaded node."""
    with served.registry.write() as session:
        session.scalars(select(License).where(License.email == ALICE)).one().server = "Germany"
    result = served.one("transfer", instance=ALICE, node=NL)
    assert (result["status"], result["changed"], result["updated_licenses"]) == ("success", True, 1)
    with served.registry.read() as session:
        assert session.scalars(select(License.server).where(License.email == ALICE)).one() == f"vpn-{NL}"
    result = served.one("transfer", instance=ALICE, node=NL)
    assert (result["changed"], result["updated_licenses"]) == (False, 1)
    assert served.fleet.calls[-1][0] == NL
    assert_all_is_well(served.registry, served.fleet)


def test_who_is_disconnected_stays_so(served: Controller) -> None:
    served.play("disconnect", instance=ALICE)
    served.fleet.calls.clear()
    assert served.one("transfer", instance=ALICE, node=DE)["status"] == "success"
    found = served.instance(ALICE)
    assert (found.state, found.node.name, served.up(ALICE)) == ("disconnected", DE, [])
    assert served.fleet.calls == [(NL, [(found.interface, "absent")])]
    assert_all_is_well(served.registry, served.fleet)


# ---- what is refused, and then nothing has changed


@pytest.mark.parametrize(
    ("who", "node", "error", "message"),
    [
        ("nobody@example.com", DE, NotFound, "no instance is called nobody@example.com"),
        (ALICE, "es1.example.com", NotFound, "no node is called es1.example.com"),
        ("{{ 7*7 }}@example.com", DE, Invalid, r"instances\[1\]: "),
        (ALICE, "{{ groups.all }}", Invalid, "node: "),
    ],
)
def test_unknown_names_are_refused(
    served: Controller, who: str, node: str, error: type[Exception], message: str
) -> None:
    operations = len(served.rows(Operation))
    with pytest.raises(error, match=message):
        served.play("transfer", instances=[BOB, who], node=node)
    assert len(served.rows(Operation)) == operations
    assert served.up(BOB) == [NL]
    assert_all_is_well(served.registry, served.fleet)


def change(controller: Controller, node: str, **fields: Any) -> None:
    with controller.registry.write() as session:
        found = session.scalars(select(Node).where(Node.name == node)).one()
        for name, value in fields.items():
            setattr(found, name, value)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"enabled": False}, Conflict, f"node {DE} is disabled"),
        ({"max_peers": 1}, Full, f"node {DE} has no room for 2 new peers"),
    ],
)
def test_a_target_that_takes_nobody_is_refused(
    served: Controller, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    change(served, DE, **fields)
    with pytest.raises(error, match=message):
        served.play("transfer", instance=ALICE, node=DE)
    assert served.up(ALICE) == [NL]
    assert served.rows(Teardown) == []
    assert_all_is_well(served.registry, served.fleet)


def test_without_an_active_license_nothing_is_transferred(served: Controller) -> None:
    with served.registry.write() as session:
        session.scalars(select(License).where(License.email == ALICE)).one().is_active = False
    with pytest.raises(NotFound, match=f"^No active licenses found for {ALICE}$"):
        served.play("transfer", instance=ALICE, node=DE)
    assert_all_is_well(served.registry, served.fleet)


@pytest.mark.parametrize("left_out", [NL, DE])
def test_a_limit_that_leaves_out_one_of_the_nodes_is_refused(served: Controller, left_out: str) -> None:
    with pytest.raises(Conflict, match=rf"a transfer needs both nodes, and {left_out} is left out \(--limit"):
        served.play("transfer", instance=ALICE, node=DE, limit={NL, DE, FR} - {left_out})
    assert served.up(ALICE) == [NL]
    assert_all_is_well(served.registry, served.fleet)


def test_a_plan_changes_nothing(served: Controller) -> None:
    operations = len(served.rows(Operation))
    served.fleet.calls.clear()
    result = served.one("transfer", instance=ALICE, node=DE, check=True)
    assert (result["status"], result["operation_id"]) == ("planned", None)
    assert result["message"].startswith("Instance transferred successfully to Germany")
    assert served.fleet.calls == []
    assert len(served.rows(Operation)) == operations
    assert served.rows(Teardown) == []
    assert served.up(ALICE) == [NL]
    assert_all_is_well(served.registry, served.fleet)


# ---- nodes that fail


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
