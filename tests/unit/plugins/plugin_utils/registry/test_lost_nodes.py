"""A node whose machine is no more: its customers go elsewhere, and then nothing waits for it."""

from __future__ import annotations

import pytest

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import Conflict
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
    Teardown,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.nodes import apply_nodes
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

LOST = {"name": NL, "state": "absent", "lost": True}


def take_out(controller: Controller) -> None:
    with controller.registry.write() as session:
        apply_nodes(session, [LOST])


def test_its_customers_go_elsewhere_and_their_operations_end(controller: Controller) -> None:
    controller.play("provision", instances=[ALICE, BOB], node=NL)
    controller.fleet.set_weather(Weather.UNREACHABLE, NL)
    with pytest.raises(Conflict, match="2 instances"):
        take_out(controller)
    moved = controller.one("transfer", instance=ALICE, node=DE)
    removed = controller.one("remove", instance=BOB)
    assert (moved["pending"], removed["pending"], len(controller.rows(Teardown))) == (True, True, 2)

    take_out(controller)
    assert NL not in [node.name for node in controller.rows(Node)]
    assert controller.rows(Teardown) == []
    ended = {row.id: row for row in controller.rows(Operation)}
    transfer, removal = ended[moved["operation_id"]], ended[removed["operation_id"]]
    assert (transfer.state, removal.state) == ("succeeded", "succeeded")
    assert transfer.result is not None
    assert removal.result is not None
    assert transfer.result["message"].startswith("Instance transferred successfully")
    assert "warnings" not in transfer.result
    assert removal.result["code"] == 207
    assert removal.result["results"]["errors"] == [f"node {NL} is lost: nothing was taken down there"]
    assert controller.up(ALICE) == [DE, NL]  # wherever the machine is, nobody asks it any more
    assert controller.one("disconnect", instance=ALICE)["status"] == "success"


def test_it_is_taken_out_once(controller: Controller) -> None:
    controller.fleet.set_weather(Weather.UNREACHABLE, NL)
    take_out(controller)
    take_out(controller)
    assert NL not in [node.name for node in controller.rows(Node)]


@pytest.mark.parametrize("point", [3, 9])  # before and after it has come up there
def test_what_was_to_come_to_it_stays_where_it_is(controller: Controller, point: int) -> None:
    """A transfer that was killed on its way to it is given up."""
    controller.play("provision", instance=ALICE, node=DE)
    assert controller.killed(point, "transfer", instance=ALICE, node=NL)
    take_out(controller)
    (transfer,) = [row for row in controller.rows(Operation) if row.kind == "transfer"]
    assert transfer.state == "canceled"
    assert controller.rows(Teardown) == []
    assert DE in controller.up(ALICE)
    assert controller.one("disconnect", instance=ALICE)["status"] == "success"


def test_a_removal_goes_on_for_the_other_nodes(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, node=NL)
    controller.fleet.set_weather(Weather.UNREACHABLE, NL)
    controller.play("transfer", instance=ALICE, node=DE)
    controller.fleet.set_weather(Weather.UNREACHABLE, DE)
    removed = controller.one("remove", instance=ALICE)
    assert len(controller.rows(Teardown)) == 2
    take_out(controller)
    (removal,) = [row for row in controller.rows(Operation) if row.id == removed["operation_id"]]
    assert removal.state == "pending"
    assert len(controller.rows(Teardown)) == 1


def test_a_transfer_between_others_that_was_killed_begins_anew_without_it(controller: Controller) -> None:
    """What an earlier one had left on the node is not waited for."""
    controller.play("provision", instance=ALICE, node=NL)
    controller.fleet.set_weather(Weather.UNREACHABLE, NL)
    controller.play("transfer", instance=ALICE, node=DE)
    assert controller.killed(3, "transfer", instance=ALICE, node=FR)
    take_out(controller)
    (killed,) = [row for row in controller.rows(Operation) if row.state == "running"]
    assert [row.reason for row in controller.rows(Teardown)] == ["reserved"]
    result = controller.one("transfer", instance=ALICE, node=FR)
    assert (result["status"], result["pending"], result["operation_id"]) == ("success", False, killed.id)
    assert controller.up(ALICE) == [FR, NL]
