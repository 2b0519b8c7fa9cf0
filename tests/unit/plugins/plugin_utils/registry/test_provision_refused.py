"""Provisioning that is refused, only planned, left for later, or fails on a node."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Full,
    Invalid,
    NotFound,
    RegistryError,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import new_key_pair
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Node,
    Operation,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, problems
from tests.unit.plugins.plugin_utils.registry.rows import stored
from tests.unit.plugins.plugin_utils.registry.simulated_drift import with_drift
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

KEY, OTHER_KEY = (new_key_pair()[1] for _ in range(2))
SHARED = new_key_pair()[0]


# ---- what is refused, and then nothing has changed


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"node": "es1.example.com"}, NotFound, "no node is called es1.example.com"),
        ({"peers": [{}]}, Invalid, r"peers\[0\]: has neither a name nor a public_key"),
        ({"peers": [{"name": "x"}, {"name": "x"}]}, Invalid, r"peers\[1\]: is there twice"),
        ({"peers": [{"public_key": KEY}, {"name": "x", "public_key": KEY}]}, Invalid, r"peers\[1\]: is there twice"),
        ({"peers": [{"public_key": "x"}]}, Invalid, r"peers\[0\].public_key: "),
        ({"peers": [{"public_key": True}]}, Invalid, r"peers\[0\].public_key: "),
        ({"peers": [{"name": "x", "preshared_key": "hunter2"}]}, Invalid, r"peers\[0\].preshared_key: "),
        ({"peers": [{"name": "x", "preshared_key": SHARED[:-2]}]}, Invalid, r"peers\[0\].preshared_key: "),
        ({"peers": [{"name": "x\n"}]}, Invalid, r"peers\[0\].name: "),
        ({"peers": [{"name": "x" * 256}]}, Invalid, r"peers\[0\].name: "),
        ({"peers": [{"name": True}]}, Invalid, r"peers\[0\].name: "),
        ({"peers": [{"name": "\ud800"}]}, Invalid, r"peers\[0\].name: "),
        ({"peers": [{"name": "x", "persistent_keepalive": 65536}]}, Invalid, r"peers\[0\].persistent_keepalive: "),
        ({"peers": [{"name": "x", "persistent_keepalive": True}]}, Invalid, r"peers\[0\].persistent_keepalive: "),
        ({"peers": [{"name": "x", "persistent_keepalive": "1_0"}]}, Invalid, r"peers\[0\].persistent_keepalive: "),
        ({"peers": [{"name": "x", "allowed_ips": "10.0.0.0/8"}]}, Invalid, r"peers\[0\].allowed_ips: is not a list"),
        ({"peers": [{"name": "x", "allowed_ips": ["10.0.0.0/8; id"]}]}, Invalid, r"peers\[0\].allowed_ips\[0\]: "),
        ({"peers": [{"name": "x", "allowed_ips": [True]}]}, Invalid, r"peers\[0\].allowed_ips\[0\]: "),
        ({"peers": [{"name": "x", "allowed_ips": ["10.1.0.0/16"]}]}, Conflict, "10.1.0.0/16"),
        ({"peers": [{"name": "x", "public_key": OTHER_KEY}]}, Conflict, "is that of another peer or instance"),
        ({"peers": [{"name": str(n)} for n in range(14)], "prefix_length": 28}, Full, "14"),
    ],
    ids=lambda value: None if isinstance(value, dict) else getattr(value, "__name__", None),
)  # fmt: skip
def test_what_cannot_be_is_refused(
    controller: Controller, asked: dict[str, Any], error: type[RegistryError], message: str
) -> None:
    controller.play("provision", instance=BOB, node=NL, peers=[{"name": "phone", "public_key": OTHER_KEY}])
    before = stored(controller.registry)
    with pytest.raises(error, match=message) as caught:
        controller.play("provision", **{"instance": ALICE, "node": NL, **asked})
    assert "hunter2" not in str(caught.value)
    assert SHARED[:-2] not in str(caught.value)
    assert len(str(caught.value)) < 400
    # Who asked for what might have been is on record; what makes no sense is not.
    before["audit_entry"] += error is not Invalid
    assert stored(controller.registry) == before
    assert_all_is_well(controller.registry, controller.fleet)


def test_what_is_wrong_is_told_by_its_place_in_the_request(controller: Controller) -> None:
    phone = {"name": "phone"}
    controller.play("provision", instance=ALICE, node=NL, peers=[phone])
    with pytest.raises(Invalid, match=r"^peers\[1\]\.allowed_ips\[0\]: "):
        controller.play(
            "provision", instance=ALICE, peers=[phone, {"name": "x", "allowed_ips": ["192.0.2.1/33"]}]
        )


def test_the_key_of_an_instance_is_no_devices_key(controller: Controller) -> None:
    key = controller.one("provision", instance=ALICE)["public_key"]
    for who in (ALICE, BOB):
        with pytest.raises(Conflict, match="is that of another peer or instance"):
            controller.play("provision", instance=who, peers=[{"name": "x", "public_key": key}])


def test_all_or_none(controller: Controller) -> None:
    before = stored(controller.registry)
    with pytest.raises(NotFound):
        controller.play("provision", instances=[ALICE, {"instance": BOB, "node": "es1.example.com"}])
    assert stored(controller.registry) == {**before, "audit_entry": before["audit_entry"] + 2}


def test_an_instance_elsewhere_is_not_moved(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, node=NL)
    with pytest.raises(Conflict, match=rf"^{ALICE} is on node {NL} already: a transfer moves it to {DE}$"):
        controller.play("provision", instance=ALICE, node=DE)
    assert controller.up(ALICE) == [NL]


def test_a_disabled_node_takes_nobody_new(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, node=NL)
    with controller.registry.write() as session:
        for node in session.scalars(select(Node)):
            node.enabled = False
    with pytest.raises(Conflict, match=f"node {NL} is disabled"):
        controller.play("provision", instance=BOB, node=NL)
    with pytest.raises(Full, match="no node takes new instances"):
        controller.play("provision", instance=BOB)
    assert controller.one("provision", instance=ALICE, peers=[{"name": "phone"}])["status"] == "success"


# ---- check mode, --limit, nodes that fail


def test_a_plan_changes_nothing(controller: Controller) -> None:
    before = stored(controller.registry)
    result = controller.one("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}], check=True)
    assert (result["status"], result["node"], result["peers_count"]) == ("planned", NL, 1)
    assert result["addresses"] == ["10.1.0.1/24", "fd00:1::1/64"]
    assert stored(controller.registry) == before
    assert list(controller.fleet.everything()) == []


def test_a_limit_leaves_it_for_later(controller: Controller) -> None:
    result = controller.one("provision", instance=ALICE, node=NL, limit=[DE, FR])
    assert (result["status"], result["code"], result["pending"]) == ("error", 500, True)
    assert f"node {NL} was left out of this run" in result["message"]
    assert controller.fleet.calls == []
    assert controller.one("provision", instance=ALICE, node=NL)["operation_id"] == result["operation_id"]
    assert_all_is_well(controller.registry, controller.fleet)


@pytest.mark.parametrize("weather", [Weather.UNREACHABLE, Weather.LOST, Weather.CRASHES, Weather.REFUSES])
def test_a_node_that_fails_is_tried_again(controller: Controller, weather: Weather) -> None:
    controller.fleet.set_weather(weather, NL)
    result = controller.one("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}])
    assert (result["status"], result["code"], result["pending"]) == ("error", 500, True)
    assert result["message"].startswith(
        f"{ALICE} is recorded as {result['interface']} of {NL} but not up yet: node {NL}"
    )
    assert "\n" not in result["message"]
    assert not controller.instance(ALICE).applied
    (operation,) = controller.rows(Operation)
    assert (operation.state, operation.error, operation.finished_at) == ("pending", result["message"], None)
    assert problems(controller.registry, controller.fleet) == []
    controller.fleet.set_weather(Weather.FINE)
    again = controller.one("provision", instance=ALICE, node=NL)
    assert (again["status"], again["code"], again["operation_id"]) == ("success", 201, result["operation_id"])
    assert [peer["added"] for peer in again["peers"]] == [True]
    (operation,) = controller.rows(Operation)
    assert (operation.state, operation.error, operation.attempts) == ("succeeded", None, 2)
    assert_all_is_well(controller.registry, controller.fleet)


def test_what_was_as_asked_is_unconfirmed_when_its_node_fails(controller: Controller) -> None:
    """Else no reconcile would have a reason to look at it, and to end the operation."""
    controller.play("provision", instance=ALICE, node=NL)
    controller.fleet.set_weather(Weather.REFUSES, NL)
    assert controller.one("provision", instance=ALICE)["pending"]
    assert not controller.instance(ALICE).applied
    controller.fleet.set_weather(Weather.FINE)
    with_drift(controller).play("reconcile", node=NL)
    assert_all_is_well(controller.registry, controller.fleet)


def test_a_node_that_refuses_one_serves_the_others(controller: Controller) -> None:
    first = controller.one("provision", instance=BOB, node=NL)
    # Somebody has made an interface by hand, with the port that Alice is to get.
    controller.fleet.nodes[NL].up["wg999999"] = {
        "name": "wg999999", "listen_port": 51821, "private_key": "x", "addresses": [], "peers": [],
    }  # fmt: skip
    results = controller.play("provision", instances=[ALICE, "carol@example.com"], node=NL)
    alice, carol = results["operations"]
    assert (results["status"], alice["status"], carol["status"]) == ("partial_success", "error", "success")
    assert "port 51821 is that of wg999999" in alice["message"]
    assert controller.up(BOB) == controller.up("carol@example.com") == [first["node"]]
