"""A network belongs to one interface of a node: nobody can take it from another customer, or from the node itself."""

from __future__ import annotations

from typing import Any

from tests.e2e import wg7, wg_node
from tests.e2e.ansible_run import play, task
from tests.e2e.node_state import read_state
from tests.e2e.wireguard_keys import peer_key
from tests.lab.fleet import Lab
from tests.lab.node import Node

node = wg_node.node
bystander = wg_node.bystander
others_notice_nothing = wg7.others_notice_nothing


def instance(number: int, *networks: str, address: str | None = None) -> dict[str, Any]:
    return {
        "name": f"wg{number}",
        "listen_port": 20000 + number,
        "addresses": [address or f"10.{number}.0.1/24"],
        "peers": [{"public_key": peer_key(f"router of {number}"), "allowed_ips": list(networks)}],
    }


def test_another_customers_network_cannot_be_had(lab: Lab, node: Node) -> None:
    first, second = instance(7, "192.168.50.0/24"), instance(8, "192.168.50.128/25")
    run = play(lab, node, [task("first", "wg_instance", first), task("second", "wg_instance", second)])
    assert not run["first"].failed, run["first"].message
    assert run["second"].failed
    assert "192.168.50.128/25 of wg8 overlaps with 192.168.50.0/24, which is wg7's" in run["second"].message
    state = read_state(node)
    assert "wg8" not in state.interfaces
    assert "192.168.50.0/24" in node.run(["ip", "route", "show", "dev", "wg7"]).stdout

    gone = {"name": "wg7", "state": "disconnected"}
    again = play(lab, node, [task("gone", "wg_instance", gone), task("second", "wg_instance", second)])
    assert not again["second"].failed, again["second"].message


def test_nor_within_one_call(lab: Lab, node: Node) -> None:
    batch = [instance(7), instance(8, address="10.7.0.99/24"), instance(9)]
    run = play(lab, node, [task("batch", "wg_instance", {"instances": batch})])
    answers = {entry["name"]: entry for entry in run["batch"].answer["instances"]}
    assert run["batch"].failed
    assert "wg7" in answers["wg8"]["error"]
    assert answers["wg7"]["changed"]
    assert answers["wg9"]["changed"]
    running = node.run(["wg", "show", "interfaces"]).stdout.split()
    assert sorted(running) == ["wg7", "wg9", wg_node.BYSTANDER]


def test_nor_the_nodes_own(lab: Lab, node: Node) -> None:
    """Without the refusal this would be the last that anyone hears of the node: SSH comes that way."""
    own = node.run(["ip", "-4", "route", "show", "dev", "eth0", "proto", "kernel"]).stdout.split()[0]
    asked = instance(7, own)
    run = play(
        lab, node, [task("foreseen", "wg_instance", asked, check=True), task("own", "wg_instance", asked)]
    )
    assert run["own"].failed
    assert f"{own} of wg7 overlaps with" in run["own"].message
    assert "eth0's on this node" in run["own"].message
    assert run["foreseen"].message == run["own"].message
    assert "wg7" not in read_state(node).interfaces


def test_a_peer_that_brings_such_a_network_is_refused(lab: Lab, node: Node) -> None:
    asked = {"interface": "wg8", "public_key": peer_key("new"), "allowed_ips": ["192.168.50.0/24"]}
    run = play(
        lab,
        node,
        [
            task("both", "wg_instance", {"instances": [instance(7, "192.168.50.0/24"), instance(8)]}),
            task("peer", "wg_peer", asked),
        ],
    )
    assert not run["both"].failed, run["both"].message
    assert run["peer"].failed
    assert "which is wg7's" in run["peer"].message
