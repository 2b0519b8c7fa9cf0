"""Provisioning from begin to end: new customers, more devices, the same again."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from sqlalchemy import delete, insert

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.errors import (
    Conflict,
    Invalid,
    RegistryError,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import new_key_pair
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import (
    Instance,
    License,
    Operation,
    Peer,
    PeerAllowedIp,
    PeerGroup,
    PeerGroupInstance,
    PeerGroupPeer,
    User,
    UserAcl,
    new_id,
)
from tests.unit.plugins.plugin_utils.registry.consistency import assert_all_is_well, told_secrets
from tests.unit.plugins.plugin_utils.registry.rows import stored
from tests.unit.plugins.plugin_utils.registry.simulated_fleet import Weather
from tests.unit.plugins.plugin_utils.registry.simulated_names import ALICE, BOB, DE, FR, NL
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

KEY = new_key_pair()[1]
SHARED, OTHER_SHARED = (new_key_pair()[0] for _ in range(2))


# ---- a new customer


def test_a_new_customer_is_served(controller: Controller) -> None:
    peers = [{"name": "phone"}, {"name": "router", "public_key": KEY, "preshared_key": SHARED,
              "persistent_keepalive": 25, "allowed_ips": ["192.0.2.0/24"]}]  # fmt: skip
    result = controller.one("provision", instance=ALICE, node=NL, peers=peers)
    instance = controller.instance(ALICE)
    assert (result["status"], result["code"], result["changed"], result["pending"]) == (
        "success",
        201,
        True,
        False,
    )
    assert result["message"] == f"Instance {instance.interface} of {ALICE} provisioned on {NL}"
    assert result["instance_id"] == instance.id
    assert (result["node"], result["endpoint"]) == (NL, "vpn-nl1.example.com:51820")
    assert (result["listen_port"], result["public_key"]) == (51820, instance.public_key)
    assert result["addresses"] == ["10.1.0.1/24", "fd00:1::1/64"]
    assert (result["keepalive"], result["endpoint_allowed_ip"], result["dns"], result["mtu"]) == (
        25, "0.0.0.0/0, ::/0", None, None,
    )  # fmt: skip
    phone, router = sorted(result["peers"], key=lambda peer: str(peer["name"]))
    assert (phone["allowed_ips"], phone["added"]) == (["10.1.0.2/32", "fd00:1::2/128"], True)
    assert (router["allowed_ips"], router["public_key"]) == (
        ["10.1.0.3/32", "fd00:1::3/128", "192.0.2.0/24"], KEY,
    )  # fmt: skip
    assert result["peers_count"] == 2
    up = controller.fleet.nodes[NL].up[instance.interface]
    assert (up["listen_port"], up["addresses"]) == (51820, result["addresses"])
    live = {peer["public_key"]: peer for peer in up["peers"]}
    assert live.keys() == {phone["public_key"], KEY}
    assert (live[KEY]["preshared_key"], live[KEY]["persistent_keepalive"]) == (SHARED, 25)
    assert "preshared_key" not in live[phone["public_key"]]
    assert controller.fleet.calls == [(NL, [(instance.interface, "present")])]
    assert_all_is_well(controller.registry, controller.fleet)


def test_a_customer_has_an_account_a_group_and_a_license(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, node=DE, peers=[{"name": "phone"}, {"name": "tablet"}])
    (group,), (user,) = controller.rows(PeerGroup), controller.rows(User)
    assert group.name == f"{ALICE}_group"
    assert [one.group_id for one in controller.rows(PeerGroupInstance)] == [group.id]
    assert {one.peer_id for one in controller.rows(PeerGroupPeer)} == {
        one.id for one in controller.rows(Peer)
    }
    assert (user.email, user.is_active) == (ALICE, True)
    assert [one.user_id for one in controller.rows(UserAcl)] == [user.id]
    (license_,) = controller.rows(License)
    assert (license_.email, license_.server, license_.is_active) == (ALICE, "vpn-de1.example.com", True)


def test_what_a_customer_has_already_is_kept(controller: Controller) -> None:
    with controller.registry.write() as session:
        user = User(email=ALICE)
        session.add_all(
            [user, PeerGroup(name=f"{ALICE}_group"), License(email=ALICE, server="x", is_active=False)]
        )
        session.flush()
        session.add(UserAcl(user_id=user.id, rights=["all"]))
    controller.play("provision", instance=ALICE, peers=[{"name": "phone"}])
    assert [one.rights for one in controller.rows(UserAcl)] == [["all"]]
    assert [(one.server, one.is_active) for one in controller.rows(License)] == [("x", False)]
    assert len(controller.rows(PeerGroup)) == len(controller.rows(PeerGroupPeer)) == 1


def test_every_customer_and_device_has_a_place_of_its_own(controller: Controller) -> None:
    names = [f"customer{number}@example.com" for number in range(30)]
    controller.fleet.calls.clear()
    results = controller.play("provision", instances=names, peers=[{"name": "phone"}, {"name": "tablet"}])
    assert (results["status"], results["changed"]) == ("success", True)
    assert [one["instance"] for one in results["operations"]] == names
    # One call for each node, whatever the number of instances.
    assert sorted(name for name, _ in controller.fleet.calls) == sorted(
        {one["node"] for one in results["operations"]}
    )
    addresses = [ip_network(text) for one in controller.rows(PeerAllowedIp) for text in [one.network]]
    assert len(set(addresses)) == len(addresses) == 30 * 2 * 2
    by_name = {one["instance"]: one for one in results["operations"]}
    for one in by_name.values():
        own = [ip_network(text, strict=False) for text in one["addresses"]]
        for peer in one["peers"]:
            assert all(
                any(ip_address(text.partition("/")[0]) in net for net in own) for text in peer["allowed_ips"]
            )
    assert_all_is_well(controller.registry, controller.fleet)


def test_without_a_node_the_least_loaded_is_chosen(controller: Controller) -> None:
    chosen = [controller.one("provision", instance=f"c{n}@example.com")["node"] for n in range(6)]
    assert sorted(chosen) == sorted([NL, DE, FR] * 2)


def test_the_subnet_is_as_large_as_is_asked(controller: Controller) -> None:
    assert (
        controller.one("provision", instance=ALICE, prefix_length=26, node=NL)["addresses"][0]
        == "10.1.0.1/26"
    )
    with pytest.raises(Invalid, match=r"^prefix_length: "):
        controller.play("provision", instance=BOB, prefix_length=8, node=NL)


def test_the_subnet_of_an_instance_does_not_change(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, prefix_length=26, node=NL)
    assert controller.one("provision", instance=ALICE, prefix_length=26)["changed"] is False
    with pytest.raises(Conflict, match=rf"^{ALICE} has 10.1.0.0/26 already: .* cannot become 24$"):
        controller.play("provision", instance=ALICE, prefix_length=24, peers=[{"name": "phone"}])
    assert controller.rows(Peer) == []


# ---- the same again, and more


def test_a_repeated_call_finds_it_done(controller: Controller) -> None:
    asked = {"instance": ALICE, "node": NL, "peers": [{"name": "phone", "preshared_key": SHARED}]}
    first = controller.one("provision", **asked)
    before = stored(controller.registry)
    again = controller.one("provision", **asked)
    assert (again["status"], again["code"], again["changed"]) == ("success", 200, False)
    assert again["message"] == f"Instance {first['interface']} of {ALICE} is as asked on {NL}"
    assert again["peers"] == [{**first["peers"][0], "added": False}]
    assert {key: again[key] for key in ("public_key", "listen_port", "addresses")} == {
        key: first[key] for key in ("public_key", "listen_port", "addresses")
    }
    assert stored(controller.registry) == {**before, "operation": 2, "audit_entry": 2}
    assert_all_is_well(controller.registry, controller.fleet)


def test_more_devices_are_added_and_known_ones_updated(controller: Controller) -> None:
    controller.play(
        "provision", instance=ALICE, peers=[{"name": "phone", "preshared_key": SHARED}, {"name": "tablet"}]
    )
    result = controller.one(
        "provision",
        instance=ALICE,
        peers=[
            {"name": "phone", "preshared_key": OTHER_SHARED, "persistent_keepalive": "15"},
            {"name": "router"},
        ],
    )
    assert (result["code"], result["changed"], result["peers_count"]) == (200, True, 3)
    assert {peer["name"]: peer["added"] for peer in result["peers"]} == {
        "phone": False, "tablet": False, "router": True,
    }  # fmt: skip
    live = controller.fleet.nodes[result["node"]].up[result["interface"]]["peers"]
    (phone,) = [peer for peer in live if peer["name"] == "phone"]
    assert (phone["preshared_key"], phone["persistent_keepalive"]) == (OTHER_SHARED, 15)
    assert_all_is_well(controller.registry, controller.fleet)


def test_a_device_with_a_key_is_known_by_it(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, peers=[{"name": "phone", "public_key": KEY}])
    result = controller.one("provision", instance=ALICE, peers=[{"name": "mobile", "public_key": KEY}])
    assert [(peer["name"], peer["public_key"], peer["added"]) for peer in result["peers"]] == [
        ("mobile", KEY, False)
    ]


def networks(result: dict[str, Any]) -> dict[str, list[str]]:
    """By device, the networks behind it."""
    return {peer["name"]: peer["allowed_ips"][2:] for peer in result["peers"]}


def test_the_networks_behind_a_device_are_those_that_were_asked_for_last(controller: Controller) -> None:
    def provision(**behind: list[str]) -> dict[str, Any]:
        peers = [{"name": name, "allowed_ips": some} for name, some in behind.items()]
        result = controller.one("provision", instance=ALICE, node=NL, peers=peers)
        assert_all_is_well(controller.registry, controller.fleet)
        return result

    first = provision(router=["192.0.2.0/25", "fd00:9::/64"], office=["192.0.2.128/25"], phone=[])
    own = {peer["name"]: peer["allowed_ips"][:2] for peer in first["peers"]}
    # They change places, in one run.
    result = provision(router=["192.0.2.128/25"], office=["192.0.2.0/25"])
    assert networks(result) == {"router": ["192.0.2.128/25"], "office": ["192.0.2.0/25"], "phone": []}
    assert (result["code"], result["changed"]) == (200, True)
    # Its own addresses are no networks behind it, and stay.
    result = provision(router=[own["router"][0], "198.51.100.0/24"], office=[])
    assert networks(result) == {"router": ["198.51.100.0/24"], "office": [], "phone": []}
    assert {peer["name"]: peer["allowed_ips"][:2] for peer in result["peers"]} == own
    assert provision(router=["198.51.100.0/24"])["changed"] is False
    result = controller.one("provision", instance=ALICE, node=NL, peers=[{"name": "router"}])
    assert (networks(result)["router"], result["changed"]) == (["198.51.100.0/24"], False)
    with pytest.raises(Conflict, match=own["phone"][0]):
        provision(router=[own["phone"][0]])
    # One of two goes, and the other stays.
    provision(router=["198.51.100.0/24", "203.0.113.0/25"])
    result = provision(router=["198.51.100.0/24", "203.0.113.128/25"])
    assert networks(result)["router"] == ["198.51.100.0/24", "203.0.113.128/25"]
    provision(router=["198.51.100.0/24"])
    # What one gives up, a new one may have in the same run.
    result = provision(router=[], tablet=["198.51.100.0/24"])
    assert networks(result) == {"router": [], "office": [], "phone": [], "tablet": ["198.51.100.0/24"]}


def test_who_was_disconnected_comes_up_again_with_the_same_keys(controller: Controller) -> None:
    first = controller.one("provision", instance=ALICE, node=NL, peers=[{"name": "phone"}])
    controller.play("disconnect", instance=ALICE)
    assert controller.up(ALICE) == []
    again = controller.one("provision", instance=ALICE)
    assert (again["status"], again["changed"], controller.up(ALICE)) == ("success", True, [NL])
    assert again["message"] == f"Instance {again['interface']} of {ALICE} is up again on {NL}"
    assert (again["public_key"], again["peers"][0]["public_key"]) == (
        first["public_key"], first["peers"][0]["public_key"],
    )  # fmt: skip
    assert_all_is_well(controller.registry, controller.fleet)


def test_what_somebody_has_added_by_hand_is_left_to_reconcile(controller: Controller) -> None:
    result = controller.one("provision", instance=ALICE, peers=[{"name": "phone"}])
    up = controller.fleet.nodes[result["node"]].up[result["interface"]]
    up["peers"].append({"public_key": KEY, "allowed_ips": ["192.0.2.9/32"], "persistent_keepalive": 0})
    controller.play("provision", instance=ALICE, peers=[{"name": "tablet"}])
    up = controller.fleet.nodes[result["node"]].up[result["interface"]]
    assert len(up["peers"]) == 3


# ---- secrets, and how much is told


def test_no_secret_is_told_or_stored_in_clear(controller: Controller) -> None:
    peers = [{"name": "phone", "preshared_key": SHARED}, {"name": "router", "public_key": KEY}]
    said: list[Any] = [controller.play("provision", instance=ALICE, peers=peers), controller.shown]
    said += [controller.play("provision", instance=BOB, peers=[{"name": "x"}], check=True), controller.shown]
    changes: list[tuple[str, dict[str, Any]]]
    changes = [("provision", {}), ("transfer", {"node": FR}), ("disconnect", {})]
    for weather in Weather:
        controller.fleet.set_weather(weather)
        for kind, more in changes:
            said += [controller.play(kind, instance=ALICE, **more), controller.shown]
    for wrong in ({"public_key": SHARED, "preshared_key": KEY + "x"}, {"name": SHARED * 9}, {SHARED: "x"}):
        with pytest.raises(RegistryError) as caught:
            controller.play("provision", instance=ALICE, peers=[wrong])
        said.append(caught.value)
    said += controller.rows(Operation) + controller.rows(Instance) + controller.rows(Peer)
    assert told_secrets(controller.registry, *said) == []


def test_a_result_names_so_many_peers_and_counts_them_all(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, prefix_length=20, node=NL)
    instance = controller.instance(ALICE)
    with controller.registry.write() as session:
        session.execute(
            insert(Peer),
            [
                {
                    "id": new_id(),
                    "instance_id": instance.id,
                    "public_key": f"{number:043}=",
                    "name": "x" * 255,
                }
                for number in range(1500)
            ],
        )
    result = controller.one("provision", instance=ALICE)
    assert (result["peers_count"], len(result["peers"]), result["truncated"]) == (1500, 500, True)


def test_what_is_left_on_another_node_does_not_hold_it_up(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, node=NL)
    controller.fleet.set_weather(Weather.UNREACHABLE, NL)
    controller.play("transfer", instance=ALICE, node=DE)
    result = controller.one("provision", instance=ALICE, peers=[{"name": "phone"}])
    assert (result["status"], result["code"], result["pending"]) == ("success", 200, True)
    assert f"updated on {DE}" in result["message"]
    assert f"node {NL} cannot be reached" in result["warnings"][0]
    controller.fleet.set_weather(Weather.FINE)
    assert not controller.one("provision", instance=ALICE)["pending"]
    assert_all_is_well(controller.registry, controller.fleet)


def test_a_customer_without_a_group_gets_devices_all_the_same(controller: Controller) -> None:
    controller.play("provision", instance=ALICE, node=NL)
    with controller.registry.write() as session:
        session.execute(delete(PeerGroupInstance))
        session.execute(delete(PeerGroup))
    controller.play("provision", instance=ALICE, peers=[{"name": "phone"}])
    assert controller.rows(PeerGroupPeer) == []
    assert_all_is_well(controller.registry, controller.fleet)
