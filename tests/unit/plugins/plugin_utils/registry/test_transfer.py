"""Transfers from begin to end, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

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
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well
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
    assert operation.started_at is not None
    assert operation.finished_at is not None
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
