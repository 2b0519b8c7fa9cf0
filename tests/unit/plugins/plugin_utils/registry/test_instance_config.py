"""Instances as wg_instance takes them, out of what the registry says."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, inspect, select

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.desired import check_instance
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import instance_config
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.instance_config import (
    endpoint,
    load_instances,
    on_node,
    peers_of,
    present,
)
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.key_pairs import new_key_pair
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.models import Instance, Node, Peer
from tests.unit.plugins.plugin_utils.registry.rows import add_instance, add_node, add_peer
from tests.unit.plugins.plugin_utils.registry.simulated_playbook import Controller

SHARED = new_key_pair()[0]


def test_an_instance_is_what_the_module_takes(controller: Controller) -> None:
    with controller.registry.write() as session:
        node = add_node(session, override_mtu=1380)
        key, public_key = new_key_pair()
        instance = add_instance(
            session, node, subnet="10.8.0.0/24", subnet6="fd00:8::/64", private_key=key, public_key=public_key
        )
        phone = add_peer(session, instance, "10.8.0.2/32", "fd00:8::2/128", "192.0.2.0/24", name="phone",
                         preshared_key=SHARED, persistent_keepalive=25, public_key=new_key_pair()[1])  # fmt: skip
        tablet = add_peer(session, instance, public_key=new_key_pair()[1])
        peers = peers_of(session, [instance.id])[instance.id]
        wanted = present(instance, node, 51999, peers)
        # Before it has been up there, what has its name is known by the key.
        assert wanted.pop("public_key") == public_key
        assert present(instance, add_node(session, "elsewhere"), 51999, peers)["public_key"] == public_key
        instance.arrived = True
        assert "public_key" not in present(instance, node, 51999, peers)
    by_name = {peer.pop("name"): peer for peer in wanted.pop("peers")}
    assert wanted == {
        "name": instance.interface,
        "state": "present",
        "private_key": key,
        "listen_port": 51999,
        "addresses": ["10.8.0.1/24", "fd00:8::1/64"],
        "mtu": 1380,
        "fwmark": 0,
    }
    assert by_name == {
        "phone": {
            "public_key": phone.public_key,
            "allowed_ips": ["10.8.0.2/32", "fd00:8::2/128", "192.0.2.0/24"],
            "persistent_keepalive": 25,
            "preshared_key": SHARED,
            "peer_id": phone.id,
        },
        "": {
            "public_key": tablet.public_key,
            "allowed_ips": [],
            "persistent_keepalive": 0,
            "peer_id": tablet.id,
        },
    }


def test_the_module_itself_takes_it(controller: Controller) -> None:
    controller.play(
        "provision", instance="alice@example.com", peers=[{"name": "phone", "preshared_key": SHARED}]
    )
    ((_node, _interface, wanted),) = controller.fleet.everything()
    desired = check_instance(wanted, "instances[0]")
    assert (desired.name, len(desired.peers or {})) == (wanted["name"], 1)


@pytest.mark.parametrize(
    ("of_node", "of_instance", "of_peer", "expected"),
    [
        (None, None, 0, 0),
        (30, None, 0, 30),
        (30, None, 25, 25),
        (30, 10, 0, 10),
        (30, 0, 0, 0),
        (None, 10, 0, 10),
    ],
)
def test_a_peer_is_asked_for_its_keepalive_before_the_instance_and_the_node(
    of_node: int | None, of_instance: int | None, of_peer: int, expected: int
) -> None:
    peers = [{"public_key": "x", "persistent_keepalive": of_peer}]
    instance, node = Instance(keepalive=of_instance), Node(override_keepalive=of_node)
    assert [one["persistent_keepalive"] for one in on_node(instance, node, peers)] == [expected]
    assert peers == [{"public_key": "x", "persistent_keepalive": of_peer}]


def test_what_is_not_set_is_left_to_the_node(controller: Controller) -> None:
    with controller.registry.write() as session:
        node = add_node(session)
        assert "mtu" not in present(add_instance(session, node), node, 1, [])
        assert present(add_instance(session, node, mtu=1300), node, 1, [])["mtu"] == 1300


def test_a_few_queries_for_any_number_of_instances(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_config, "CHUNK", 7)
    with controller.registry.write() as session:
        node = add_node(session)
        instances = [add_instance(session, node, peers=number % 3) for number in range(20)]
        for instance in instances:
            add_peer(session, instance, f"192.0.2.{instance.id % 250}/32", preshared_key=SHARED)
    ids = [instance.id for instance in instances]
    statements: list[Any] = []
    event.listen(
        controller.registry.engine, "before_cursor_execute", lambda *given: statements.append(given[2])
    )
    with controller.registry.read() as session:
        found, peers = load_instances(session, ids), peers_of(session, ids)
        assert [found[number].private_key for number in ids] == [one.private_key for one in instances]
    assert sum(text.lstrip().startswith("SELECT") for text in statements) == 3 * 3
    assert [len(peers[number]) for number in ids] == [number % 3 + 1 for number in range(20)]
    assert all(
        [peer["allowed_ips"] for peer in peers[number] if "preshared_key" in peer]
        == [[f"192.0.2.{number % 250}/32"]]
        for number in ids
    )


def test_no_private_key_is_read_unless_it_is_needed(controller: Controller) -> None:
    controller.play("provision", instance="alice@example.com", peers=[{"name": "phone"}])
    with controller.registry.read() as session:
        for model in (Instance, Peer):
            assert "private_key" in inspect(session.scalars(select(model)).one()).unloaded


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"endpoint": "vpn.example.com", "dns_name": "x", "ansible_host": "y"}, "vpn.example.com:51820"),
        ({"endpoint": "vpn.example.com:4500"}, "vpn.example.com:51820"),
        ({"endpoint": "192.0.2.1"}, "192.0.2.1:51820"),
        ({"endpoint": "192.0.2.1:4500"}, "192.0.2.1:51820"),
        ({"endpoint": "fd00::1"}, "[fd00::1]:51820"),
        ({"endpoint": "[fd00::1]"}, "[fd00::1]:51820"),
        ({"endpoint": "[fd00::1]:4500"}, "[fd00::1]:51820"),
        ({"dns_name": "x.example.com", "ansible_host": "192.0.2.1"}, "x.example.com:51820"),
        ({"ansible_host": "fd00::1"}, "[fd00::1]:51820"),
        ({}, "n1.example.com:51820"),
    ],
)
def test_where_devices_reach_an_instance(fields: dict[str, str], expected: str) -> None:
    assert endpoint(Instance(listen_port=51820), Node(name="n1.example.com", **fields)) == expected
