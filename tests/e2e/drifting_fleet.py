"""Three customers on three nodes whose drift is looked at and mended by playbooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.node_state import read_state
from tests.e2e.registry_fleet import RegistryFleet, connect
from tests.e2e.started_playbook import Run
from tests.e2e.wireguard_keys import peer_key, preshared_key, private_key, public_key
from tests.lab.node import Node

NODE1, NODE2, NODE3 = "node1", "node2", "node3"
EVERYTHING: dict[str, Any] = {"reconcile_missing": True, "reconcile_mismatched": True, "remove_unknown": True}
STRANGER = peer_key("stranger")


@pytest.fixture
def node(fleet: RegistryFleet) -> Node:
    return fleet.nodes[NODE1]


@pytest.fixture(scope="module", autouse=True)
def customers(fleet: RegistryFleet) -> None:
    """Anna, who shares node1 with Bert and is connected all the time, and Carl on node2."""
    fleet.done(
        "provision",
        instances=[
            {"instance": "anna@example.com", "node": NODE1, "peers": [mine("anna")]},
            {
                "instance": "bert@example.com",
                "node": NODE1,
                "peers": [
                    {
                        "name": "phone",
                        "public_key": peer_key("phone"),
                        "preshared_key": preshared_key("phone"),
                    },
                    {"name": "laptop", "public_key": peer_key("laptop"), "persistent_keepalive": 25},
                    {"name": "{{ 7 * 191 }}", "public_key": peer_key("tablet")},
                ],
            },
            {"instance": "carl@example.com", "node": NODE2, "peers": [mine("carl")]},
        ],
    )


@pytest.fixture(scope="module", autouse=True)
def no_secret_is_told(fleet: RegistryFleet) -> Iterator[None]:
    yield
    secrets = fleet.secrets() | {preshared_key("phone")}
    assert secrets
    assert not [output for output in fleet.outputs for secret in secrets if secret in output]


def mine(name: str) -> dict[str, Any]:
    return {"name": f"{name}'s phone", "public_key": public_key(name), "preshared_key": preshared_key(name)}


def provision(fleet: RegistryFleet, node: str, *names: str) -> dict[str, dict[str, Any]]:
    """Customers on a node, each with a peer; what is told of them, by name."""
    return fleet.done(
        "provision",
        instances=[{"instance": name, "node": node, "peers": [{"name": "phone"}]} for name in names],
    ).results


def interface_of(fleet: RegistryFleet, name: str) -> str:
    found = fleet.instance(f"{name}@example.com")
    assert found is not None
    return found.interface


def look(fleet: RegistryFleet, name: str, *arguments: str) -> dict[str, Any]:
    """The report on one node, in the contract's shape."""
    run = fleet.done("drift", *arguments, node=name)
    assert set(run.changed.values()) == {0}
    (only,) = run.published["operations"]
    assert only["node"] == name
    data: dict[str, Any] = only["data"]
    return data


@dataclass(frozen=True)
class Mended:
    """A reconcile: its result, the report in it, and how many modules it called on its node."""

    result: dict[str, Any]
    data: dict[str, Any]
    calls: int


def reconcile(fleet: RegistryFleet, name: str = NODE1, **asked: Any) -> Mended:
    """Foreseen, done, and nothing left to do."""
    nodes, tables = fleet.states(), fleet.tables()
    foreseen = fleet.done("reconcile", "--check", "--diff", node=name, **asked)
    assert fleet.states() == nodes
    assert fleet.tables() == tables
    before = fleet.sessions()
    done = fleet.done("reconcile", "--diff", node=name, **asked)
    after = fleet.sessions()
    assert {node for node in after if after[node] > before[node]} == {name}
    assert done.changed == foreseen.changed
    # What is mended in two steps is shown in two.
    assert set(diff_of(foreseen)) <= set(diff_of(done))
    data: dict[str, Any] = done.result["data"]
    assert foreseen.result["data"] == data
    assert foreseen.result["status"] == "planned"
    again = fleet.done("reconcile", node=name, **asked)
    assert set(again.changed.values()) == {0}, again.output
    assert fleet.sessions()[name] == after[name] + 1
    for kind in ("added", "updated", "removed", "instances"):
        assert again.result["data"][kind] == []
    assert again.result["data"]["errors"] == data["errors"]
    return Mended(done.result, data, after[name] - before[name])


def diff_of(run: Run) -> list[str]:
    return re.findall(r"^[+-](?![+-]).*", run.output, re.MULTILINE)


def no_drift(fleet: RegistryFleet) -> bool:
    summary: dict[str, int] = fleet.done("drift").published["data"]["summary"]
    return summary["total_issues"] == 0


def wg(node: Node, *arguments: str) -> str:
    return node.run(["wg", *arguments]).stdout.strip()


@contextmanager
def anna_keeps_pinging(fleet: RegistryFleet, told: dict[str, Any] | None = None) -> Iterator[None]:
    """Her tunnel is on the same node all the time, and nothing is lost in it. `told` is what a run has said of her
    instance; without it, a run is asked."""
    if told is None:
        told = fleet.done("provision", instance="anna@example.com").result
    name = told["interface"]
    device = fleet.lab.devices[0]
    address = connect(device, told, private_key("anna"), preshared_key("anna"))
    ping = device.start_ping(address, 0.1)
    assert ping.wait_for_reply()
    before = read_state(fleet.nodes[NODE1]).interfaces[name]
    yield
    after = read_state(fleet.nodes[NODE1]).interfaces[name]
    (there,) = before.peers.values()
    (now,) = after.peers.values()
    assert (after, now.handshake, now.endpoint) == (before, there.handshake, there.endpoint)
    assert now.received > there.received
    assert ping.stop().lost == 0
    device.disconnect()


def drift_by_hand(fleet: RegistryFleet) -> str:
    """Bert's phone gone, his laptop changed, and a stranger in; returns his interface."""
    name = interface_of(fleet, "bert")
    wg(
        fleet.nodes[NODE1], "set", name,
        "peer", peer_key("phone"), "remove",
        "peer", peer_key("laptop"), "persistent-keepalive", "30",
        "peer", STRANGER, "allowed-ips", "10.99.0.7/32", "endpoint", "192.0.2.4:51820",
    )  # fmt: skip
    return name
